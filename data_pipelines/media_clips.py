"""The wanted clips of a media file, decoded where they lie and nowhere else (PyAV)."""

import collections
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int16, UInt8

from data_pipelines.clip_spec import ClipSpec
from data_pipelines.manifest import Row
from data_pipelines.pictures import pictures_at
from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.sound import Sound, read_sound
from data_pipelines.streams import (
    RejectedError,
    find_stream,
    open_media,
)
from data_pipelines.timeline import Timeline, scan
from data_pipelines.views import Views

# Spans of sound that lie nearer than this are read in one go.
MIN_GAP_S = 1.0


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known of a source before its clips are decoded.

    Attributes:
      start_s: where it, or the wanted interval, starts, in seconds from its first
        picture or sound.
      duration_s: length of its pictures there; of the sound where there are none.
      has: `video`, `audio`, or both.
      starts_s: when each clip starts, seconds from `start_s`.
    """

    start_s: float
    duration_s: float
    has: tuple[str, ...]
    starts_s: Float[np.ndarray, " clips"]


@dataclasses.dataclass(frozen=True)
class MediaClip:
    """A clip as `phases.sample` cuts it out of a record, but decoded.

    Attributes:
      video: the pictures, scaled to `short_side`; None where none are wanted or none
        are there.
      waveform: likewise.
    """

    video: UInt8[np.ndarray, "time height width 3"] | None
    waveform: Int16[np.ndarray, " samples"] | None


def read_clips(
    task: tuple[Row, ClipSpec, Views, tuple[str, ...]],
) -> Iterator[Found | MediaClip]:
    """What a worker does: yields what a source has, then each of its clips.

    Args:
      task: the source, what a clip is, which clips, and which modalities are wanted.

    Raises:
      RejectedError: as `media.decode`; or `decoder failed`.
    """
    row, spec, views, modalities = task
    try:
        yield from _read_clips(row, spec, views, modalities)
    except RejectedError:
        raise
    except Exception as error:  # One file must not end the job.
        reason = f"{type(error).__name__}: {error}"
        raise RejectedError("decoder failed", reason) from error


def _read_clips(
    row: Row, spec: ClipSpec, views: Views, modalities: tuple[str, ...]
) -> Iterator[Found | MediaClip]:
    timelines = scan(row.location)
    if not timelines:
        raise RejectedError("empty", "its streams hold nothing")
    origin_s = min(timeline.start_s for timeline in timelines.values())
    first_s = origin_s + row.start_s
    last_s = math.inf if row.end_s is None else origin_s + row.end_s
    start_s, end_s = first_s, first_s
    for kind in ("video", "audio"):
        if kind in timelines and start_s >= end_s:
            start_s = max(first_s, timelines[kind].start_s)
            end_s = min(last_s, timelines[kind].end_s)
    if start_s >= end_s:
        raise RejectedError("empty", f"nothing from {row.start_s:g} s on")
    has = tuple(
        kind
        for kind, timeline in timelines.items()
        if timeline.start_s < end_s and timeline.end_s > start_s
    )
    duration_s = end_s - start_s
    starts_s = views.starts(spec, duration_s)
    yield Found(start_s - origin_s, duration_s, has, starts_s)

    count = len(starts_s)
    videos, waveforms = iter([None] * count), iter([None] * count)
    if "video" in modalities and "video" in has:
        videos = _videos(row.location, timelines["video"], start_s + starts_s, spec)
    if "audio" in modalities and "audio" in has:
        waveforms = _waveforms(row.location, start_s, duration_s, starts_s, spec)
    for video, waveform in zip(videos, waveforms, strict=True):
        yield MediaClip(video, waveform)


def _videos(
    location: str,
    timeline: Timeline,
    starts_s: Float[np.ndarray, " clips"],
    spec: ClipSpec,
) -> Iterator[UInt8[np.ndarray, "time height width 3"]]:
    """The pictures of each clip; each picture is decoded once."""
    steps_s = np.arange(spec.num_frames) / spec.fps
    wanted = np.round(starts_s[:, None] + steps_s, 6)
    pictures = pictures_at(location, timeline, np.unique(wanted), spec.short_side)
    instants = iter(np.unique(wanted))
    held: collections.OrderedDict[float, np.ndarray] = collections.OrderedDict()
    for clip in wanted:
        while next(iter(held), clip[0]) < clip[0]:
            held.popitem(last=False)
        while next(reversed(held), -math.inf) < clip[-1]:
            held[next(instants)] = next(pictures)
        yield np.stack([held[instant] for instant in clip])


def _waveforms(
    location: str,
    start_s: float,
    duration_s: float,
    starts_s: Float[np.ndarray, " clips"],
    spec: ClipSpec,
) -> Iterator[Int16[np.ndarray, " samples"]]:
    """The sound of each clip; zeros outside the source, as in `phases.sample`."""
    firsts = [
        round(float(spec.audio_start(start, duration_s, np)) * SAMPLE_RATE_HZ)
        for start in starts_s
    ]
    end = round(duration_s * SAMPLE_RATE_HZ)
    groups: list[list[int]] = []
    gap = round(MIN_GAP_S * SAMPLE_RATE_HZ) + spec.num_samples
    for first in firsts:
        if groups and first - groups[-1][-1] <= gap:
            groups[-1].append(first)
        else:
            groups.append([first])
    for group in groups:
        low, high = max(group[0], 0), min(group[-1] + spec.num_samples, end)
        with open_media(location) as container:
            sound = Sound(
                read_sound(
                    container,
                    find_stream(container, "audio"),
                    start_s + low / SAMPLE_RATE_HZ,
                    start_s + high / SAMPLE_RATE_HZ,
                    start_s,
                )
            )
            for first in group:
                waveform = np.zeros(spec.num_samples, np.int16)
                inside = slice(max(first, 0), min(first + spec.num_samples, end))
                samples = sound.cut(inside.start, inside.stop - inside.start)
                at = inside.start - first
                waveform[at : at + len(samples)] = samples
                yield waveform
