import csv
import dataclasses
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import manifest, media, parts, prepare, progress, shards, sources
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
    options = {"num_workers": 2, "max_rejected": 1.0, "rows_per_shard": 3} | options
    prepare.prepare(source, out_dir, SETTINGS, **options)
    return shards.open_prepared(out_dir)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("prepared") / "data"
    return run(sources.folder_source(folder, folder_labels=True), out_dir)


def contents(out_dir):
    """Name -> bytes of every file but the report, which has times in it."""
    found = {path.name: path.read_bytes() for path in Path(out_dir).iterdir()}
    found.pop("prepare_report.json")
    return found


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
    assert builder.info.splits["train"].shard_lengths == [3, 8, 1]
    assert prepared.class_names == ("cat", "dog")


def test_rejections_and_counts_are_kept(prepared):
    assert rejections(prepared.data_dir) == [
        ("bad.mp4", "unreadable"),
        ("empty.mp4", "unreadable"),
    ]
    report = json.loads((Path(prepared.data_dir) / "prepare_report.json").read_text())
    assert report.pop("seconds_of_this_start") > 0
    assert report.pop("files_per_s") > 0
    size = sum(path.stat().st_size for path in Path(prepared.data_dir).glob("*.tf*"))
    assert report == {
        "sources": 8,
        "missing": 0,
        "bad_rows": 0,
        "rejected": 2,
        "reasons": {"unreadable": 2},
        "clips": 12,
        "media_hours": pytest.approx(11.0 / 3600),
        "bytes": size,
        "without_sound": 1,
        "without_pictures": 1,
        "silent": 2,  # the samples of a.mkv are zeros, those of f.wav ones
        "near_still": 0,
        "short": 0,
        "duplicates": 0,
        "files_of_this_start": 8,
    }


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(folder, prepared, tmp_path, num_workers):
    source = sources.folder_source(folder, folder_labels=True)
    again = run(source, tmp_path / "data", num_workers=num_workers)
    assert again.fingerprint == prepared.fingerprint
    assert contents(again.data_dir) == contents(prepared.data_dir)


def test_the_same_request_is_done_already_another_is_refused(folder, prepared, capsys):
    source = sources.folder_source(folder, folder_labels=True)
    out_dir = Path(prepared.data_dir)
    run(source, out_dir, num_workers=1)
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match="rows_per_shard is 3, not 5"):
        run(source, out_dir, rows_per_shard=5)
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
    assert str(out_dir / "rejected.csv") in str(error.value)
    with pytest.raises(UserError, match=r"no prepared\.json"):
        shards.open_prepared(out_dir)
    monkeypatch.setattr(parts, "write", None)  # It must not be decoded again.
    assert len(run(source, out_dir, max_rejected=0.5).splits["train"]) == 1
    assert rejections(out_dir) == [("missing.mp4", "missing")]
    assert "parts" not in os.listdir(out_dir)


def test_an_unfinished_preparation_is_not_mixed_with_another(folder, tmp_path):
    (tmp_path / "m.csv").write_text(f"path\n{folder}/cat/a.mkv\nmissing.mp4\n")
    source = sources.manifest_source(tmp_path / "m.csv")
    with pytest.raises(UserError, match="rejected"):
        run(source, tmp_path / "data", max_rejected=0.1)
    with pytest.raises(UserError, match="unfinished .*rows_per_shard is 3, not 7"):
        run(source, tmp_path / "data", rows_per_shard=7)


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    source = sources.folder_source(tmp_path, folder_labels=False)
    with pytest.raises(UserError, match="1 files gave no clip: 1 unreadable"):
        run(source, tmp_path / "data")
    with pytest.raises(UserError, match="1 files gave no clip"):  # once more
        run(source, tmp_path / "data")


def crash_on_b(task):
    """Decodes a row; dies at b.mkv, fails at c.mkv in an unforeseen way, hangs in d."""
    row, _ = task
    if row.path == "cat/b.mkv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if row.path == "dog/c.mkv":
        row = dataclasses.replace(row, start_s="zero")
    if row.path == "dog/d.mkv":
        yield from itertools.islice(parts.decode_row((row, SETTINGS)), 1)
        time.sleep(60)
    yield from parts.decode_row((row, SETTINGS))


def test_a_crash_of_the_decoder_costs_one_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "decode_row", crash_on_b)
    source = sources.folder_source(folder, folder_labels=True)
    result = run(source, tmp_path / "data", time_limit_s=3.0)
    assert ("cat/b.mkv", "decoder crashed") in rejections(result.data_dir)
    assert ("dog/c.mkv", "decoder failed") in rejections(result.data_dir)
    assert ("dog/d.mkv", "time limit") in rejections(result.data_dir)
    names = result.splits["train"].video_id.tolist()  # d.mkv gave one clip in time
    assert names == ["cat/a.mkv", "dog/d.mkv", "dog/e.mkv", "f.wav"]


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
        (["--dataset=av_digits", "--check"], "--check looks for the files of"),
        (["--folder=x", "--runner_options=a=b"], "x: expected a folder"),
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


def start(folder, out_dir, *flags, **options):
    command = [sys.executable, "-m", "xdc_jax", "prepare", f"--folder={folder}"]
    command += [f"--out={out_dir}", "--rows_per_shard=8", *flags]
    return subprocess.Popen(command, cwd=PROJECT, start_new_session=True, **options)


# With it, the whole corpus is killed so often:
# XDC_KILLS=20 python -m pytest tests/data_pipelines/test_prepare.py -k killed
KILLS = int(os.environ.get("XDC_KILLS", 0))


@pytest.fixture(scope="module")
def words(real_data, tmp_path_factory):
    """Real clips, what a preparation makes of them, and in how many seconds."""
    folder = tmp_path_factory.mktemp("words")
    paths = sorted((real_data / "grid_words" / "clips").iterdir())
    for path in paths if KILLS else paths[::50]:
        (folder / path.name).symlink_to(path)
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "data"
    began = time.monotonic()
    assert start(folder, undisturbed).wait() == 0
    return folder, contents(undisturbed), time.monotonic() - began


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    words, tmp_path, num_workers
):
    folder, expected, seconds = words
    moments = random.Random(num_workers)
    num_killed = 0
    while num_killed < (KILLS or 3):
        process = start(folder, tmp_path / "data", f"--num_workers={num_workers}")
        time.sleep(seconds * moments.uniform(0.3, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_killed += 1
        else:  # it was done before: from the start again
            assert contents(tmp_path / "data") == expected
            shutil.rmtree(tmp_path / "data")
    assert start(folder, tmp_path / "data").wait() == 0
    assert contents(tmp_path / "data") == expected


def test_a_full_disk_is_said_and_finished_parts_stay(words, tmp_path):
    """No file may grow beyond 1 MB; one part is larger, others are not."""
    folder, expected, _ = words
    big = tmp_path / "media"
    big.mkdir()
    for path in folder.iterdir():
        (big / path.name).symlink_to(path.resolve())
    path = sorted(big.iterdir())[20]
    path.unlink()
    noise = np.random.default_rng(0).integers(0, 256, (60, 240, 320), np.uint8)
    write_media(path, pictures=noise)
    process = start(
        big,
        tmp_path / "data",
        "--num_workers=1",
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2),
    )
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert "train-00002.tfrecord: cannot be written" in stderr
    assert "File too large" in stderr
    assert "Traceback" not in stderr
    done = sorted(path.name for path in (tmp_path / "data" / "parts").glob("*.json"))
    assert done == ["train-00000.tfrecord.json", "train-00001.tfrecord.json"]
    assert start(big, tmp_path / "data").wait() == 0
    first = "clips-train.tfrecord-00000-of-00008"
    assert contents(tmp_path / "data")[first] == expected[first]
