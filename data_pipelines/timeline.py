"""When the streams of a media file have something, found without decoding it."""

import bisect
import contextlib
import dataclasses
import math

import av

from data_pipelines.streams import find_streams, header_start_s, open_media

# The rate of a file that does not say its own: the most common one.
FALLBACK_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The packets of one stream, on the file's own clock.

    Attributes:
      start_s: when the first one starts, seconds.
      end_s: when the last one ends.
      fps: packets per second, on average.
      key_frames_s: where decoding can start, ascending; empty where a packet has no
        time stamp: a seek would lose count of time.
    """

    start_s: float
    end_s: float
    fps: float
    key_frames_s: tuple[float, ...]

    def key_frame(self, instant_s: float) -> float:
        """The last key frame up to an instant, -inf where there is none."""
        index = bisect.bisect_right(self.key_frames_s, instant_s)
        return self.key_frames_s[index - 1] if index else -math.inf


def scan(location: str) -> dict[str, Timeline]:
    """Reads the packets of the streams that a player would choose.

    Args:
      location: a path, or a URL that fsspec opens.

    Returns:
      `video` and `audio` -> timeline; without those that the file lacks, or of which
      it has no packet.

    Raises:
      RejectedError: as `media.decode`, but for `corrupt` and `empty`.
    """
    with open_media(location) as container:
        streams = find_streams(container)
        kinds = {stream.index: kind for kind, stream in streams.items()}
        packets = {kind: [] for kind in streams}
        with contextlib.suppress(av.FFmpegError):  # Decoding will tell what is wrong.
            for packet in container.demux(list(streams.values())):
                if packet.size and not packet.is_discard:
                    packets[kinds[packet.stream_index]].append(_described(packet))
        return {
            kind: _timeline(streams[kind], found)
            for kind, found in packets.items()
            if found
        }


def frame_rate(stream: av.VideoStream) -> float:
    """Pictures per second as the file says, on average."""
    return float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)


def _described(packet: av.Packet) -> tuple[float | None, float, bool]:
    """When a packet starts, None where it does not say; how long it is; if a key."""
    stamp = packet.dts if packet.pts is None else packet.pts
    at_s = None if stamp is None else float(stamp * packet.time_base)
    return at_s, float((packet.duration or 0) * packet.time_base), packet.is_keyframe


def _timeline(
    stream: av.stream.Stream, packets: list[tuple[float | None, float, bool]]
) -> Timeline:
    expected_s = end_s = header_start_s(stream)
    fallback_s = 1 / frame_rate(stream) if stream.type == "video" else 0.0
    starts_s, stamped = [], True
    for at_s, duration_s, _ in packets:
        stamped &= at_s is not None
        at_s = expected_s if at_s is None else at_s
        expected_s = at_s + (duration_s or fallback_s)
        starts_s.append(at_s)
        end_s = max(end_s, expected_s)
    start_s = max(min(starts_s), header_start_s(stream))
    keys_s = [at_s for at_s, (_, _, key) in zip(starts_s, packets, strict=True) if key]
    return Timeline(
        start_s=start_s,
        end_s=end_s,
        fps=len(packets) / max(end_s - start_s, 1e-3),
        key_frames_s=tuple(sorted(keys_s)) if stamped else (),
    )
