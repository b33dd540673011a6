"""One media file -> clips of pictures and sound, or a named reason why not (PyAV)."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int16

from data_pipelines.pictures import read_pictures
from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.sound import Chunk, Sound, read_sound
from data_pipelines.streams import (
    RejectedError,
    find_streams,
    header_start_s,
    open_media,
)


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
      motion: mean change from one picture to the next, in steps of 8-bit brightness;
        NaN without pictures.
    """

    start_s: float
    fps: float
    frames: tuple[bytes, ...]
    audio: Int16[np.ndarray, " samples"]
    motion: float


def decode(
    location: str, start_s: float, end_s: float | None, settings: Settings
) -> Iterator[Segment]:
    """Decodes an interval of a media file, segment by segment.

    Holds a segment and a half, however long the file is. Segments before a fault in
    the file are whole; the rest is rejected.

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
    with open_media(location) as container:
        streams = find_streams(container)
        origin_s = min(map(header_start_s, streams.values()))
        first_s = origin_s + start_s
        last_s = math.inf if end_s is None else origin_s + end_s
        chunks: Iterable[Chunk] = ()
        if "audio" in streams:
            chunks = read_sound(container, streams["audio"], first_s, last_s, origin_s)
        sound = Sound(chunks)
        num_segments = 0
        if "video" in streams:
            for found in read_pictures(
                location, first_s, last_s, **dataclasses.asdict(settings)
            ):
                at_s = found.start_s - origin_s
                num_samples = round(len(found.frames) / found.fps * SAMPLE_RATE_HZ)
                samples = sound.cut(round(at_s * SAMPLE_RATE_HZ), num_samples)
                yield Segment(at_s, found.fps, found.frames, samples, found.motion)
                num_segments += 1
        if num_segments == 0:
            for start, samples in sound.segments(
                round(start_s * SAMPLE_RATE_HZ),
                math.inf if end_s is None else round(end_s * SAMPLE_RATE_HZ),
                max(1, round(settings.segment_s * SAMPLE_RATE_HZ)),
            ):
                if len(samples):
                    yield Segment(start / SAMPLE_RATE_HZ, 0.0, (), samples, math.nan)
                    num_segments += 1
    if num_segments == 0:
        raise RejectedError("empty", f"nothing to decode from {start_s:g} s on")
