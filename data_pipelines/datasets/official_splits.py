"""Clips that are in the train or test part of each of three official splits."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from data_pipelines.datasets.collection import Collection, Line

SPLITS = (1, 2, 3)


class _Clip(NamedTuple):
    line: Line
    path: str
    label: str
    parts: dict[int, str]


class OfficialSplits:
    """What the lists of all splits say of each clip."""

    def __init__(self, collection: Collection):
        self._collection = collection
        self._clips: dict[Hashable, _Clip] = {}

    def add(
        self, line: Line, key: Hashable, path: str, label: str, split: int, part: str
    ) -> None:
        """Takes note of a line.

        Args:
          line: where it stands.
          key: what tells the clip from others, in every list.
          path: where the file should lie.
          label: class name.
          split: 1, 2 or 3.
          part: `train`, `test`, or `-` for neither.
        """
        clip = self._clips.setdefault(key, _Clip(line, path, label, {}))
        if clip.parts.setdefault(split, part) != part:
            found = f"{path} in {part} and in {clip.parts[split]}"
            self._collection.problem(line, found, f"it in one part of split {split}")

    def gather(self, files: Mapping[Hashable, str]) -> None:
        """Adds one row per clip, in split `videos`; `files` are paths by key."""
        for key, clip in self._clips.items():
            self._collection.add_listed(
                clip.line,
                files.get(key),
                clip.path,
                label=clip.label,
                split="videos",
                partitions="/".join(clip.parts.get(split, "-") for split in SPLITS),
            )
