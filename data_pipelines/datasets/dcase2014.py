"""DCASE acoustic scenes (2013 challenge): 30-second recordings of ten scenes.

What papers call DCASE2014 is the scene classification task of the IEEE AASP challenge
of 2013. Its two archives unpack to `scenes_stereo/`, the public development set, and
`scenes_stereo_testset/`, the evaluation set released later; each has ten recordings of
every scene, named by it: busystreet01.wav. Sources: the README of the development set
for its names and classes; dcase_util and CrissCross's loader for the evaluation set,
whose names are alike. We have not seen the archives themselves.

A recording is in split `test` where a folder below the given one, or its own name,
begins with `test_` or ends in `testset`, and in `train` otherwise: training on the one
set and testing on the other is how CrissCross does it; that the paper did so is
unverified. There is no list, so nothing is missing; a scene with another number of
recordings than ten is a problem.
"""

import collections
import re
from pathlib import Path

from data_pipelines.datasets.collection import Collection, stem
from data_pipelines.manifest import Manifest

SCENES = (
    "bus",
    "busystreet",
    "office",
    "openairmarket",
    "park",
    "quietstreet",
    "restaurant",
    "supermarket",
    "tube",
    "tubestation",
)
_NUM_RECORDINGS = 10
_NAME = re.compile(rf"(test_)?({'|'.join(SCENES)})\d\d", re.IGNORECASE)


def build(data_dir: Path, seed: int) -> Manifest:
    """All recordings named by a scene; `seed` has no effect.

    Raises:
      UserError: there is none.
    """
    del seed
    collection = Collection(
        data_dir, "DCASE scenes: scenes_stereo/*.wav and scenes_stereo_testset/*.wav"
    )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for path in collection.media:
        if match := _NAME.fullmatch(stem(path)):
            split = "test" if _is_test(path) else "train"
            counts[split, match[2].lower()] += 1
            collection.add(path, label=match[2].lower(), split=split)
    for split in sorted({split for split, _ in counts}):
        for scene in SCENES:
            if (count := counts[split, scene]) != _NUM_RECORDINGS:
                collection.problem(
                    collection.root,
                    f"{count} recordings of {scene} in {split}",
                    str(_NUM_RECORDINGS),
                )
    return collection.manifest(SCENES)


def _is_test(path: str) -> bool:
    return any(
        name.startswith("test_") or name.endswith("testset")
        for name in path.lower().split("/")
    )
