"""THUMOS14: untrimmed sports videos, with the times of the actions of 20 classes.

The lists are the owners' temporal annotations, `<Class>_val.txt` and `<Class>_test.txt`
(from TH14_Temporal_annotations_validation and ..._Test), whose lines are a video, start
and end in seconds. The videos are `video_validation_0000001.mp4` and
`video_test_0000001.mp4`. Both may lie anywhere below the folder.

Rows are the videos that have an action of the 20 classes; those marked as ambiguous
(`Ambiguous_val.txt`) do not count. Splits are `val`, on which detectors are trained,
and `test`: those whose lists are there. A video whose actions are all of one class has
that label, one with several classes has none (every CliffDiving is a Diving too, so
CliffDiving labels no video). The times are checked and are not in the rows: a video is
taken whole. Listed videos without a file are missing, as validation/<video>.mp4 or
test/<video>.mp4.
"""

import re
from pathlib import Path

from data_pipelines.datasets.collection import (
    Collection,
    Line,
    index,
    read_lines,
    stem,
)
from data_pipelines.manifest import Manifest, parse_seconds

CLASSES = (
    "BaseballPitch",
    "BasketballDunk",
    "Billiards",
    "CleanAndJerk",
    "CliffDiving",
    "CricketBowling",
    "CricketShot",
    "Diving",
    "FrisbeeCatch",
    "GolfSwing",
    "HammerThrow",
    "HighJump",
    "JavelinThrow",
    "LongJump",
    "PoleVault",
    "Shotput",
    "SoccerPenalty",
    "TennisSwing",
    "ThrowDiscus",
    "VolleyballSpiking",
)
_FOLDERS = {"val": "validation", "test": "test"}


def build(data_dir: Path, seed: int) -> Manifest:
    """The videos that the annotations name; `seed` has no effect.

    Raises:
      UserError: no annotations, those of a class are missing or there twice, or no
        video is there.
    """
    del seed
    collection = Collection(
        data_dir, "THUMOS14: the 20 files <Class>_val.txt or _test.txt, and the videos"
    )
    lists = collection.lists(
        rf"({'|'.join(CLASSES)})_(val|test)\.txt",
        lambda match: (match[2].lower(), match[1].lower()),
    )
    if not lists:
        raise collection.lacks("<Class>_val.txt or <Class>_test.txt")
    videos = index(collection.media, lambda path: stem(path).lower())
    for split in sorted({split for split, _ in lists}):
        classes: dict[str, set[str]] = {}
        listed: dict[str, Line] = {}
        for class_name in CLASSES:
            if (split, class_name.lower()) not in lists:
                raise collection.lacks(f"{class_name}_{split}.txt")
            for line in read_lines(lists[split, class_name.lower()]):
                video = _video(line.text, _FOLDERS[split])
                if video is None:
                    expected = f"video_{_FOLDERS[split]}_NUMBER, start_s, end_s"
                    collection.problem(line, repr(line.text), expected)
                    continue
                listed.setdefault(video, line)
                classes.setdefault(video, set()).add(class_name)
        for video, line in listed.items():
            names = tuple(classes[video])
            collection.add_listed(
                line,
                videos.get(video.lower()),
                f"{_FOLDERS[split]}/{video}.mp4",
                label=names[0] if len(names) == 1 else "",
                split=split,
            )
    return collection.manifest(CLASSES)


def _video(text: str, folder: str) -> str | None:
    """The video that a line names; None where the line is not what it should be."""
    match text.split():
        case [video, start, end] if re.fullmatch(rf"video_{folder}_\d+", video):
            start_s, end_s = parse_seconds(start), parse_seconds(end)
            if start_s is not None and end_s is not None and start_s < end_s:
                return video
    return None
