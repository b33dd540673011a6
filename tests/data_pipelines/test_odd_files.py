"""Media files as users have them, against the ffmpeg program; and broken ones."""

import csv
import io
import random
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from data_pipelines import media, parts, workers
from data_pipelines.manifest import Row

SETTINGS = media.Settings(jpeg_quality=95)
RATE_HZ = 16_000
FIRST_S = 10  # of a longer file, so much is compared

REJECTED = {
    "ax__full_blocks.mkv": "no streams",  # it has subtitles alone
    "ax__invalid-bitstream.webm": "corrupt",
    "ax__sample_ac4.mp4": "unsupported codec",
    "ax__sample_dts_hd_across_pes.ts": "corrupt",
    "ax__sample_fragmented_uuid.mp4": "corrupt",
    "ax__sample_mhm1_bl_cicp1.mp4": "unsupported codec",
    "broken__bitflips.mp4": "corrupt",
    "broken__empty.mp4": "unreadable",
    "broken__noise.mp4": "unreadable",
    "broken__text.mp4": "unreadable",
    "broken__trunc_mid.mp4": "corrupt",
    "small__gif.gif": "empty",  # not one picture can be decoded
}


def decode_all(paths, time_limit_s):
    """Path -> (segments, reason of the rejection or None)."""
    tasks = [(Row(str(path), str(path)), SETTINGS) for path in paths]
    found, segments = {}, []
    undone = iter(paths)
    for event in workers.run_in_order(parts.decode_row, tasks, 2, time_limit_s):
        match event:
            case workers.Result(segment):
                segments.append(segment)
                continue
            case workers.Finished():
                reason = None
            case workers.Failed(error):
                reason = error.reason
            case workers.Crashed(_, reason):
                pass
        found[next(undone)] = (segments, reason)
        segments = []
    return found


@pytest.fixture(scope="module")
def decoded(real_data):
    """Row of manifest.csv, segments and reason of every odd file."""
    with (real_data / "clips" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = decode_all([real_data / "clips" / row["file"] for row in rows], 60.0)
    return [(row, *result) for row, result in zip(rows, found.values(), strict=True)]


def test_every_file_is_prepared_or_rejected_with_its_reason(decoded):
    assert len(decoded) == 105
    reasons = {row["file"]: reason for row, _, reason in decoded if reason}
    assert reasons == REJECTED
    # The manifest was made with another decoder: what it could not read is rejected,
    # but for one file, whose sound it stumbled over; its pictures are whole.
    unread = {row["file"] for row, _, _ in decoded if row["status"] != "ok"}
    assert unread - set(REJECTED) == {"ax__sample_missing_stsd.mp4"}


def test_frames_samples_and_rotation_are_those_of_the_manifest(decoded):
    num_checked = 0
    for row, segments, reason in decoded:
        if reason or row["status"] != "ok":
            continue
        frames = sum(len(segment.frames) for segment in segments)
        samples = sum(len(segment.audio) for segment in segments)
        num_frames = int(row["dec_frames"] or 0)
        if num_frames and float(row["fps"] or 0) <= 100:
            rate = num_frames / float(row["dur"] or 1)  # its header may lie
            assert abs(frames - num_frames * min(1, 30 / rate)) <= 1.01, row["file"]
            size = np.array(Image.open(io.BytesIO(segments[0].frames[0])).size)
            stored = np.array([int(row["w"]), int(row["h"])])
            if row["rotation"] in ("90", "-90"):
                stored = stored[::-1]
            expected = stored * min(1, 128 / stored.min())
            assert np.abs(size - expected).max() <= 0.51, row["file"]
            num_checked += 1
        elif row["dec_samples"] and not num_frames:
            seconds = int(row["dec_samples"]) / int(row["rate"])
            if "eac3" in row["file"] or "nasa" in row["file"]:
                seconds = float(row["dur"])  # it has gaps, which become silence
            assert abs(samples / RATE_HZ - seconds) <= 0.06, row["file"]
            num_checked += 1
    assert num_checked == 89


# The version of ffmpeg in Debian 12 has no decoder for these.
TOO_NEW = {
    "ax__5p1_iamf_opus.mp4",
    "ax__sample_fpcm_32be.mp4",
    "ax__sample_fragmented_iamf.mp4",
    "ax__sample_vvc.mp4",
}
# Gaps in the sound: ffmpeg leaves them out, here they become silence.
WITH_GAPS = {"ax__sample_eac3.mp4", "ax__sample_eac3_fragmented.mp4"}


def probe(path, kind):
    """Time stamps of the first seconds of a stream, as ffprobe decodes it."""
    command = ["ffprobe", "-v", "error", "-select_streams", f"{kind}:0"]
    command += ["-read_intervals", f"%+{2 * FIRST_S}"]
    command += ["-show_entries", "frame=best_effort_timestamp_time", "-of", "csv=p=0"]
    output = subprocess.run(
        [*command, path], capture_output=True, text=True, check=True
    )
    cells = [line.strip(",") for line in output.stdout.splitlines()]
    return np.array([float(cell) for cell in cells if cell not in ("", "N/A")])


def ffmpeg(path, *arguments):
    """The first seconds of a file, raw."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, *arguments]
    command[-1:-1] = ["-t", str(2 * FIRST_S)]
    return subprocess.run(command, capture_output=True, check=False).stdout


def test_pictures_and_sound_are_those_of_ffmpeg_at_its_times(decoded, real_data):
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        pytest.skip("needs the program ffmpeg, which is not installed")
    num_pictures = num_sounds = num_moving = 0
    for row, segments, reason in decoded:
        name = row["file"]
        if reason or name in TOO_NEW:
            continue
        path = str(real_data / "clips" / name)
        segment = segments[0]
        first_picture_s = None
        if segment.frames:
            pictures = [
                np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
                for jpeg in segment.frames
            ]
            height, width = pictures[0].shape[:2]
            raw = ffmpeg(
                *(path, "-map", "0:v:0", "-vsync", "passthrough"),
                *("-vf", f"scale={width}:{height}:flags=area"),
                *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
            )
            theirs = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
            times_s = probe(path, "v")[: len(theirs)]
            first_picture_s = times_s[0]
            instants_s = first_picture_s + np.arange(len(pictures)) / segment.fps
            slack_s = 0.25 / max(segment.fps, float(row["fps"] or 0))
            shown = np.searchsorted(times_s, instants_s + slack_s, side="right") - 1
            last = len(times_s) - 1
            for i in range(0, len(pictures), max(1, len(pictures) // 12)):
                near = range(max(0, shown[i] - 3), min(last, shown[i] + 3) + 1)
                error = {j: np.abs(pictures[i] - theirs[j]).mean() for j in near}
                # One of its neighbours at most one frame away, and no other is nearer.
                best = min(error, key=error.get)
                one_off = [j for j in near if abs(j - shown[i]) <= 1]
                assert min(error[j] for j in one_off) <= error[best] + 0.3, name
                assert error[best] < 8, name
                num_moving += max(error.values()) > error[best] + 2
            num_pictures += 1
        if len(segment.audio) and row["file"] not in WITH_GAPS:
            raw = ffmpeg(
                *(path, "-map", "0:a:0", "-ac", "1", "-ar", str(RATE_HZ)),
                *("-f", "s16le", "-"),
            )
            theirs = np.frombuffer(raw, np.int16).astype(float)
            if first_picture_s is None and float(row["dur"]) < 2 * FIRST_S:
                number = sum(len(segment.audio) for segment in segments)
                assert abs(number - len(theirs)) <= 0.01 * RATE_HZ, name
            ours = segment.audio[: 5 * RATE_HZ].astype(float)
            if ours.std() < 1:
                continue  # silent: it fits anywhere
            size = 2 * (len(ours) + len(theirs))
            spectrum = np.fft.rfft(theirs, size) * np.conj(np.fft.rfft(ours, size))
            lag = int(np.argmax(np.fft.irfft(spectrum, size)))
            lag -= size if lag > size // 2 else 0
            start_s = probe(path, "a")[0]
            expected_s = start_s if first_picture_s is None else first_picture_s
            assert abs(start_s + lag / RATE_HZ - expected_s) < 0.01, name
            num_sounds += 1
    assert num_pictures >= 75
    assert num_sounds >= 25
    assert num_moving > 350


def mutate(data, rng):
    """A damaged copy: bits flipped, the end lost, or a run of zeros."""
    damaged = bytearray(data)
    match rng.randrange(3):
        case 0:
            for _ in range(rng.choice((1, 5, 20, 200))):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case 1:
            del damaged[rng.randrange(len(damaged)) :]
        case 2:
            start = rng.randrange(len(damaged))
            length = min(rng.choice((16, 512, 8192)), len(damaged) - start)
            damaged[start : start + length] = bytes(length)
    return bytes(damaged)


def test_damaged_files_end_well(real_data, tmp_path):
    """300 of them: no crash, no hang, and what they give is whole and of sane size."""
    sources = sorted(
        path
        for path in (real_data / "clips").iterdir()
        if path.suffix != ".csv" and 1_000 < path.stat().st_size < 150_000
    )
    assert len(sources) > 40
    rng = random.Random(0)
    paths = []
    for i in range(300):
        source = sources[i % len(sources)]
        paths.append(tmp_path / f"{i:03d}{source.suffix}")
        paths[-1].write_bytes(mutate(source.read_bytes(), rng))
    reasons = []
    for path, (segments, reason) in decode_all(paths, time_limit_s=20.0).items():
        reasons.append(reason)
        assert segments or reason, path
        assert len(segments) < 100, path
        for segment in segments:
            if segment.frames:
                assert np.asarray(Image.open(io.BytesIO(segment.frames[-1]))).size
                num_samples = round(len(segment.frames) / segment.fps * RATE_HZ)
                assert len(segment.audio) in (0, num_samples), path
    assert set(reasons) <= {
        None,
        "corrupt",
        "empty",
        "no streams",
        "unreadable",
        "unsupported codec",
    }
    assert reasons.count(None) > 50
    assert reasons.count("corrupt") > 50
