"""`xdc extract --videos`: features straight from media files."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines.clip_spec import ClipSpec
from data_pipelines.extraction import MediaSource
from data_pipelines.manifest import COLUMNS
from data_pipelines.views import Views
from tests.media_files import numbered_pictures, write_media
from tests.test_extract import ENCODERS, contents, read
from xdc_jax import extract, parallel
from xdc_jax.errors import UserError
from xdc_jax.extract import Done, Job
from xdc_jax.weights import encoder_dir

SPEC = ClipSpec(
    num_frames=4,
    fps=25.0,
    short_side=32,
    crop_size=24,
    audio_duration_s=0.5,
    mel_frames=20,
    mel_bins=8,
)
NUM_WORDS = 40


@pytest.fixture(scope="module")
def words(real_data, tmp_path_factory):
    """A manifest of real clips of both splits, and a file that is none."""
    folder = tmp_path_factory.mktemp("words")
    with (real_data / "grid_words" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))[::73][:NUM_WORDS]
    broken = folder / "broken.mkv"
    broken.write_bytes(b"no film")
    with (folder / "words.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            path = real_data / "grid_words" / row["file"]
            writer.writerow({**row, "path": path})
        writer.writerow({"path": broken, "label": rows[0]["label"], "split": "test"})
    return folder / "words.csv"


def job(location, out, views=None, **changes):
    source = MediaSource(
        Path(location), SPEC, views or Views(), ("audio", "video"), num_workers=2
    )
    return dataclasses.replace(Job(source, ENCODERS, False, False, 8, out), **changes)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_every_readable_file_has_its_row_once(words, num_devices, tmp_path):
    mesh = parallel.make_mesh(jax.devices()[:num_devices])
    views = Views(clips=2)
    done = extract.extract(job(words, tmp_path / "out", views), mesh)
    assert done == Done(NUM_WORDS, 1, 2 * NUM_WORDS)
    with words.open() as file:
        manifest = {row["path"]: row for row in csv.DictReader(file)}
    found = {}
    classes = tfds.builder_from_directory(tmp_path / "out").info.features["label"]
    for split in ("train", "test"):
        rows = read(tmp_path / "out", split)
        for i, name in enumerate(map(bytes.decode, rows["video_id"])):
            assert manifest[name]["split"] == split
            assert classes.int2str(rows["label"][i]) == manifest[name]["label"]
            found[name] = rows["video_feature"][i], rows["audio_feature"][i]
    assert len(found) == NUM_WORDS
    with (tmp_path / "out" / "rejected.csv").open() as file:
        (rejected,) = csv.DictReader(file)
    assert set(manifest) - set(found) == {rejected["path"]}
    assert rejected["reason"] == "unreadable"
    # The same on one device, one file at a time.
    single = job(words, tmp_path / "one", views, batch_size=1)
    extract.extract(single, parallel.make_mesh(jax.devices()[:1]))
    for split in ("train", "test"):
        rows = read(tmp_path / "one", split)
        for i, name in enumerate(map(bytes.decode, rows["video_id"])):
            for feature, kind in zip(found[name], ("video", "audio"), strict=True):
                np.testing.assert_allclose(
                    feature, rows[f"{kind}_feature"][i], rtol=1e-5, atol=1e-6
                )


def test_killed_and_started_again(words, tmp_path):
    """SIGKILL after the first of three slices; then the same data set, to the bit."""
    saved = ENCODERS["video"]
    clip = {**dataclasses.asdict(SPEC), "random_crop": False}
    encoder_dir.save(tmp_path / "encoder", dataclasses.replace(saved, clip=clip))

    def command(out):
        return [
            *(sys.executable, "-m", "xdc_jax", "extract", "--stride_s=0.16"),
            *(f"--weights={tmp_path / 'encoder'}", f"--videos={words}"),
            *(f"--out={tmp_path / out}", "--batch_size=8"),
        ]

    process = subprocess.Popen(command("cut"), start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("features-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "dataset_info.json").exists()
    for out in ("cut", "whole"):
        subprocess.run(command(out), check=True, capture_output=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    rows = read(tmp_path / "cut", "train")
    first = rows["video_id"] == rows["video_id"][0]
    # 0.64 s in windows of 4 frames at 25 fps.
    np.testing.assert_allclose(rows["start_s"][first], [0, 0.16, 0.32, 0.48], atol=1e-6)


def test_files_that_lack_something(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    sound = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
    write_media(folder / "a.mkv", pictures=numbered_pictures(25), samples=sound)
    write_media(folder / "b.mkv", pictures=numbered_pictures(25))
    write_media(folder / "c.mkv", samples=sound)
    assert extract.extract(job(folder, tmp_path / "out")).num_rows == 3
    rows = read(tmp_path / "out", "train")
    assert np.isfinite(rows["video_feature"]).all(1).tolist() == [True, True, False]
    assert np.isfinite(rows["audio_feature"]).all(1).tolist() == [True, False, True]


def test_official_partitions_are_carried_along(tmp_path):
    manifest = "path,label,split,partitions\n"
    wanted = {"0.mkv": "train/test", "1.mkv": "test/-", "2.mkv": ""}
    for name, partitions in wanted.items():
        write_media(tmp_path / name, pictures=numbered_pictures(25))
        manifest += f"{name},a,videos,{partitions}\n"
    (tmp_path / "m.csv").write_text(manifest)
    extract.extract(job(tmp_path / "m.csv", tmp_path / "out"))
    rows = read(tmp_path / "out", "videos")
    found = zip(rows["video_id"], rows["partitions"], strict=True)
    assert {k.decode(): v.decode() for k, v in found} == wanted


def test_the_name_of_the_data(tmp_path):
    (tmp_path / "ucf101").mkdir()
    (tmp_path / "ucf101" / "m.csv").write_text("path\n")
    assert extract.data_name(tmp_path / "ucf101") == "ucf101"
    assert extract.data_name(tmp_path / "ucf101" / "m.csv") == "ucf101"
    assert extract.data_name(tmp_path / "ucf101" / ".." / "ucf101") == "ucf101"


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="expected a folder of media files"):
        job(tmp_path / "none", tmp_path / "out")
    folder = tmp_path / "media"
    folder.mkdir()
    with pytest.raises(UserError, match="found no media file"):
        job(folder, tmp_path / "out")
    (folder / "a.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match="none of 1 files could be read"):
        extract.extract(job(folder, tmp_path / "out"))
    assert "unreadable" in (tmp_path / "out" / "rejected.csv").read_text()
    assert not (tmp_path / "out" / "dataset_info.json").exists()


def test_a_full_disk_leaves_what_was_finished(tmp_path, monkeypatch):
    """The error is the system's; nothing half-written counts as a slice."""
    from data_pipelines import features

    folder = tmp_path / "media"
    folder.mkdir()
    write_media(folder / "a.mkv", pictures=numbered_pictures(25))

    write_atomically = features.write_atomically

    def full(path, data):
        if path.name != features.REQUEST_FILE:
            raise OSError(28, "No space left on device", str(path))
        write_atomically(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            extract.extract(job(folder, tmp_path / "out"))
    assert contents(tmp_path / "out") == {}
    assert extract.extract(job(folder, tmp_path / "out")) == Done(1, 0, 1)
