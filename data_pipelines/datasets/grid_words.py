"""GRID words: one spoken word per clip, the mouth of one speaker (18 words).

The list is manifest.csv (columns `file`, `label` and `split`, of others no use is made)
and the clips are where it says. Listed clips without a file are missing.
"""

from pathlib import Path

from data_pipelines.datasets.collection import Collection
from data_pipelines.manifest import Manifest


def build(data_dir: Path, seed: int) -> Manifest:
    """The clips as they are; `seed` has no effect.

    Raises:
      UserError: no list, or no clip.
    """
    del seed
    collection = Collection(data_dir, "GRID words: manifest.csv and clips/")
    list_path = collection.root / "manifest.csv"
    if "manifest.csv" not in collection.files:
        raise collection.lacks("manifest.csv")
    files = set(collection.media)
    class_names = set()
    for line, row in collection.table(list_path, "file", "label", "split"):
        if row["split"] not in ("train", "test") or not row["label"]:
            found = f"label {row['label']!r} and split {row['split']!r}"
            collection.problem(line, found, "a word, and train or test")
            continue
        class_names.add(row["label"])
        path = row["file"] if row["file"] in files else None
        collection.add_listed(
            line, path, row["file"], label=row["label"], split=row["split"]
        )
    return collection.manifest(class_names)
