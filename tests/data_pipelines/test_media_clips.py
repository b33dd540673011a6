"""Clips read straight from media files: the same as from everything decoded."""

import csv
import multiprocessing

import av
import numpy as np
import pytest

from data_pipelines import clips as clips_lib
from data_pipelines import extraction, media, pictures, prepare, shards, sources
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.manifest import Row
from data_pipelines.media_clips import Found, read_clips
from data_pipelines.streams import RejectedError
from data_pipelines.timeline import scan
from data_pipelines.views import Views

BOTH = ("video", "audio")
SPEC = ClipSpec(
    num_frames=4,
    fps=12.5,
    short_side=32,
    crop_size=24,
    audio_duration_s=0.5,
    mel_frames=20,
    mel_bins=8,
)
FPS, SECONDS, BITS, BLOCK = 25, 12, 9, 16


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A file of 12 s with a key frame a second, whose content says when it is.

    Picture i shows the binary digits of i, a block each; sample i is i modulo 60,000.
    """
    path = tmp_path_factory.mktemp("numbered") / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = BITS * BLOCK, 2 * BLOCK, "yuv420p"
        video.options = {"g": str(FPS), "preset": "ultrafast"}
        audio = container.add_stream("flac", rate=16_000)
        audio.layout = "mono"
        samples = np.arange(SECONDS * 16_000) % 60_000 - 30_000
        for i in range(SECONDS * FPS):
            digits = (i >> np.arange(BITS) & 1).astype(np.uint8) * 220
            picture = np.tile(np.repeat(digits, BLOCK), (2 * BLOCK, 1))
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "gray")))
            piece = samples[i * 640 : (i + 1) * 640].astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece[None], "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, i * 640
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def read(path, spec=SPEC, views=None, modalities=BOTH, **interval):
    row = Row(path.name, str(path), **interval)
    found, *made = read_clips((row, spec, views or Views(), modalities))
    assert isinstance(found, Found)
    return found, made


def numbers(video):
    """The number that each picture of `numbered` shows."""
    blocks = video[:, BLOCK, BLOCK // 2 :: BLOCK, 0] > 110
    return (blocks << np.arange(BITS)).sum(1)


@pytest.mark.parametrize(
    ("views", "interval", "expected_s"),
    [
        (Views(), {}, [5.84]),
        (Views(clips=3), {}, [11.68 / 6, 5.84, 11.68 * 5 / 6]),
        (Views(stride_s=0.1), {"start_s": 3.0, "end_s": 5.0}, np.arange(17) / 10),
        (Views(stride_s=3.0), {}, [0, 3, 6, 9]),
    ],
)
def test_each_clip_has_its_pictures_and_its_sound(
    numbered, views, interval, expected_s
):
    found, made = read(numbered, views=views, **interval)
    offset_s = interval.get("start_s", 0.0)
    assert found.start_s == offset_s
    assert found.duration_s == pytest.approx(interval.get("end_s", 12) - offset_s)
    assert found.has == BOTH
    np.testing.assert_allclose(found.starts_s, expected_s, atol=1e-6)
    assert len(made) == len(expected_s)
    for start_s, clip in zip(found.starts_s, made, strict=True):
        frames = (offset_s + start_s) * FPS + np.arange(4) * 2
        assert np.abs(numbers(clip.video) - frames).max() < 1.01
        # Half a second of sound around 0.32 s of pictures, inside the record.
        first_s = np.clip(start_s - 0.09, 0, found.duration_s - 0.5)
        first = round((offset_s + first_s) * 16_000)
        np.testing.assert_array_equal(
            clip.waveform, np.arange(first, first + 8000) % 60_000 - 30_000
        )


def test_only_what_is_needed_is_decoded(numbered, monkeypatch):
    decoded, original = [], pictures.decode_stream

    def counted(*arguments):
        for frame in original(*arguments):
            decoded.append(frame.time)
            yield frame

    monkeypatch.setattr(pictures, "decode_stream", counted)
    read(numbered, views=Views(clips=3), modalities=("video",))
    # Three times, at most a second up to the clip, the clip and a few in the codec.
    assert 0 < len(decoded) < 3 * (FPS + 8 + 4)
    decoded.clear()
    read(numbered, views=Views(stride_s=0.08), modalities=("video",))
    assert len(decoded) == SECONDS * FPS  # each picture once
    decoded.clear()
    _, (clip,) = read(numbered, modalities=("audio",))
    assert clip.video is None
    assert decoded == []


def test_wanted_beyond_the_end(numbered):
    """A file shorter than its clip: the last picture stays, sound becomes zeros."""
    found, (clip,) = read(numbered, start_s=11.8)
    assert found.duration_s == pytest.approx(0.2)
    assert numbers(clip.video).tolist() == [295, 297, 299, 299]
    # Half a second around 0.32 s of pictures begins 0.09 s before the record.
    samples = np.arange(188_800, 192_000) % 60_000 - 30_000
    expected = np.pad(samples, (1440, 8000 - 1440 - 3200))
    np.testing.assert_array_equal(clip.waveform, expected)
    with pytest.raises(RejectedError, match="empty"):
        read(numbered, start_s=12.5)


def test_a_seek_that_leads_too_far(numbered, monkeypatch):
    """Where a file's index is wrong, it is read from its start."""
    original = pictures.decode_stream

    def late(container, stream, from_s):
        return original(container, stream, from_s + 3 if from_s > 0 else from_s)

    monkeypatch.setattr(pictures, "decode_stream", late)
    _, made = read(numbered, views=Views(clips=3), modalities=("video",))
    firsts = [numbers(clip.video)[0] for clip in made]
    np.testing.assert_allclose(firsts, [48, 146, 243], atol=1)


def naive_pictures(path, instants_s, short_side):
    """Everything decoded; the last picture whose time has come at each instant.

    Frames whose time runs backwards, in an AVI with B-frames, are left out.
    """
    with av.open(path, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        frames = [frame for frame in container.decode(stream)]
    scaler = pictures.Scaler(short_side, enlarge=True)
    times = np.array([frame.time for frame in frames])
    forward = times >= np.maximum.accumulate(times)
    frames = [frame for frame, keep in zip(frames, forward, strict=True) if keep]
    times = times[forward]
    for instant_s in instants_s:
        due = np.flatnonzero(times <= instant_s)
        yield scaler(frames[due[-1] if len(due) else 0])


def test_odd_files_are_read_as_by_decoding_everything(real_data):
    """At five places of every odd file; and what is broken has a reason."""
    views, num_compared = Views(clips=5), 0
    for about in csv.DictReader((real_data / "clips" / "manifest.csv").open()):
        path = real_data / "clips" / about["file"]
        frames, samples = int(about["dec_frames"] or 0), int(about["dec_samples"] or 0)
        if about["status"] == "ok" and not (frames or samples):
            with pytest.raises(RejectedError):
                read(path, views=views)
            continue
        try:
            found, made = read(path, views=views)
        except RejectedError:
            if about["status"] == "ok":
                raise
            continue
        assert len(made) == 5
        too_long = frames * int(about["h"] or 0) > 200_000
        if about["status"] != "ok" or too_long:
            continue
        assert ("video" in found.has) == (frames > 0), about
        assert ("audio" in found.has) == (samples > 0), about
        if not frames:
            continue
        timeline = scan(str(path))["video"]
        starts_s = timeline.start_s + found.starts_s
        instants = (starts_s[:, None] + np.arange(4) / SPEC.fps).ravel()
        slack_s = 0.25 / timeline.fps
        expected = naive_pictures(str(path), instants + slack_s, SPEC.short_side)
        for shown, picture in zip(
            np.concatenate([clip.video for clip in made]), expected, strict=True
        ):
            np.testing.assert_array_equal(shown, picture, err_msg=about["file"])
        num_compared += 1
    assert num_compared > 50


def test_media_and_prepared_clips_agree(numbered, tmp_path):
    """Sound to the bit; pictures but for JPEG and another scaling filter."""
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("a.mkv", "b.mkv"):
        (folder / name).write_bytes(numbered.read_bytes())
    (folder / "c.mkv").write_bytes(b"no film")
    prepare.prepare(
        sources.folder_source(folder, False),
        tmp_path / "prepared",
        media.Settings(short_side=32, segment_s=20.0, jpeg_quality=95),
        num_workers=1,
        max_rejected=0.5,
    )
    views = Views(clips=2, crops=3)
    data = clips_lib.ClipData(shards.open_prepared(tmp_path / "prepared"), SPEC, 0)
    prepared = extraction.PreparedSource(data, views)
    direct = extraction.MediaSource(folder, SPEC, views, BOTH, num_workers=2)
    assert direct.slices == {"train": [range(3)]}
    (expected,) = prepared.open([("train", range(2))], batch_size=5)
    slices = direct.open([("train", range(3))], batch_size=5)
    found = next(slices)
    batches = list(zip(found.batches, expected.batches, strict=True))
    assert len(batches) == 3  # 2 files of 2 clips of 3 crops, in fives
    for ours, theirs in batches:
        np.testing.assert_array_equal(ours["mask"], theirs["mask"])
        np.testing.assert_array_equal(ours["audio"], theirs["audio"])
        error = np.abs(ours["video"].astype(int) - theirs["video"])
        assert error.mean() < 3
    *ours, broken = found.records
    for our, their in zip(ours, expected.records, strict=True):
        assert our.video_id == their.video_id
        assert our.has == their.has
        np.testing.assert_allclose(our.starts_s, their.starts_s, atol=1e-6)
    assert broken.video_id == "c.mkv"
    assert broken.fault[0] == "unreadable"
    assert next(slices, None) is None
    assert not multiprocessing.active_children()
