"""HMDB51: 6,766 clips of 51 actions, in three official train/test splits.

The tree is that of the owners' archives once all are unpacked: `<class>/<name>.avi` and
`testTrainMulti_7030_splits/<class>_test_split<1, 2 or 3>.txt`, whose lines are a name
and 1 (training), 2 (test) or 0 (neither). Both may lie anywhere below the folder, as
long as a clip is in the folder of its class; case does not matter. Names hold
characters such as `#`, `(`, `;`, `&`, `!` and `[`.

All clips are in split `videos`; `partitions` says what each is in splits 1, 2 and 3.
Listed clips without a file are missing, as <class>/<name>.avi.
"""

from pathlib import Path

from data_pipelines.datasets.collection import Collection, index, read_lines, stem
from data_pipelines.datasets.official_splits import SPLITS, OfficialSplits
from data_pipelines.manifest import Manifest

_PARTS = {"0": "-", "1": "train", "2": "test"}


def build(data_dir: Path, seed: int) -> Manifest:
    """The clips of the lists; `seed` has no effect.

    Raises:
      UserError: a class lacks one of its three lists or has one twice, or no clip is
        there.
    """
    del seed
    collection = Collection(
        data_dir, "HMDB51: one folder per class and testTrainMulti_7030_splits/"
    )
    lists = collection.lists(
        r"(.+)_test_split([123])\.txt", lambda match: (match[1], int(match[2]))
    )
    if not lists:
        raise collection.lacks("<class>_test_split1.txt")
    class_names = sorted({class_name for class_name, _ in lists})
    clips = OfficialSplits(collection)
    for class_name in class_names:
        for split in SPLITS:
            if (class_name, split) not in lists:
                raise collection.lacks(f"{class_name}_test_split{split}.txt")
            for line in read_lines(lists[class_name, split]):
                match line.text.rsplit(maxsplit=1):
                    case [name, ("0" | "1" | "2") as part]:
                        path = f"{class_name}/{name}"
                        clips.add(
                            line, _key(path), path, class_name, split, _PARTS[part]
                        )
                    case _:
                        collection.problem(line, repr(line.text), "name and 0, 1 or 2")
    clips.gather(index(collection.media, _key))
    return collection.manifest(class_names)


def _key(path: str) -> tuple[str, str]:
    """What tells a clip from others: class folder and name, in small letters."""
    return path.lower().rpartition("/")[0].rpartition("/")[2], stem(path).lower()
