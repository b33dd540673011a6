"""The pictures of a media file, upright and scaled: at a constant rate, at instants."""

import dataclasses
import io
import math
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.streams import (
    MAX_GAP_S,
    RejectedError,
    decode_stream,
    find_stream,
    open_media,
)
from data_pipelines.timeline import Timeline, frame_rate

MAX_DEFAULT_FPS = 30.0
# A key frame that is nearer than this is reached by decoding on, not by a seek.
MIN_SEEK_S = 1.0


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A segment of pictures.

    Attributes:
      start_s: on the file's own clock, seconds.
      fps: pictures per second.
      frames: one JPEG per picture.
      motion: mean change from one picture to the next, in steps of 8-bit brightness;
        0 for a single picture.
    """

    start_s: float
    fps: float
    frames: tuple[bytes, ...]
    motion: float


def read_pictures(
    location: str,
    first_s: float,
    last_s: float,
    *,
    fps: float | None,
    segment_s: float,
    short_side: int,
    jpeg_quality: int,
) -> Iterator[Pictures]:
    """Segments of pictures at a constant rate, upright and scaled.

    Args:
      location: a path or URL with pictures in it.
      first_s: start of the interval, on the file's own clock, seconds.
      last_s: its end.
      fps: pictures per second; None takes the source's average rate, at most 30.
      segment_s: length of a segment, seconds. What remains makes a segment of its own
        from half that length on, otherwise it stays with the one before.
      short_side: shorter side, pixels; smaller sources keep theirs.
      jpeg_quality: 1 to 95.

    Raises:
      RejectedError: the stream is broken; the segments so far are whole.
    """
    with open_media(location) as container:
        stream = find_stream(container, "video")
        source_fps = frame_rate(stream)
        fps = fps or min(source_fps, MAX_DEFAULT_FPS)
        length = max(1, round(segment_s * fps))
        scaled, encode = Scaler(short_side, enlarge=False), _JpegEncoder(jpeg_quality)
        start_s = before = None
        jpegs: list[bytes] = []
        changes: list[float] = []
        for at_s, frame in _at_constant_rate(
            _in_order_of_time(decode_stream(container, stream, first_s), source_fps),
            first_s,
            last_s,
            fps,
            slack_s=_slack_s(max(fps, source_fps)),
        ):
            start_s = at_s if start_s is None else start_s
            picture = scaled(frame)
            jpegs.append(encode(picture))
            changes.append(_change(before, picture))
            before = picture
            if len(jpegs) >= 1.5 * length:
                motion = _motion(changes[:length])
                yield Pictures(start_s, fps, tuple(jpegs[:length]), motion)
                start_s += length / fps
                del jpegs[:length], changes[:length]
        if jpegs:
            yield Pictures(start_s, fps, tuple(jpegs), _motion(changes))


def _change(
    before: UInt8[np.ndarray, "height width 3"] | None,
    picture: UInt8[np.ndarray, "height width 3"],
) -> float:
    """Mean change of green, which is most of brightness, at every fourth pixel."""
    if before is picture or before is None or before.shape != picture.shape:
        return 0.0
    step = np.s_[::4, ::4, 1]
    return float(np.abs(picture[step].astype(np.int16) - before[step]).mean())


def _motion(changes: list[float]) -> float:
    """Mean of the changes within a segment; the first one leads into it."""
    return float(np.mean(changes[1:])) if len(changes) > 1 else 0.0


def pictures_at(
    location: str, timeline: Timeline, instants_s: Iterable[float], short_side: int
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The picture shown at each instant; before the first picture, that one.

    Decodes from the last key frame before an instant on, no more. What is shown at an
    instant, `read_pictures` says as well.

    Args:
      location: a path or URL with pictures in it.
      timeline: of its pictures.
      instants_s: ascending, on the file's own clock, seconds.
      short_side: shorter side, pixels; smaller sources are scaled up.

    Raises:
      RejectedError: the stream is broken where it is needed, or `empty`.
    """
    scaled = Scaler(short_side, enlarge=True)
    slack_s = _slack_s(timeline.fps)
    can_seek = True
    shown = ahead = None
    for instant_s in instants_s:
        due_s = instant_s + slack_s
        key_s = timeline.key_frame(due_s) if can_seek else -math.inf
        if shown is None or (ahead is not None and key_s > ahead[0] + MIN_SEEK_S):
            frames = _frames_from(location, key_s, timeline.fps)
            shown, ahead = next(frames, None), next(frames, None)
            if shown is None or (shown[0] > due_s and key_s > timeline.start_s):
                can_seek = False  # It led past the key frame: read from the start.
                frames = _frames_from(location, -math.inf, timeline.fps)
                shown, ahead = next(frames, None), next(frames, None)
        while ahead is not None and ahead[0] <= due_s:
            shown, ahead = ahead, next(frames, None)
        if shown is None:
            raise RejectedError("empty", "no picture could be decoded")
        yield scaled(shown[1])


def _frames_from(
    location: str, from_s: float, fps: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time stamp, frame) in order of time, from a key frame on, or from the start."""
    with open_media(location) as container:
        stream = find_stream(container, "video")
        decoded = decode_stream(container, stream, from_s)
        for at_s, _, frame in _in_order_of_time(decoded, fps):
            yield at_s, frame


def _slack_s(fps: float) -> float:
    """How early a picture may come: time stamps are often rounded."""
    return 0.25 / fps


def _in_order_of_time(
    frames: Iterator[av.VideoFrame], fps: float
) -> Iterator[tuple[float | None, float, av.VideoFrame]]:
    """(start, end, frame); without frames whose time stamps run backwards.

    A frame without a time stamp starts where the one before ends; the first one, None.

    Raises:
      RejectedError: as `decode_stream`, or the time stamps jump ahead too far.
    """
    shown_s = until_s = None
    for frame in frames:
        at_s = until_s if frame.time is None else frame.time
        if shown_s is not None and at_s < shown_s:
            continue
        if until_s is not None and at_s - until_s > MAX_GAP_S:
            raise RejectedError(
                "corrupt",
                f"video stream jumps by {at_s - until_s:g} s at {until_s:.3f} s",
            )
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        shown_s, until_s = at_s, at_s + (duration_s or 1 / fps)
        yield shown_s, until_s, frame


def _at_constant_rate(
    frames: Iterator[tuple[float, float, av.VideoFrame]],
    first_s: float,
    last_s: float,
    fps: float,
    slack_s: float,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The picture that is shown at `first_s + i / fps`, i = 0, 1, ...

    Where the first picture comes later than `first_s`, its time takes that place. The
    picture shown at an instant is the last one with an earlier or equal time stamp.
    """
    shown: av.VideoFrame | None = None
    start_s = until_s = first_s
    num_yielded = 0
    for at_s, end_s, frame in frames:
        if shown is None:
            start_s = max(first_s, at_s)
        while shown is not None and start_s + num_yielded / fps + slack_s < at_s:
            if start_s + num_yielded / fps + slack_s >= last_s:
                return
            yield start_s + num_yielded / fps, shown
            num_yielded += 1
        shown, until_s = frame, end_s
    while shown is not None:
        at_s = start_s + num_yielded / fps
        if at_s + slack_s >= min(until_s, last_s):
            return
        yield at_s, shown
        num_yielded += 1


class Scaler:
    """Frames -> RGB, upright, with a given shorter side; a frame again as it was.

    Args:
      short_side: pixels.
      enlarge: whether smaller frames are scaled up.
    """

    def __init__(self, short_side: int, enlarge: bool):
        self._short_side = short_side
        self._enlarge = enlarge
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame | None, np.ndarray | None] = (None, None)

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
        """The picture; the same array for the same frame."""
        if frame is not self._last[0]:
            self._last = (frame, self._scale(frame))
        return self._last[1]

    def _scale(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
        scale = self._short_side / min(frame.width, frame.height)
        if not self._enlarge:
            scale = min(1.0, scale)
        picture = self._reformatter.reformat(
            frame,
            max(1, round(frame.width * scale)),
            max(1, round(frame.height * scale)),
            "rgb24",
            interpolation="AREA" if scale < 1 else "BICUBIC",
            threads=1,  # Starting threads costs more than scaling a small picture.
        )
        # Telephones store what they see and say how it was held.
        return np.rot90(picture.to_ndarray(), round(frame.rotation / 90))


class _JpegEncoder:
    """Encodes pictures; the same array again as it was."""

    def __init__(self, quality: int):
        self._quality = quality
        self._last: tuple[np.ndarray | None, bytes] = (None, b"")

    def __call__(self, picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
        if picture is not self._last[0]:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=self._quality)
            self._last = (picture, buffer.getvalue())
        return self._last[1]
