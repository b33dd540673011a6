"""One media file -> clips of pictures and sound, or a named reason why not (PyAV)."""

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Int16
from PIL import Image

SAMPLE_RATE_HZ = 16_000
MAX_DEFAULT_FPS = 30.0
# Rates of files that do not say theirs: what most such files have.
FALLBACK_FPS = 25.0
# Time stamps of sound are rounded to as much as a few milliseconds; a jump of more
# than this is a real gap.
MAX_AUDIO_JITTER_S = 0.05


@dataclasses.dataclass(frozen=True)
class Settings:
    """How media is stored.

    Attributes:
      short_side: shorter side of the pictures, pixels; smaller sources keep theirs.
      fps: pictures per second; None takes the source's average rate, at most 30.
      segment_s: longer sources are cut into segments of this length, seconds. What
        remains makes a segment of its own from half that length on, otherwise it
        stays with the one before.
      jpeg_quality: 1 to 95.
    """

    short_side: int = 128
    fps: float | None = None
    segment_s: float = 10.0
    jpeg_quality: int = 90


@dataclasses.dataclass(frozen=True)
class Segment:
    """Pictures and sound that start at the same instant.

    Attributes:
      start_s: that instant, in seconds from the first picture or sound of the source.
      fps: pictures per second; 0 where there are none.
      frames: RGB JPEGs; frame i shows the instant `start_s + i / fps`.
      audio: mono at 16 kHz; sample i belongs to `start_s + i / 16000`. As long as the
        pictures, cut or filled with zeros; empty where the source has no sound here.
    """

    start_s: float
    fps: float
    frames: tuple[bytes, ...]
    audio: Int16[np.ndarray, " samples"]


class RejectedError(Exception):
    """A source, or the rest of it, cannot be used.

    Attributes:
      reason: one of a few short names, for counting.
      detail: what exactly was found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def decode(
    location: str, start_s: float, end_s: float | None, settings: Settings
) -> Iterator[Segment]:
    """Decodes an interval of a media file, segment by segment.

    Segments before a fault in the file are whole; the rest is rejected.

    Args:
      location: a path, or a URL that fsspec opens (gs:// needs gcsfs).
      start_s: start, in seconds from the first picture or sound of the source.
      end_s: end in the same time; None is the end of the source.
      settings: how to store it.

    Raises:
      RejectedError: `missing`, `unreadable` (no media file), `unsupported codec`,
        `no streams` (neither pictures nor sound), `corrupt`, or `empty` (nothing in
        the interval).
    """
    with _open(location) as container:
        audio = _stream(container, "audio")
        video = _stream(container, "video")
        _check_streams(container, audio, video)
        origin_s = min(_header_start_s(s) for s in (audio, video) if s is not None)
        first_s = origin_s + start_s
        last_s = math.inf if end_s is None else origin_s + end_s
        sound = _Sound(origin_s)
        if audio is not None:
            _read_sound(container, audio, first_s, last_s, sound)
    num_segments = 0
    if video is not None:
        for segment in _pictures(location, first_s, last_s, settings):
            at_s, fps, frames = segment
            num_samples = round(len(frames) / fps * SAMPLE_RATE_HZ)
            samples = sound.cut(round((at_s - origin_s) * SAMPLE_RATE_HZ), num_samples)
            yield Segment(at_s - origin_s, fps, frames, samples)
            num_segments += 1
    if num_segments == 0:
        for start, num_samples in sound.segments(first_s, last_s, settings.segment_s):
            samples = sound.cut(start, num_samples)
            yield Segment(start / SAMPLE_RATE_HZ, 0.0, (), samples)
            num_segments += 1
    if num_segments == 0:
        if sound.fault is not None:
            raise sound.fault
        raise RejectedError("empty", f"nothing to decode from {start_s:g} s on")


class _Sound:
    """The samples of a source at 16 kHz, placed by their time stamps."""

    def __init__(self, origin_s: float):
        self.fault: RejectedError | None = None
        self._origin_s = origin_s
        self._runs: list[tuple[int, np.ndarray]] = []

    @property
    def end(self) -> int:
        """Sample index, from the origin of the source on, where the sound ends."""
        return max((start + len(run) for start, run in self._runs), default=0)

    def add(self, at_s: float, run: Int16[np.ndarray, " samples"]) -> None:
        start = round((at_s - self._origin_s) * SAMPLE_RATE_HZ)
        self._runs.append((start, run))

    def cut(self, start: int, num_samples: int) -> Int16[np.ndarray, " samples"]:
        """Samples from index `start` on: zeros in gaps, nothing where none is there.

        Raises:
          RejectedError: the fault in the sound comes before the end of the cut.
        """
        if self.fault is not None and start + num_samples > self.end:
            raise self.fault
        samples = np.zeros(num_samples, np.int16)
        found = False
        for run_start, run in self._runs:
            low = max(start, run_start)
            high = min(start + num_samples, run_start + len(run))
            if low < high:
                samples[low - start : high - start] = run[
                    low - run_start : high - run_start
                ]
                found = True
        return samples if found else samples[:0]

    def segments(
        self, first_s: float, last_s: float, segment_s: float
    ) -> Iterator[tuple[int, int]]:
        """Start and number of samples of each segment of a source without pictures."""
        if not self._runs:
            return
        first = round((first_s - self._origin_s) * SAMPLE_RATE_HZ)
        start = max(first, min(run_start for run_start, _ in self._runs))
        end = self.end
        if last_s < math.inf:
            end = min(end, round((last_s - self._origin_s) * SAMPLE_RATE_HZ))
        length = max(1, round(segment_s * SAMPLE_RATE_HZ))
        while end - start >= 1.5 * length:
            yield start, length
            start += length
        if end > start:
            yield start, end - start


def _open(location: str) -> av.container.InputContainer:
    source = location
    if "://" in location:
        import fsspec

        try:
            source = fsspec.open(location, "rb").open()
        except FileNotFoundError as error:
            raise RejectedError("missing", "no such file") from error
        except Exception as error:  # Every file system has exceptions of its own.
            raise RejectedError("unreadable", f"{_name(error)}: {error}") from error
    elif not os.path.isfile(location):
        if os.path.exists(location):
            raise RejectedError("unreadable", "not a regular file")
        raise RejectedError("missing", "no such file")
    try:
        return av.open(source, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectedError("unreadable", _describe(error)) from error


def _stream(container: av.container.InputContainer, kind: str) -> av.stream.Stream:
    """The stream that a player would choose, None where none can be decoded."""
    candidates = [
        stream
        for stream in container.streams
        if stream.type == kind
        and stream.codec_context is not None
        and not stream.disposition & av.stream.Disposition.attached_pic
    ]
    best = container.streams.best(kind)
    if best is None or best.index not in [stream.index for stream in candidates]:
        best = candidates[0] if candidates else None
    if best is not None:
        best.codec_context.thread_count = 1  # The worker processes share the cores.
    return best


def _check_streams(
    container: av.container.InputContainer,
    audio: av.AudioStream | None,
    video: av.VideoStream | None,
) -> None:
    if audio is not None or video is not None:
        return
    kinds = [stream.type for stream in container.streams]
    if "audio" in kinds or "video" in kinds:
        raise RejectedError(
            "unsupported codec", f"no decoder for the streams {', '.join(kinds)}"
        )
    raise RejectedError("no streams", f"found {', '.join(kinds) or 'none'}")


def _header_start_s(stream: av.stream.Stream) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _decoded(
    container: av.container.InputContainer, stream: av.stream.Stream, from_s: float
) -> Iterator[av.frame.Frame]:
    """Frames of a stream, from `from_s` or a little earlier on.

    Raises:
      RejectedError: `corrupt`. Only packets before the first whole frame may be
        broken: so starts a stream that was cut out of a longer one.
    """
    if from_s > _header_start_s(stream):
        with contextlib.suppress(av.FFmpegError):  # What cannot seek starts at 0.
            container.seek(int(from_s / stream.time_base), stream=stream)
    num_frames = 0
    broken_start: av.FFmpegError | None = None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        except av.FFmpegError as error:
            if num_frames:
                raise _corrupt(stream, num_frames, error) from error
            broken_start = error
            continue
        if packet is None:
            break
        for frame in frames:
            num_frames += 1
            yield frame
    if num_frames == 0 and broken_start is not None:
        raise _corrupt(stream, num_frames, broken_start) from broken_start


def _read_sound(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    first_s: float,
    last_s: float,
    sound: _Sound,
) -> None:
    """Decodes an interval of sound, down to one channel at 16 kHz, into `sound`.

    A fault is kept in `sound`: what lies before it is whole.
    """
    resampler = None
    run: list[np.ndarray] = []
    run_start_s = expected_s = first_s
    run_format = None

    def end_run() -> None:
        if resampler is not None:
            run.extend(_samples(resampler.resample(None)))
            sound.add(run_start_s, np.concatenate(run))
            run.clear()

    try:
        # Half a second earlier: the first frames after a seek lack their predecessors.
        for frame in _decoded(container, stream, first_s - 0.5):
            at_s = expected_s if frame.time is None else frame.time
            if at_s >= last_s:
                break
            _check_finite(frame, at_s)
            frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            jump_s = abs(at_s - expected_s)
            if jump_s > MAX_AUDIO_JITTER_S or frame_format != run_format:
                end_run()
                resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
                run_start_s, run_format = at_s, frame_format
                expected_s = at_s
            run.extend(_samples(resampler.resample(frame)))
            expected_s += frame.samples / frame.sample_rate
    except RejectedError as fault:
        sound.fault = fault
    end_run()


def _samples(frames: list[av.AudioFrame]) -> list[np.ndarray]:
    return [frame.to_ndarray()[0] for frame in frames]


def _check_finite(frame: av.AudioFrame, at_s: float) -> None:
    if frame.format.name.startswith(("flt", "dbl")) and not np.all(
        np.isfinite(frame.to_ndarray())
    ):
        raise RejectedError("corrupt", f"audio stream holds NaN or inf at {at_s:.3f} s")


def _pictures(
    location: str, first_s: float, last_s: float, settings: Settings
) -> Iterator[tuple[float, float, tuple[bytes, ...]]]:
    """Segments of pictures: start on the file's own clock, rate, one JPEG per frame."""
    with _open(location) as container:
        stream = _stream(container, "video")
        source_fps = float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
        fps = settings.fps or min(source_fps, MAX_DEFAULT_FPS)
        length = max(1, round(settings.segment_s * fps))
        encoder = _JpegEncoder(settings)
        start_s = None
        jpegs: list[bytes] = []
        for at_s, frame in _at_constant_rate(
            _decoded(container, stream, first_s), first_s, last_s, fps, source_fps
        ):
            start_s = at_s if start_s is None else start_s
            jpegs.append(encoder(frame))
            if len(jpegs) >= 1.5 * length:
                yield start_s, fps, tuple(jpegs[:length])
                start_s += length / fps
                del jpegs[:length]
        if jpegs:
            yield start_s, fps, tuple(jpegs)


def _at_constant_rate(
    frames: Iterator[av.VideoFrame],
    first_s: float,
    last_s: float,
    fps: float,
    source_fps: float,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The picture that is shown at `first_s + i / fps`, i = 0, 1, ...

    Where the first picture comes later than `first_s`, its time takes that place. The
    picture shown at an instant is the last one with an earlier or equal time stamp;
    time stamps are often rounded, so a quarter of a frame counts as equal.
    """
    slack_s = 0.25 / max(fps, source_fps)
    shown: av.VideoFrame | None = None
    start_s = shown_s = until_s = first_s
    num_yielded = 0
    for frame in frames:
        at_s = until_s if frame.time is None else frame.time
        if shown is None:
            start_s = max(first_s, at_s)
        elif at_s < shown_s:
            continue  # Broken time stamps run backwards: keep to the order of time.
        while shown is not None and start_s + num_yielded / fps + slack_s < at_s:
            if start_s + num_yielded / fps + slack_s >= last_s:
                return
            yield start_s + num_yielded / fps, shown
            num_yielded += 1
        shown, shown_s = frame, at_s
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        until_s = at_s + (duration_s or 1 / source_fps)
    while shown is not None:
        at_s = start_s + num_yielded / fps
        if at_s + slack_s >= min(until_s, last_s):
            return
        yield at_s, shown
        num_yielded += 1


class _JpegEncoder:
    """Scales frames down to the short side and encodes them; never scales up."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame | None, bytes] = (None, b"")

    def __call__(self, frame: av.VideoFrame) -> bytes:
        if frame is not self._last[0]:
            self._last = (frame, self._encode(frame))
        return self._last[1]

    def _encode(self, frame: av.VideoFrame) -> bytes:
        scale = min(1.0, self._settings.short_side / min(frame.width, frame.height))
        picture = self._reformatter.reformat(
            frame,
            max(1, round(frame.width * scale)),
            max(1, round(frame.height * scale)),
            "rgb24",
            interpolation="AREA" if scale < 1 else "BICUBIC",
        )
        buffer = io.BytesIO()
        Image.fromarray(picture.to_ndarray()).save(
            buffer, "JPEG", quality=self._settings.jpeg_quality
        )
        return buffer.getvalue()


def _corrupt(
    stream: av.stream.Stream, num_frames: int, error: Exception
) -> RejectedError:
    return RejectedError(
        "corrupt",
        f"{stream.type} stream after {num_frames} frames: {_describe(error)}",
    )


def _describe(error: Exception) -> str:
    """An FFmpeg error in one line, without the path."""
    text = getattr(error, "strerror", None) or str(error) or _name(error)
    return " ".join(text.split())


def _name(error: Exception) -> str:
    return type(error).__name__
