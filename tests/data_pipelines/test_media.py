import csv
import io

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines import media, sound
from data_pipelines.streams import RejectedError
from tests.media_files import flash_and_click, numbered_pictures, write_media

SETTINGS = media.Settings(jpeg_quality=95)


def decode(path, settings=SETTINGS, start_s=0.0, end_s=None):
    return list(media.decode(str(path), start_s, end_s, settings))


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def levels(segment):
    """The number of each picture of `numbered_pictures`."""
    return [round(pixels(jpeg).mean() / 8) for jpeg in segment.frames]


@pytest.mark.parametrize(
    ("picture_start_s", "sound_start_s"),
    [(0.0, 0.0), (0.0, 0.4), (0.4, 0.0), (1.2, 1.0), (0.0, 0.013)],
)
@pytest.mark.parametrize("at_s", [1.4, 1.72])
def test_flash_and_click_coincide(tmp_path, at_s, picture_start_s, sound_start_s):
    path = flash_and_click(
        tmp_path / "a.mkv",
        at_s,
        picture_start_s=picture_start_s,
        sound_start_s=sound_start_s,
    )
    (segment,) = decode(path)
    flash_s = np.argmax([pixels(j).mean() for j in segment.frames]) / segment.fps
    click_s = np.argmax(np.abs(segment.audio.astype(int))) / 16_000
    origin_s = min(picture_start_s, sound_start_s)
    assert segment.start_s == pytest.approx(picture_start_s - origin_s, abs=1e-3)
    assert segment.start_s + flash_s == pytest.approx(at_s - origin_s, abs=1e-3)
    assert click_s == pytest.approx(flash_s, abs=1.5e-3)  # Matroska counts in ms.
    assert len(segment.audio) == round(len(segment.frames) / segment.fps * 16_000)


@pytest.mark.parametrize("suffix", ["mp4", "ts", "avi", "mpg"])
def test_flash_and_click_coincide_in_lossy_containers(tmp_path, suffix):
    pictures = np.zeros((50, 48, 64), np.uint8)
    pictures[30] = 255
    samples = np.zeros(2 * 48_000, np.int16)
    samples[round(1.2 * 48_000) : round(1.2 * 48_000) + 200] = 30_000
    video = "mpeg1video" if suffix == "mpg" else "mpeg4"
    path = write_media(
        tmp_path / f"a.{suffix}",
        pictures=pictures,
        samples=samples,
        rate=48_000,
        codecs=(video, "aac" if suffix == "mp4" else "mp2"),
    )
    (segment,) = decode(path)
    flash = np.argmax([pixels(jpeg).mean() for jpeg in segment.frames])
    click = np.argmax(np.abs(segment.audio.astype(int)))
    assert abs(flash / segment.fps - click / 16_000) < 1 / segment.fps


def test_frames_and_samples_are_those_of_the_file(real_data):
    path = sorted((real_data / "grid_words" / "clips").glob("*.mkv"))[5]
    with av.open(path) as container:
        expected = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with av.open(path) as container:
        samples = [f.to_ndarray()[0] for f in container.decode(audio=0)]
    (segment,) = decode(path)
    assert segment.fps == 25
    assert len(segment.frames) == len(expected) == 16
    for jpeg, frame in zip(segment.frames, expected, strict=True):
        assert np.abs(pixels(jpeg).astype(int) - frame).mean() < 3
    np.testing.assert_array_equal(segment.audio, np.concatenate(samples)[:10_240])


def test_real_files_give_their_frames_or_a_reason(real_data):
    with (real_data / "clips" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["bytes"]) < 60_000]
    reasons = {}
    num_checked = 0
    for row in rows:
        try:
            segments = decode(real_data / "clips" / row["file"])
        except RejectedError as error:
            reasons[row["file"]] = error.reason
            continue
        frames = sum(len(segment.frames) for segment in segments)
        samples = sum(len(segment.audio) for segment in segments)
        if row["dec_frames"] not in ("", "0"):
            # Numbers of the decoded frames, from an independent run of FFmpeg.
            rate = float(row["fps"] or 30)
            kept = int(row["dec_frames"]) * min(1, 30 / rate)
            if row["vfr"] == "0" and rate < 100:
                assert abs(frames - kept) <= 1.01, row["file"]
                num_checked += 1
        elif row["dec_samples"] not in ("", "0"):
            seconds = int(row["dec_samples"]) / int(row["rate"])
            if "eac3" not in row["file"]:  # Has gaps, which become silence.
                assert samples / 16_000 == pytest.approx(seconds, abs=0.01)
                num_checked += 1
    assert num_checked > 25
    assert reasons == {
        "ax__full_blocks.mkv": "no streams",
        "ax__invalid-bitstream.webm": "corrupt",
        "ax__sample_ac4.mp4": "unsupported codec",
        "ax__sample_dts_hd_across_pes.ts": "corrupt",
        "ax__sample_mhm1_bl_cicp1.mp4": "unsupported codec",
        "broken__empty.mp4": "unreadable",
        "broken__noise.mp4": "unreadable",
        "broken__text.mp4": "unreadable",
        "broken__trunc_mid.mp4": "corrupt",
        "small__gif.gif": "empty",
    }


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((96, 160), 48, (48, 80)), ((160, 96), 48, (80, 48)), ((40, 64), 48, (40, 64))],
)
def test_the_short_side_is_scaled_down_never_up(tmp_path, size, short_side, expected):
    path = write_media(tmp_path / "a.mkv", pictures=numbered_pictures(3, size))
    (segment,) = decode(path, media.Settings(short_side=short_side))
    assert [pixels(jpeg).shape for jpeg in segment.frames] == [(*expected, 3)] * 3


@pytest.mark.parametrize(
    ("source_fps", "fps", "expected"),
    [
        (25, None, range(20)),
        (60, None, range(0, 20, 2)),
        (24, 12, range(0, 20, 2)),
        (10, 20, [i // 2 for i in range(40)]),
        (30, 29.97, range(20)),
    ],
)
def test_pictures_are_resampled_by_time(tmp_path, source_fps, fps, expected):
    pictures = numbered_pictures(20)
    path = write_media(tmp_path / "a.mkv", pictures=pictures, fps=source_fps)
    (segment,) = decode(path, media.Settings(fps=fps))
    assert levels(segment) == list(expected)
    assert segment.fps == (fps or min(source_fps, 30))


def test_long_sources_are_cut_and_a_short_remainder_stays(tmp_path):
    pictures = numbered_pictures(24)
    samples = np.arange(24 * 1600, dtype=np.int16)
    path = write_media(tmp_path / "a.mkv", pictures=pictures, fps=10, samples=samples)
    whole = decode(path)
    parts = decode(path, media.Settings(segment_s=1.0))
    assert [len(part.frames) for part in parts] == [10, 14]
    assert [part.start_s for part in parts] == [0.0, 1.0]
    assert levels(parts[0]) + levels(parts[1]) == levels(whole[0])
    joined = np.concatenate([part.audio for part in parts])
    np.testing.assert_array_equal(joined, whole[0].audio)
    parts = decode(path, media.Settings(segment_s=0.9))
    assert [len(part.frames) for part in parts] == [9, 9, 6]


def test_an_interval_is_cut_out(tmp_path):
    pictures = numbered_pictures(30)
    samples = np.arange(30 * 1600).astype(np.int16)
    path = write_media(tmp_path / "a.mkv", pictures=pictures, fps=10, samples=samples)
    (segment,) = decode(path, start_s=1.2, end_s=2.0)
    assert levels(segment) == list(range(12, 20))
    assert segment.start_s == pytest.approx(1.2)
    np.testing.assert_array_equal(segment.audio, samples[19_200:32_000])
    with pytest.raises(RejectedError) as error:
        decode(path, start_s=50.0)
    assert error.value.reason == "empty"


def test_one_modality_is_enough(tmp_path):
    silent = write_media(tmp_path / "v.mkv", pictures=numbered_pictures(5))
    (segment,) = decode(silent)
    assert (len(segment.frames), len(segment.audio)) == (5, 0)
    samples = np.arange(25_000).astype(np.int16)
    blind = write_media(tmp_path / "a.wav", samples=samples)
    segments = decode(blind, media.Settings(segment_s=0.5))
    assert [len(s.frames) for s in segments] == [0, 0, 0]
    joined = np.concatenate([s.audio for s in segments])
    np.testing.assert_array_equal(joined, samples)


def test_sound_is_mixed_down_and_resampled(tmp_path):
    time_s = np.arange(48_000) / 48_000
    tone = (20_000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    path = write_media(tmp_path / "a.wav", samples=tone, rate=48_000)
    samples = sound.read_samples(str(path))
    expected = 20_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(samples) == 16_000
    assert np.abs(samples[100:-100] - expected[100:-100]).max() < 40


def test_segments_before_a_fault_are_kept(tmp_path):
    samples = np.zeros(4 * 16_000, np.float32)
    samples[40_000] = np.nan
    path = write_media(tmp_path / "a.wav", samples=samples, codecs=("", "pcm_f32le"))
    segments = media.decode(str(path), 0, None, media.Settings(segment_s=1.0))
    assert next(segments).start_s == 0
    assert next(segments).start_s == 1
    with pytest.raises(RejectedError, match="NaN"):
        next(segments)


def test_missing_files_and_folders_have_a_reason(tmp_path):
    for location, reason in (
        (tmp_path / "none.mp4", "missing"),
        (f"file://{tmp_path}/none.mp4", "missing"),
        (tmp_path, "unreadable"),
    ):
        with pytest.raises(RejectedError) as error:
            decode(location)
        assert error.value.reason == reason


def test_urls_are_opened(tmp_path):
    path = write_media(tmp_path / "v.mkv", pictures=numbered_pictures(5))
    (segment,) = decode(f"file://{path}")
    assert levels(segment) == list(range(5))


def test_pictures_of_a_turned_telephone_are_upright(real_data):
    """The file says that a player must turn it a quarter to the right."""
    path = real_data / "clips" / "decord__video_90.mov"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    height, width = stored.shape[:2]
    assert height < width
    settings = media.Settings(short_side=height, jpeg_quality=95)
    shown = pixels(decode(path, settings)[0].frames[0])
    assert shown.shape == (width, height, 3)
    expected = stored[::-1].swapaxes(0, 1)  # its left edge is now on top
    assert np.abs(shown.astype(int) - expected).mean() < 3
