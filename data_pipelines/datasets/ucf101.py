"""UCF101: 13,320 clips of 101 actions, in three official train/test splits.

The tree is that of the owners' archives, `UCF-101/<Class>/v_<Class>_gXX_cXX.avi` and
`ucfTrainTestlist/`: classInd.txt (`number class`), trainlist01.txt to 03 (`Class/file
number`) and testlist01.txt to 03 (`Class/file`). Lists and clips may lie anywhere below
the folder, and case does not matter: the owners write both HandstandPushups (classInd,
folder) and HandStandPushups (files). Labels are as in classInd.txt.

All clips are in split `videos`; `partitions` says what each is in splits 1, 2 and 3.
Listed clips without a file are missing, as UCF-101/<Class>/<file>.
"""

from pathlib import Path

from data_pipelines.datasets.collection import Collection, index, read_lines, stem
from data_pipelines.datasets.official_splits import SPLITS, OfficialSplits
from data_pipelines.manifest import Manifest


def build(data_dir: Path, seed: int) -> Manifest:
    """The clips of the six lists; `seed` has no effect.

    Raises:
      UserError: a list is missing or there twice, or no clip is there.
    """
    del seed
    collection = Collection(data_dir, "UCF101: UCF-101/ and ucfTrainTestlist/")
    lists = collection.lists(
        r"(classInd|(?:train|test)list0[123])\.txt", lambda match: match[1].lower()
    )
    parts = [(split, part) for split in SPLITS for part in ("train", "test")]
    for name in ("classInd", *(f"{part}list{split:02d}" for split, part in parts)):
        if name.lower() not in lists:
            raise collection.lacks(f"{name}.txt")
    numbers = _class_numbers(collection, lists["classind"])
    class_names = {name.lower(): name for name in numbers.values()}
    clips = OfficialSplits(collection)
    for split, part in parts:
        for line in read_lines(lists[f"{part}list{split:02d}"]):
            name, *number = line.text.split()
            label = class_names.get(name.split("/")[0].lower())
            if label is None or (number and numbers.get(number[0]) != label):
                expected = "Class/file, and the class or its number as in classInd.txt"
                collection.problem(line, repr(line.text), expected)
                continue
            clips.add(line, _key(name), f"UCF-101/{name}", label, split, part)
    clips.gather(index(collection.media, _key))
    return collection.manifest(class_names.values())


def _key(path: str) -> str:
    """What tells a clip from others: its name, which holds its class."""
    return stem(path).lower()


def _class_numbers(collection: Collection, list_path: Path) -> dict[str, str]:
    """Class names by the numbers that the training lists have."""
    numbers = {}
    for line in read_lines(list_path):
        match line.text.split():
            case [number, name] if number.isdecimal():
                numbers[number] = name
            case _:
                collection.problem(line, repr(line.text), "number and class")
    return numbers
