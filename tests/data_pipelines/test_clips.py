"""Clips: what is cut out, and how it is decoded."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from data_pipelines import audio, shard_writer, shards
from data_pipelines.choices import clip_spans, random_choices
from data_pipelines.clips import ClipData, ClipSpec, sample
from tests.clip_records import (
    SMALL,
    assert_same,
    collect,
    jpeg,
    make_record,
    one_epoch,
    write,
)
from xdc_jax.errors import UserError

# Time.


@pytest.mark.parametrize("duration_s", [0.05, 0.3, 1.0, 2.0, 7.3])
@pytest.mark.parametrize("audio_duration_s", [0.2, 0.5, 2.0])
def test_spans_are_centred_on_each_other_inside_the_record(
    duration_s, audio_duration_s
):
    spec = dataclasses.replace(
        SMALL, num_frames=5, audio_duration_s=audio_duration_s, window_ms=400.0
    )
    for t in np.linspace(0, 1, 11, dtype=np.float32):
        spans = clip_spans(spec, tf.constant(duration_s), tf.constant(t))
        video, sound = np.array(spans, np.float64)
        assert video[1] - video[0] == pytest.approx(0.5, abs=1e-5)
        assert sound[1] - sound[0] == pytest.approx(audio_duration_s, abs=1e-5)
        assert video[0] == pytest.approx(t * max(duration_s - 0.5, 0), abs=1e-5)
        if duration_s >= audio_duration_s:
            assert sound[0] >= -1e-5
            assert sound[1] <= duration_s + 1e-5
        else:
            assert sound[0] <= 1e-5
            assert sound[1] >= duration_s - 1e-5
        distance = abs(video.mean() - sound.mean())
        touches = np.isclose(sound[0], 0, atol=1e-5) or np.isclose(
            sound[1], duration_s, atol=1e-5
        )
        assert distance < 1e-5 or touches


@pytest.mark.parametrize("clip_fps", [30.0, 20.0])
@pytest.mark.parametrize("audio_duration_s", [0.5, 1.1])
def test_flash_and_click_line_up_within_a_frame_for_every_start(
    tmp_path, clip_fps, audio_duration_s
):
    """Records of 3 s at 30 fps: a white frame, and a click in the middle of it."""
    fps, length = 30.0, 90
    black, white = (jpeg(np.full((16, 16, 3), v, np.uint8)) for v in (0, 255))
    flashes = [3, 31, 47, 86]
    flashing = []
    for flash in flashes:
        sound = np.zeros(48_000, np.int16)
        sound[round((flash + 0.5) / fps * 16_000)] = 30_000
        frames = [white if i == flash else black for i in range(length)]
        flashing.append(shards.Record(f"{flash}", 0.0, fps, frames, sound))
    spec = ClipSpec(
        num_frames=round(0.5 * clip_fps),
        fps=clip_fps,
        short_side=16,
        crop_size=16,
        audio_duration_s=audio_duration_s,
        mel_frames=round(audio_duration_s * 100),
        window_ms=10.0,
    )
    data = ClipData(write(tmp_path / "p", {"train": flashing}), spec, seed=0)
    clips = collect(
        data.train_batches(
            "train", batch_size=16, epoch=0, draws=np.full(4, 80, np.int32)
        )
    )
    compared = 0
    for clip_id, video, mel in zip(
        clips["clip_id"], clips["video"], clips["audio"][..., 0], strict=True
    ):
        shown = np.flatnonzero(video.mean(axis=(1, 2, 3)) > 128)
        if not len(shown):
            continue
        flash_s = (flashes[clip_id] + 0.5) / fps
        # The instant of the clip's first frame, to half a frame either way.
        video_start = flash_s - shown.mean() / clip_fps
        audio_start = video_start + 0.25 - audio_duration_s / 2
        audio_start = np.clip(audio_start, 0, 3.0 - audio_duration_s)
        heard = np.flatnonzero(mel.max(axis=1) > mel.min() + 1)
        if audio_duration_s <= 0.5 and not len(heard):
            assert shown[0] in (0, len(video) - 1)  # the click is just outside
            continue
        click_s = audio_start + (heard.mean() + 0.5) * 0.01
        assert abs(click_s - flash_s) < 1 / fps
        compared += 1
    assert compared > 20


def test_the_centre_of_a_record_is_heard_and_seen(records, data):
    """0.9 s at 10 fps: frames 3 and 4 (0.35 s on) and the sound from 0.25 s on."""
    record = records["train"][0]
    clip = next(data.eval_batches("train", batch_size=1, clip_ids=np.array([0])))
    for row, frame in enumerate((3, 4)):
        image = np.asarray(PIL.Image.open(io.BytesIO(record.frames[frame])))
        np.testing.assert_array_equal(clip["video"][0, row], image[2:14, 4:16])
    heard = record.audio[4000 : 4000 + 6400].astype(np.float32) / 2**15
    expected = audio.log_mel(
        tf.constant(heard[np.newaxis]), mel_frames=10, mel_bins=8, hop=640, window=640
    )
    np.testing.assert_allclose(clip["audio"][..., 0], expected, atol=1e-5)


def sampled(record, spec, t):
    parsed = shards.parse(shard_writer.serialize(record, 0))
    return sample(spec, parsed, {"t": tf.constant(t, tf.float32)})


def test_a_clip_longer_than_its_record_repeats_the_last_frame_and_pads_the_sound():
    record = make_record(np.random.default_rng(1), "x", num_frames=3, samples=4800)
    spec = dataclasses.replace(SMALL, num_frames=6, fps=10.0)
    for t in (0.0, 0.5, 1.0):
        clip = sampled(record, spec, t)
        frames = clip["jpegs"].numpy().tolist()
        assert frames == [*record.frames, *[record.frames[-1]] * 3]
        # 0.4 s of sound centred on 0.6 s of pictures starts at 0.1 s, which would
        # leave out the first third of the 0.3 s there are: it is shifted to 0.
        waveform = clip["waveform"].numpy()
        np.testing.assert_array_equal(waveform[:4800], record.audio)
        assert not waveform[4800:].any()
        assert len(waveform) == 6400


def test_short_sound_is_padded_on_the_side_where_there_is_none():
    record = make_record(np.random.default_rng(1), "x", num_frames=3, samples=4800)
    start = sampled(record, SMALL, 0.0)["waveform"].numpy()  # 0.0 s to 0.2 s seen
    np.testing.assert_array_equal(start[1600:], record.audio)
    assert not start[:1600].any()
    end = sampled(record, SMALL, 1.0)["waveform"].numpy()  # 0.1 s to 0.3 s seen
    np.testing.assert_array_equal(end[:4800], record.audio)
    assert not end[4800:].any()


@pytest.mark.parametrize("fps", [5.0, 10.0, 25.0])
def test_the_clips_frame_rate_is_not_the_records(fps):
    record = make_record(np.random.default_rng(1), "x", num_frames=20)
    spec = dataclasses.replace(SMALL, num_frames=6, fps=fps)
    for t in np.linspace(0, 1, 7):
        instants = t * (2.0 - 6 / fps) + np.arange(6) / fps
        shown = np.floor(instants * 10 + 1e-3).astype(int)
        expected = [record.frames[i] for i in shown]
        assert sampled(record, spec, t)["jpegs"].numpy().tolist() == expected


# Pictures.


def test_crops_and_flips_equal_numpy_on_frames_decoded_by_pillow(records, data):
    clips = one_epoch(data, epoch=2)
    flips = 0
    for clip_id, video in zip(clips["clip_id"], clips["video"], strict=True):
        record = records["train"][clip_id]
        numbers = tf.constant([2, clip_id, 0], tf.int64)  # epoch, clip, draw
        choices = random_choices(SMALL, 3, *numbers)
        first = int(choices["t"] * 7 + 1e-3)  # 9 frames, of which 2 are seen
        y, x = np.floor(choices["crop"].numpy() * [16 - 12 + 1, 20 - 12 + 1])
        y, x = int(y), int(x)
        for row in range(2):
            jpeg_file = record.frames[first + row]
            whole = np.asarray(PIL.Image.open(io.BytesIO(jpeg_file)))
            expected = whole[y : y + 12, x : x + 12]
            if choices["flip"]:
                expected = expected[:, ::-1]
            np.testing.assert_array_equal(video[row], expected)
        flips += int(choices["flip"])
    assert 4 <= flips <= 20


@pytest.mark.parametrize(
    ("name", "scaled"), [("portrait", (27, 16)), ("landscape", (16, 33))]
)
def test_frames_of_another_size_are_scaled_then_cropped(records, data, name, scaled):
    clip_id = [record.video_id for record in records["odd"]].index(name)
    clip = next(data.eval_batches("odd", batch_size=1, clip_ids=np.array([clip_id])))
    height, width = scaled
    y, x = (height - 12 + 1) // 2, (width - 12 + 1) // 2
    for row, frame in enumerate((3, 4)):
        image = PIL.Image.open(io.BytesIO(records["odd"][clip_id].frames[frame]))
        image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
        expected = np.asarray(image).astype(int)[y : y + 12, x : x + 12]
        assert np.abs(clip["video"][0, row] - expected).max() <= 6


def test_augmentation_can_be_switched_off(prepared):
    plain = dataclasses.replace(SMALL, random_crop=False, flip=False, num_frames=9)
    data = ClipData(prepared, plain, seed=0)
    trained = one_epoch(data)
    evaluated = collect(data.eval_batches("train", batch_size=8))
    expected = evaluated["video"][trained["clip_id"]]
    np.testing.assert_array_equal(trained["video"], expected)


def test_records_of_another_size_are_scaled(records, prepared):
    """Against Pillow, cut as the choice of each clip says."""
    spec = dataclasses.replace(SMALL, short_side=19, flip=False, num_frames=9)
    clips = one_epoch(ClipData(prepared, spec, seed=0))
    width = round(20 * 19 / 16)
    for clip_id, video in zip(clips["clip_id"], clips["video"], strict=True):
        numbers = tf.constant([0, clip_id, 0], tf.int64)  # epoch, clip, draw
        choices = random_choices(spec, 0, *numbers)
        y, x = np.floor(choices["crop"].numpy() * [19 - 11, width - 11]).astype(int)
        image = PIL.Image.open(io.BytesIO(records["train"][clip_id].frames[0]))
        image = image.resize((width, 19), PIL.Image.Resampling.BILINEAR)
        expected = np.asarray(image).astype(int)[y : y + 12, x : x + 12]
        assert np.abs(video[0] - expected).max() <= 6


# Sound.


def test_masks_cover_one_band_each_in_training_only(prepared):
    plain = dataclasses.replace(SMALL, num_frames=9)  # as long as the records
    masked = dataclasses.replace(plain, freq_mask=3, time_mask=4)
    clean = one_epoch(ClipData(prepared, plain, seed=0))["audio"][..., 0]
    data = ClipData(prepared, masked, seed=0)
    found = one_epoch(data)["audio"][..., 0]
    assert_same(one_epoch(data), one_epoch(data))
    for before, after in zip(clean, found, strict=True):
        frames = (after == 0).all(axis=1)
        bins = (after == 0).all(axis=0)
        assert frames.sum() <= 4
        assert bins.sum() <= 3
        kept = ~frames[:, np.newaxis] & ~bins
        np.testing.assert_array_equal(after[kept], before[kept])
        assert not after[~kept].any()
    assert (found == 0).any()
    assert (collect(data.eval_batches("train", batch_size=8))["audio"] != 0).all()


def test_silence_and_missing_modalities_are_zeros(records, data):
    clips = collect(data.eval_batches("odd", batch_size=6))
    names = [record.video_id for record in records["odd"]]
    for key, without in (("video", ["no_picture"]), ("audio", ["no_sound", "silent"])):
        empty = [not clip.any() for clip in clips[key]]
        assert empty == [name in without for name in names], key
        assert np.isfinite(clips[key]).all()
    assert (clips["label"] == -1).all()

    def usable(*modalities):
        mask = data.usable("odd", modalities)
        return {name for name, ok in zip(names, mask, strict=True) if ok}

    assert usable("audio") == set(names) - {"no_sound"}
    assert usable("video") == set(names) - {"no_picture"}
    assert usable("video", "audio") == set(names) - {"no_picture", "no_sound"}
    assert data.usable("train").all()


# Bad input.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_frames", 0),
        ("num_frames", 8.0),
        ("num_frames", True),
        ("fps", 0.0),
        ("fps", float("nan")),
        ("fps", "30"),
        ("short_side", -1),
        ("crop_size", 129),
        ("random_crop", 1),
        ("flip", "no"),
        ("audio_duration_s", float("inf")),
        ("mel_frames", 0),
        ("mel_frames", 10**6),
        ("mel_bins", None),
        ("window_ms", 19.9),
        ("freq_mask", 41),
        ("freq_mask", -1),
        ("time_mask", 2.5),
    ],
)
def test_a_bad_clip_value_is_an_error_that_names_the_key(key, value):
    with pytest.raises(UserError, match=rf"clip\.{key}: found .*expected"):
        ClipSpec(**{key: value})


def test_bad_requests_are_errors_that_say_what_to_do(prepared, data):
    one = np.ones(24, int)
    with pytest.raises(UserError, match=r"'validation'.*odd, train"):
        data.num_clips("validation")
    with pytest.raises(UserError, match=r"found 8, expected.*processes \(3\)"):
        data.train_batches("train", batch_size=8, epoch=0, draws=one, process_count=3)
    with pytest.raises(UserError, match=r"batch_size: found 25.*only 24"):
        data.train_batches("train", batch_size=25, epoch=0, draws=one)
    with pytest.raises(UserError, match="seed: found -1"):
        ClipData(prepared, SMALL, seed=-1)
    with pytest.raises(ValueError, match="24 counts"):
        data.train_batches("train", batch_size=8, epoch=0, draws=one[:-1])


def test_a_filter_keeps_what_was_measured_to_be_good(prepared):
    """Against the numbers of the index; what was not measured filters nothing."""
    index = prepared.splits["odd"]
    values = {
        "motion": np.array([1, 0.2, np.nan, 3, 4, 5], np.float32),
        "level_db": np.array([np.nan, -20, -30, -90, -20, -20], np.float32),
        "duration_s": np.array([1, 1, 1, 1, 0.1, 1], np.float32),
        "duplicate_of": np.array([-1, -1, -1, -1, -1, 0], np.int32),
    }
    splits = {"odd": dataclasses.replace(index, **values)}
    data = ClipData(dataclasses.replace(prepared, splits=splits), SMALL, seed=0)
    lowest = {"min_motion": 0.0, "min_level_db": -120.0, "min_duration_s": 0.0}
    for rule, expected in (
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"min_motion": 0.5}, [1, 0, 1, 1, 1, 1]),
        ({"min_level_db": -60.0}, [1, 1, 1, 0, 1, 1]),
        ({"min_duration_s": 0.5}, [1, 1, 1, 1, 0, 1]),
        ({"duplicates": False}, [1, 1, 1, 1, 1, 0]),
    ):
        kept = data.kept("odd", **{**lowest, "duplicates": True, **rule})
        assert kept.tolist() == [bool(k) for k in expected], rule


# One modality.


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_batches_of_one_modality_are_those_of_both_without_the_other(
    modality, tmp_path
):
    rng = np.random.default_rng(4)
    records = [make_record(rng, f"{i}.mp4", label=i % 2) for i in range(24)]
    prepared = write(tmp_path, {"train": records}, ["a", "b"])
    both = ClipData(prepared, SMALL, seed=1)
    one = ClipData(prepared, SMALL, seed=1, modalities=(modality,))
    other = {"video": "audio", "audio": "video"}[modality]
    expected = one_epoch(both)
    del expected[other]
    assert_same(one_epoch(one), expected)
    expected = collect(both.eval_batches("train", batch_size=7))
    del expected[other]
    assert_same(collect(one.eval_batches("train", batch_size=7)), expected)


def test_pictures_that_are_not_wanted_are_not_decoded(tmp_path):
    rng = np.random.default_rng(5)
    broken = [
        dataclasses.replace(make_record(rng, f"{i}.mp4"), frames=[b"no JPEG"] * 9)
        for i in range(8)
    ]
    prepared = write(tmp_path, {"train": broken})
    with pytest.raises(tf.errors.InvalidArgumentError):
        collect(ClipData(prepared, SMALL, 0).eval_batches("train", batch_size=8))
    found = ClipData(prepared, SMALL, 0, ("audio",))
    (batch,) = found.eval_batches("train", batch_size=8)
    assert np.ptp(batch["audio"]) > 0
