"""Media files that are named by a YouTube id and, mostly, by a time."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_ID = r"[A-Za-z0-9_-]{11}"
_TIME = r"\d+(?:\.\d+)?"
# No name reads in two ways: what follows the 11 characters begins with `_`.
_NAME = re.compile(rf"(Y?)({_ID})(?:_({_TIME})(?:_{_TIME})?)?")


class Named(NamedTuple):
    """What a name says.

    Attributes:
      path: the file.
      start: the first number in the name; None where it has none.
      is_clip: whether it holds the clip alone and not the whole video.
    """

    path: str
    start: float | None
    is_clip: bool


def is_id(text: str) -> bool:
    """Whether this is a YouTube id: 11 letters, digits, `_` or `-`."""
    return re.fullmatch(_ID, text) is not None


def by_id(paths: Iterable[str]) -> dict[str, list[Named]]:
    """Files by YouTube id, each list in the order of `paths`; other names are left out.

    Clips are `ID_START` or `ID_START_END`, with or without leading zeros, a fraction or
    a `Y` in front, and `YID`; `ID` alone is a whole video.
    """
    found: dict[str, list[Named]] = {}
    for path in paths:
        name = path.rpartition("/")[2].rpartition(".")[0]
        if match := _NAME.fullmatch(name):
            prefix, youtube_id, start = match.groups()
            named = Named(path, start and float(start), bool(prefix or start))
            found.setdefault(youtube_id, []).append(named)
    return found


def clip_from(files: Iterable[Named], start_s: float) -> str | None:
    """The clip whose name has this start, in seconds, whole seconds or ms."""
    starts = (start_s, int(start_s), 1000 * start_s)
    return next((file.path for file in files if file.start in starts), None)
