import collections
import gzip
import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines import datasets, media, prepare, shards, sources
from data_pipelines.datasets import av_digits, digits_tones, moving_digits
from xdc_jax.errors import UserError

# ITU-T Q.23.
KEYPAD_HZ = {
    digit: (row, column)
    for keys, row in (("123", 697), ("456", 770), ("789", 852), (" 0 ", 941))
    for digit, column in zip(keys, (1209, 1336, 1477), strict=True)
}


def build(name, media_dir, **options):
    defaults = {"data_dir": None, "num_train": None, "num_test": None, "seed": 0}
    return datasets.MADE[name](media_dir, **defaults | options, num_workers=2)


def content(path):
    (segment,) = media.decode(str(path), 0, None, media.Settings())
    return segment


def test_digits_tones_goes_through_prepare(tmp_path):
    source = sources.dataset_source(
        "digits_tones", num_train=20, num_test=10, num_workers=2
    )
    prepare.prepare(source, tmp_path / "data", media.Settings(), num_workers=2)
    prepared = shards.open_prepared(tmp_path / "data")
    assert prepared.class_names == tuple("0123456789")
    assert {k: len(v) for k, v in prepared.splits.items()} == {"train": 20, "test": 10}
    for split, index in prepared.splits.items():
        assert set(index.num_frames) == {12}
        assert set(index.num_samples) == {15_360}
        for label, video_id in zip(index.label, index.video_id, strict=True):
            assert video_id.startswith(f"{split}/")
            assert video_id.endswith(f"_{label}.mkv")
            assert (tmp_path / "data" / "media" / video_id).is_file()


def test_digits_tones_is_a_function_of_the_seed(tmp_path):
    sizes = {"num_train": 3, "num_test": 2}
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        rows = build("digits_tones", tmp_path / name, seed=seed, **sizes).rows
        segments = [content(row.location) for row in rows]
        files.append([(s.frames, s.audio.tobytes()) for s in segments])
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_train_and_test_digits_are_different_people_s_strokes(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        digits_tones, "build_clips", lambda media_dir, clips, *_: seen.extend(clips)
    )
    build("digits_tones", tmp_path, num_train=2_000, num_test=400)
    images = collections.defaultdict(collections.Counter)
    for clip in seen:
        images[clip.path.split("/")[0]][clip.sources[0].tobytes()] += 1
    assert not images["train"].keys() & images["test"].keys()
    assert max(images["train"].values()) == 2  # 2,000 clips of 1,437 digits.
    assert len({clip.seed for clip in seen}) == 2_400


@pytest.mark.parametrize("digit", range(10))
def test_tones_are_those_of_the_key(digit):
    samples = digits_tones.tones(digit, 16_000, np.random.default_rng(digit))
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    for band, expected in (((650, 1_000), 0), ((1_100, 1_600), 1)):
        low, high = band
        peak_hz = low + np.argmax(power[low:high])
        assert peak_hz == pytest.approx(KEYPAD_HZ[str(digit)][expected], rel=0.035)


def test_the_digit_moves_and_stays_inside():
    scene = moving_digits.Scene(
        size=40,
        num_frames=30,
        fps=10,
        digit_size=(10, 10),
        speed=4.0,
        contrast=(200, 200),
        noise=0.0,
    )
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pictures = moving_digits.render(np.ones((8, 8)), scene, rng).astype(float)
        ink = pictures > pictures.min() + 100
        assert (ink.sum((1, 2)) == 100).all()
        centres = np.array([np.argwhere(mask).mean(0) for mask in ink])
        assert np.ptp(centres, axis=0).max() > 1
        assert np.abs(np.diff(centres, axis=0)).max() <= 5


def test_av_digits_pairs_real_digits_of_one_class(real_data, tmp_path):
    data_dir = str(real_data / "digits")
    result = build(
        "av_digits", tmp_path / "m", data_dir=data_dir, num_train=20, num_test=10
    )
    assert collections.Counter(row.split for row in result.rows) == {
        "train": 20,
        "test": 10,
    }
    for row in result.rows:
        segment = content(row.location)
        assert len(segment.frames) == 16
        assert Image.open(io.BytesIO(segment.frames[0])).size == (32, 32)
        assert len(segment.audio) == 16_000
        assert np.abs(segment.audio.astype(int)).max() > 100


def test_av_digits_takes_its_defaults_from_the_data(real_data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        av_digits, "build_clips", lambda media_dir, clips, *_: seen.extend(clips)
    )
    build("av_digits", tmp_path, data_dir=str(real_data / "digits"))
    takes = collections.defaultdict(set)
    for clip in seen:
        split, name = clip.path.split("/")
        digit, _, take = clip.sources[1].split("/")[-1][:-4].split("_")
        assert clip.label == digit == name.split("_")[1][0]
        assert (int(take) < 5) == (split == "test")
        takes[split].add(clip.sources[1])
    assert {k: len(v) for k, v in takes.items()} == {"train": 2_700, "test": 300}
    images = {split: set() for split in takes}
    for clip in seen:
        images[clip.path.split("/")[0]].add(clip.sources[0].tobytes())
    assert (len(images["train"]), len(images["test"])) == (2_700, 300)
    assert not images["train"] & images["test"]


def test_a_take_keeps_its_samples():
    rng = np.random.default_rng(0)
    take = np.full(3_000, 5_000, np.int16)
    samples = av_digits.place(take, 16_000, rng)
    assert len(samples) == 16_000
    assert np.sum(samples > 4_000) == 3_000
    assert len(av_digits.place(np.full(20_000, 9, np.int16), 16_000, rng)) == 16_000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("av_digits", {}, "give --data_dir"),
        ("av_digits", {"data_dir": "/nowhere"}, "fsdd: found 0 training"),
        ("digits_tones", {"data_dir": "/nowhere"}, "needs no --data_dir"),
    ],
)
def test_wrong_data_folders_are_named(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        build(name, tmp_path, **options)


def test_idx_files_are_checked(tmp_path):
    path = tmp_path / "x.gz"
    with pytest.raises(UserError, match="not found"):
        av_digits.read_idx(path)
    path.write_bytes(b"plain")
    with pytest.raises(UserError, match="not a gzipped IDX file"):
        av_digits.read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x0d\x01" + b"\0\0\0\1" + b"\0\0\0\0"))
    with pytest.raises(UserError, match="starts with 00000d01"):
        av_digits.read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x02\0\0\0\2\0\0\0\3" + bytes(range(6))))
    assert av_digits.read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
