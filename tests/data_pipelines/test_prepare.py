import csv
import dataclasses
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import manifest, media, prepare, progress, shards, sources
from tests.media_files import numbered_pictures, write_media
from xdc_jax.errors import UserError

PROJECT = Path(__file__).parents[2]
SETTINGS = media.Settings(segment_s=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six good files (one without sound, one without pictures), two bad ones."""
    folder = tmp_path_factory.mktemp("media")
    for i, name in enumerate(("cat/a.mkv", "cat/b.mkv", "dog/c.mkv", "dog/d.mkv")):
        (folder / name).parent.mkdir(exist_ok=True)
        write_media(
            folder / name,
            pictures=numbered_pictures(10 + 10 * i),
            fps=10,
            samples=np.full(16_000 * (1 + i), 100 * i, np.int16),
        )
    write_media(folder / "dog" / "e.mkv", pictures=numbered_pictures(5), fps=10)
    write_media(folder / "f.wav", samples=np.ones(8_000, np.int16))
    (folder / "bad.mp4").write_bytes(b"not a video" * 100)
    (folder / "empty.mp4").touch()
    return folder


def run(source, out_dir, **options):
    options = {"num_workers": 2, "max_rejected": 1.0, "records_per_shard": 4} | options
    prepare.prepare(source, out_dir, SETTINGS, **options)
    return shards.open_prepared(out_dir)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("prepared") / "data"
    return run(sources.folder_source(folder, folder_labels=True), out_dir)


def rejections(out_dir):
    with (Path(out_dir) / "rejected.csv").open() as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]


def test_records_are_those_of_the_files_in_order(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared.data_dir)
    found = [
        (
            int(example["clip_id"]),
            example["video_id"].decode(),
            float(example["start_s"]),
            len(example["frames"]),
            len(example["audio"]),
            int(example["label"]),
        )
        for example in tfds.as_numpy(builder.as_dataset(split="train"))
    ]
    assert found == [
        (0, "cat/a.mkv", 0.0, 10, 16_000, 0),
        (1, "cat/b.mkv", 0.0, 10, 16_000, 0),
        (2, "cat/b.mkv", 1.0, 10, 16_000, 0),
        (3, "dog/c.mkv", 0.0, 10, 16_000, 1),
        (4, "dog/c.mkv", 1.0, 10, 16_000, 1),
        (5, "dog/c.mkv", 2.0, 10, 16_000, 1),
        (6, "dog/d.mkv", 0.0, 10, 16_000, 1),
        (7, "dog/d.mkv", 1.0, 10, 16_000, 1),
        (8, "dog/d.mkv", 2.0, 10, 16_000, 1),
        (9, "dog/d.mkv", 3.0, 10, 16_000, 1),
        (10, "dog/e.mkv", 0.0, 5, 0, 1),
        (11, "f.wav", 0.0, 0, 8_000, -1),
    ]
    assert builder.info.splits["train"].shard_lengths == [4, 4, 4]
    assert prepared.class_names == ("cat", "dog")


def test_rejections_and_counts_are_kept(prepared):
    assert rejections(prepared.data_dir) == [
        ("bad.mp4", "unreadable"),
        ("empty.mp4", "unreadable"),
    ]
    counts = shards.read_summary(prepared.data_dir)["counts"]
    assert counts == {
        "sources": 8,
        "clips": 12,
        "media_s": pytest.approx(11.0),
        "without_sound": 1,
        "without_pictures": 1,
        "rejected": 2,
        "reasons": {"unreadable": 2},
    }


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(folder, prepared, tmp_path, num_workers):
    source = sources.folder_source(folder, folder_labels=True)
    again = run(source, tmp_path / "data", num_workers=num_workers)
    assert again.fingerprint == prepared.fingerprint
    names = sorted(os.listdir(prepared.data_dir))
    assert sorted(os.listdir(again.data_dir)) == names
    for name in names:
        ours = Path(again.data_dir, name).read_bytes()
        assert ours == Path(prepared.data_dir, name).read_bytes(), name


def test_the_same_request_is_done_already_another_is_refused(folder, prepared, capsys):
    source = sources.folder_source(folder, folder_labels=True)
    out_dir = Path(prepared.data_dir)
    run(source, out_dir, num_workers=1)
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match="records_per_shard is 4, not 5"):
        run(source, out_dir, records_per_shard=5)
    with pytest.raises(UserError, match="rows is"):
        run(sources.folder_source(folder, folder_labels=False), out_dir)
    with pytest.raises(UserError, match="no prepared directory"):
        run(source, folder)


def test_too_many_rejections_fail_and_nothing_done_is_lost(
    folder, tmp_path, monkeypatch
):
    (tmp_path / "m.csv").write_text(f"path\n{folder}/cat/a.mkv\nmissing.mp4\n")
    source = sources.manifest_source(tmp_path / "m.csv")
    out_dir = tmp_path / "data"
    with pytest.raises(UserError, match=r"1 of 2 files \(50.0%\).*1 missing") as error:
        run(source, out_dir, max_rejected=0.4)
    assert str(tmp_path / "data.incomplete" / "rejected.csv") in str(error.value)
    assert not out_dir.exists()
    monkeypatch.setattr(prepare, "_write", None)  # It must not be decoded again.
    assert len(run(source, out_dir, max_rejected=0.5).splits["train"]) == 1
    assert rejections(out_dir) == [("missing.mp4", "missing")]
    assert not (tmp_path / "data.incomplete").exists()


def test_an_interrupted_preparation_starts_over(folder, tmp_path):
    work_dir = tmp_path / "data.incomplete"
    (work_dir / "media").mkdir(parents=True)
    (work_dir / "incomplete-train-00000").write_bytes(b"half")
    with pytest.raises(UserError, match="no prepared"):
        shards.open_prepared(work_dir)
    (tmp_path / "m.csv").write_text(f"path,split\n{folder}/cat/a.mkv,test\n")
    result = run(sources.manifest_source(tmp_path / "m.csv"), tmp_path / "data")
    assert set(result.splits) == {"test"}
    assert not any("incomplete" in name for name in os.listdir(result.data_dir))


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    source = sources.folder_source(tmp_path, folder_labels=False)
    with pytest.raises(UserError, match="1 files gave no clip: 1 unreadable"):
        run(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def crash_on_b(task):
    """Decodes a row; dies at b.mkv, and fails at c.mkv in an unforeseen way."""
    row, _ = task
    if row.path == "cat/b.mkv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if row.path == "dog/c.mkv":
        row = dataclasses.replace(row, start_s="zero")
    yield from prepare.decode_row((row, SETTINGS))


def test_a_crash_of_the_decoder_costs_one_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "decode_row", crash_on_b)
    source = sources.folder_source(folder, folder_labels=True)
    result = run(source, tmp_path / "data")
    assert ("cat/b.mkv", "decoder crashed") in rejections(result.data_dir)
    assert ("dog/c.mkv", "decoder failed") in rejections(result.data_dir)
    names = result.splits["train"].video_id.tolist()
    assert set(names) == {"cat/a.mkv", "dog/d.mkv", "dog/e.mkv", "f.wav"}


def test_a_manifest_gives_splits_labels_folds_and_intervals(real_data, tmp_path):
    clips = real_data / "grid_words" / "clips"
    with (real_data / "grid_words" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))[::300]
    path = tmp_path / "m.csv"
    with path.open("w") as file:
        file.write("path,label,split,fold,start_s,end_s\n")
        for i, row in enumerate(rows):
            name = clips / Path(row["file"]).name
            file.write(f"{name},{row['label']},{row['split']},{i % 3},0.08,0.4\n")
    result = run(sources.manifest_source(path), tmp_path / "data")
    by_path = {r["file"].split("/")[1]: r for r in rows}
    assert sum(len(index) for index in result.splits.values()) == len(rows)
    for split, index in result.splits.items():
        for k, video_id in enumerate(index.video_id):
            row = by_path[Path(video_id).name]
            assert split == row["split"]
            assert result.class_names[index.label[k]] == row["label"]
            assert index.num_frames[k] == 8
            assert index.num_samples[k] == 5_120
            assert index.start_s[k] == pytest.approx(0.08)


def test_pictures_survive_preparation(prepared):
    import tensorflow as tf

    files = list(prepared.splits["train"].files)
    for serialized in tf.data.TFRecordDataset(files).take(10):
        record = shards.parse(serialized)
        first = round(float(record["start_s"]) * 10)
        for k, jpeg in enumerate(record["frames"].numpy()):
            picture = np.asarray(Image.open(io.BytesIO(jpeg)))
            assert abs(picture.mean() - 8 * (first + k) % 256) < 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "found no source"),
        (["--folder=x", "--dataset=grid_words"], "exactly one of"),
        (["--folder=/nowhere"], "/nowhere: expected a folder"),
        (["--manifest=/nowhere.csv"], "/nowhere.csv: cannot open"),
        (["--dataset=nothing"], "digits_tones"),
        (["--folder=x", "--num_train=3"], "--num_train goes with --dataset"),
        (["--folder=x", "--max_rejected=2"], "max_rejected"),
    ],
)
def test_wrong_flags_end_with_a_message(tmp_path, flags, message):
    command = [sys.executable, "-m", "xdc_jax", "prepare", f"--out={tmp_path}/o"]
    result = subprocess.run(
        [*command, *flags], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert message.lower() in result.stderr.lower()
    assert "Traceback" not in result.stderr


def test_progress_is_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    with progress.Progress(2, "file", "clips") as bar:
        bar.update(1, 3)
        bar.update(2, 5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 of 2 files, 3 clips, ")
    assert lines[1].startswith("2 of 2 files, 5 clips, ")


def test_the_manifest_decides_not_the_order_of_its_rows(folder, tmp_path):
    rows = [f"{folder}/cat/a.mkv,x\n", f"{folder}/cat/b.mkv,y\n"]
    fingerprints = set()
    for i, order in enumerate((rows, rows[::-1])):
        path = tmp_path / f"{i}.csv"
        path.write_text("path,label\n" + "".join(order))
        result = run(sources.manifest_source(path), tmp_path / str(i))
        fingerprints.add(result.fingerprint)
    assert len(fingerprints) == 1
    assert manifest.read_manifest(tmp_path / "0.csv").class_names == ("x", "y")
