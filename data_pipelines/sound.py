"""The sound of a media file as mono samples at 16 kHz, placed by time stamps."""

import math
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import Int16

from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.streams import (
    RejectedError,
    decode_stream,
    find_stream,
    header_start_s,
    open_media,
)

# Time stamps of sound are rounded to as much as a few milliseconds; a jump of more
# than this is a real gap.
MAX_JITTER_S = 0.05


class Sound:
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
        """Places samples whose first one belongs to `at_s` on the file's clock."""
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
        """Start and number of samples of each segment of a source without pictures.

        Raises:
          RejectedError: the fault in the sound, in the place of the last segment.
        """
        if not self._runs:
            return
        first = round((first_s - self._origin_s) * SAMPLE_RATE_HZ)
        start = max(first, min(run_start for run_start, _ in self._runs))
        end = self.end
        if last_s < math.inf:
            end = min(end, round((last_s - self._origin_s) * SAMPLE_RATE_HZ))
        length = max(1, round(segment_s * SAMPLE_RATE_HZ))
        # Up to half a segment stays with the last one, but not with one that is faulty.
        room = length if self.fault is not None else 1.5 * length
        while end - start >= room:
            yield start, length
            start += length
        if self.fault is not None:
            raise self.fault
        if end > start:
            yield start, end - start


def read_sound(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    first_s: float,
    last_s: float,
    sound: Sound,
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
        for frame in decode_stream(container, stream, first_s - 0.5):
            at_s = expected_s if frame.time is None else frame.time
            if at_s >= last_s:
                break
            _check_finite(frame, at_s)
            frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            jump_s = abs(at_s - expected_s)
            if jump_s > MAX_JITTER_S or frame_format != run_format:
                end_run()
                resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
                run_start_s, run_format = at_s, frame_format
                expected_s = at_s
            run.extend(_samples(resampler.resample(frame)))
            expected_s += frame.samples / frame.sample_rate
    except RejectedError as fault:
        sound.fault = fault
    end_run()


def read_samples(location: str) -> Int16[np.ndarray, " samples"]:
    """All of the sound of a file, mono at 16 kHz, from its first sample on.

    Raises:
      RejectedError: it has no sound, or broken sound.
    """
    with open_media(location) as container:
        stream = find_stream(container, "audio")
        if stream is None:
            raise RejectedError("no streams", "no sound")
        origin_s = header_start_s(stream)
        sound = Sound(origin_s)
        read_sound(container, stream, origin_s, math.inf, sound)
    return sound.cut(0, sound.end)


def _samples(frames: list[av.AudioFrame]) -> list[np.ndarray]:
    return [frame.to_ndarray()[0] for frame in frames]


def _check_finite(frame: av.AudioFrame, at_s: float) -> None:
    if frame.format.name.startswith(("flt", "dbl")) and not np.all(
        np.isfinite(frame.to_ndarray())
    ):
        raise RejectedError("corrupt", f"audio stream holds NaN or inf at {at_s:.3f} s")
