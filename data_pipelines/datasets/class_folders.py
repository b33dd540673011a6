"""Class folders: `<split>/<class>/<file>`, or `<class>/<file>`, which is all `train`.

The first where every folder at the top that has media files is called train, val (or
validate, validation) or test, in any case. Files may lie deeper. A file that is in no
class folder is a problem; there is no list, so nothing is missing.
"""

from pathlib import Path

from data_pipelines.datasets.collection import Collection
from data_pipelines.manifest import Manifest

_SPLITS = {
    "train": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
}


def build(data_dir: Path, seed: int) -> Manifest:
    """Every media file in a class folder; `seed` has no effect.

    Raises:
      UserError: there is none.
    """
    del seed
    collection = Collection(data_dir, "<split>/<class>/<file> or <class>/<file>")
    tops = {path.split("/")[0] for path in collection.media if "/" in path}
    has_splits = all(top.lower() in _SPLITS for top in tops)
    for path in collection.media:
        folders = path.split("/")[:-1]
        split = _SPLITS[folders.pop(0).lower()] if has_splits and folders else "train"
        if folders:
            collection.add(path, label=folders[0], split=split)
        else:
            collection.problem(collection.root / path, "a file", "it in a class folder")
    return collection.manifest()
