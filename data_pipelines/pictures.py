"""The pictures of a media file at a constant rate, as JPEGs."""

import io
from collections.abc import Iterator

import av
from av.video.reformatter import VideoReformatter
from PIL import Image

from data_pipelines.streams import decode_stream, find_stream, open_media

MAX_DEFAULT_FPS = 30.0
# The rate of a file that does not say its own: the most common one.
FALLBACK_FPS = 25.0


def read_pictures(
    location: str,
    first_s: float,
    last_s: float,
    *,
    fps: float | None,
    segment_s: float,
    short_side: int,
    jpeg_quality: int,
) -> Iterator[tuple[float, float, tuple[bytes, ...]]]:
    """Segments of pictures: start on the file's own clock, rate, one JPEG per frame.

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
        source_fps = float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
        fps = fps or min(source_fps, MAX_DEFAULT_FPS)
        length = max(1, round(segment_s * fps))
        encoder = _JpegEncoder(short_side, jpeg_quality)
        start_s = None
        jpegs: list[bytes] = []
        for at_s, frame in _at_constant_rate(
            decode_stream(container, stream, first_s), first_s, last_s, fps, source_fps
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

    def __init__(self, short_side: int, quality: int):
        self._short_side = short_side
        self._quality = quality
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame | None, bytes] = (None, b"")

    def __call__(self, frame: av.VideoFrame) -> bytes:
        if frame is not self._last[0]:
            self._last = (frame, self._encode(frame))
        return self._last[1]

    def _encode(self, frame: av.VideoFrame) -> bytes:
        scale = min(1.0, self._short_side / min(frame.width, frame.height))
        picture = self._reformatter.reformat(
            frame,
            max(1, round(frame.width * scale)),
            max(1, round(frame.height * scale)),
            "rgb24",
            interpolation="AREA" if scale < 1 else "BICUBIC",
            threads=1,  # Starting threads costs more than scaling a small picture.
        )
        buffer = io.BytesIO()
        Image.fromarray(picture.to_ndarray()).save(
            buffer, "JPEG", quality=self._quality
        )
        return buffer.getvalue()
