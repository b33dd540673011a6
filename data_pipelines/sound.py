"""The sound of a media file as mono samples at 16 kHz, placed by time stamps."""

import collections
import math
from collections.abc import Iterable, Iterator

import av
import numpy as np
from jaxtyping import Int16

from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.streams import (
    MAX_GAP_S,
    RejectedError,
    decode_stream,
    find_stream,
    header_start_s,
    open_media,
)

# Time stamps of sound are rounded to as much as a few milliseconds; a jump of more
# than this is a real gap.
MAX_JITTER_S = 0.05

Chunk = tuple[int, Int16[np.ndarray, " samples"]]


class Sound:
    """The samples of a source at 16 kHz, decoded as they are asked for.

    Holds those that a cut may still want, however long the source is.

    Args:
      chunks: index of the first sample and samples, as `read_sound` yields them.

    Attributes:
      fault: what ended the chunks early, once they are used up.
    """

    def __init__(self, chunks: Iterable[Chunk]):
        self.fault: RejectedError | None = None
        self._chunks = iter(chunks)
        self._held: collections.deque[Chunk] = collections.deque()
        self._end = 0
        self._is_read = False

    def cut(self, start: int, num_samples: int) -> Int16[np.ndarray, " samples"]:
        """Samples from index `start` on: zeros in gaps, nothing where none is there.

        What lies before `start` is forgotten: cuts come in order.

        Raises:
          RejectedError: the fault in the sound comes before the end of the cut.
        """
        self._read_until(start + num_samples)
        if self.fault is not None and start + num_samples > self._end:
            raise self.fault
        while self._held and self._held[0][0] + len(self._held[0][1]) <= start:
            self._held.popleft()
        samples = np.zeros(num_samples, np.int16)
        found = False
        for at, chunk in self._held:
            low = max(start, at)
            high = min(start + num_samples, at + len(chunk))
            if low < high:
                samples[low - start : high - start] = chunk[low - at : high - at]
                found = True
        return samples if found else samples[:0]

    def segments(
        self, first: int, last: float, length: int
    ) -> Iterator[tuple[int, Int16[np.ndarray, " samples"]]]:
        """Start and samples of each segment of a source without pictures.

        Args:
          first: index of the first sample that is wanted.
          last: index after the last one, or infinity.
          length: samples per segment. What remains makes a segment of its own from
            half that length on, otherwise it stays with the one before.

        Raises:
          RejectedError: the fault in the sound, in the place of the last segment.
        """
        self._read_until(first + 1)
        if not self._held:
            if self.fault is not None:
                raise self.fault
            return
        start = max(first, self._held[0][0])
        while True:
            self._read_until(math.ceil(start + 1.5 * length))
            left = min(self._end, last) - start
            # Up to half a segment stays with the last one, but not with a faulty one.
            if left < (length if self.fault is not None else 1.5 * length):
                break
            yield start, self.cut(start, length)
            start += length
        if self.fault is not None:
            raise self.fault
        if left > 0:
            yield start, self.cut(start, int(left))

    def _read_until(self, end: int) -> None:
        while self._end < end and not self._is_read:
            try:
                at, samples = next(self._chunks)
            except StopIteration:
                self._is_read = True
            except RejectedError as fault:
                self._is_read, self.fault = True, fault
            else:
                self._held.append((at, samples))
                self._end = max(self._end, at + len(samples))


def read_sound(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    first_s: float,
    last_s: float,
    origin_s: float,
) -> Iterator[Chunk]:
    """Decodes an interval of sound, down to one channel at 16 kHz.

    Args:
      container: of the stream; nothing else may read it.
      stream: what to decode.
      first_s: start of the interval on the file's own clock, seconds.
      last_s: its end.
      origin_s: the instant of sample 0 on that clock.

    Yields:
      Index of the first sample, and samples: a new index where the time stamps jump.

    Raises:
      RejectedError: the stream is broken; what came before is whole.
    """
    resampler: av.AudioResampler | None = None
    at, expected_s, run_format = 0, first_s, None

    def placed(frames: list[av.AudioFrame]) -> Iterator[Chunk]:
        nonlocal at
        for frame in frames:
            samples = frame.to_ndarray()[0]
            yield at, samples
            at += len(samples)

    fault: RejectedError | None = None
    # Half a second earlier: the first frames after a seek lack their predecessors.
    decoded = decode_stream(container, stream, first_s - 0.5)
    while True:
        try:
            frame = next(decoded, None)
            if frame is None:
                break
            at_s = expected_s if frame.time is None else frame.time
            if at_s >= last_s:
                break
            _check_gap(at_s - expected_s, expected_s)
            _check_finite(frame, at_s)
        except RejectedError as error:
            fault = error
            break
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if abs(at_s - expected_s) > MAX_JITTER_S or frame_format != run_format:
            if resampler is not None:
                yield from placed(resampler.resample(None))
            resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
            at, run_format = round((at_s - origin_s) * SAMPLE_RATE_HZ), frame_format
            expected_s = at_s
        yield from placed(resampler.resample(frame))
        expected_s += frame.samples / frame.sample_rate
    if resampler is not None:
        yield from placed(resampler.resample(None))
    if fault is not None:
        raise fault


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
        sound = Sound(read_sound(container, stream, origin_s, math.inf, origin_s))
        # One segment, however long.
        found = [samples for _, samples in sound.segments(0, math.inf, 2**62)]
    return found[0] if found else np.zeros(0, np.int16)


def _check_gap(gap_s: float, at_s: float) -> None:
    if gap_s > MAX_GAP_S:
        raise RejectedError(
            "corrupt", f"audio stream jumps by {gap_s:g} s at {at_s:.3f} s"
        )


def _check_finite(frame: av.AudioFrame, at_s: float) -> None:
    if frame.format.name.startswith(("flt", "dbl")) and not np.all(
        np.isfinite(frame.to_ndarray())
    ):
        raise RejectedError("corrupt", f"audio stream holds NaN or inf at {at_s:.3f} s")
