"""Opening media files and decoding their streams (PyAV), with named faults."""

import contextlib
import os
from collections.abc import Iterator

import av

# Longer than this without a picture or a sound, the time stamps are not to be believed:
# a few wrong bits would make years of still pictures.
MAX_GAP_S = 600.0


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


def open_media(location: str) -> av.container.InputContainer:
    """Opens a path, or a URL that fsspec opens (gs:// needs gcsfs).

    Raises:
      RejectedError: `missing` or `unreadable`.
    """
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


def find_stream(container: av.container.InputContainer, kind: str) -> av.stream.Stream:
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


def find_streams(
    container: av.container.InputContainer,
) -> dict[str, av.stream.Stream]:
    """`find_stream` of `video` and `audio`, without those that are missing.

    Raises:
      RejectedError: `unsupported codec`, or `no streams`: there is neither.
    """
    found = {kind: find_stream(container, kind) for kind in ("video", "audio")}
    found = {kind: stream for kind, stream in found.items() if stream is not None}
    kinds = [stream.type for stream in container.streams]
    if not found and {"audio", "video"} & set(kinds):
        raise RejectedError(
            "unsupported codec", f"no decoder for the streams {', '.join(kinds)}"
        )
    if not found:
        raise RejectedError("no streams", f"found {', '.join(kinds) or 'none'}")
    return found


def header_start_s(stream: av.stream.Stream) -> float:
    """When the stream starts on the file's own clock, as its header says."""
    return float((stream.start_time or 0) * stream.time_base)


def decode_stream(
    container: av.container.InputContainer, stream: av.stream.Stream, from_s: float
) -> Iterator[av.frame.Frame]:
    """Frames of a stream, from `from_s` or a little earlier on.

    Raises:
      RejectedError: `corrupt`. Only packets before the first whole frame may be
        broken: so starts a stream that was cut out of a longer one.
    """
    if from_s > header_start_s(stream):
        with contextlib.suppress(av.FFmpegError):  # What cannot seek starts at 0.
            container.seek(round(from_s / stream.time_base), stream=stream)
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
