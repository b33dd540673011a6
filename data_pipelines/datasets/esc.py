"""ESC-50 and its ten-class part ESC-10: environmental sounds in five official folds.

The tree is that of the owners' repository: meta/esc50.csv (filename, fold, target,
category, esc10, src_file, take) and audio/<filename>. List and recordings may lie
anywhere below the folder, and a recording may have another suffix than its list says,
such as flac. ESC-10 is a list of its own, esc10.csv, or else the rows of esc50.csv that
say so.

All recordings are in split `train`, with their fold, 1 to 5. Listed ones without a file
are missing, as audio/<filename>.
"""

from pathlib import Path

from data_pipelines.datasets.collection import Collection, index, stem
from data_pipelines.manifest import Manifest

_FOLDS = ("1", "2", "3", "4", "5")


def build_esc50(data_dir: Path, seed: int) -> Manifest:
    """All recordings; `seed` has no effect.

    Raises:
      UserError: no list or two, or no recording.
    """
    del seed
    return _build(data_dir, ("esc50.csv",), ("true", "false"))


def build_esc10(data_dir: Path, seed: int) -> Manifest:
    """The recordings of ESC-10; `seed` has no effect.

    Raises:
      UserError: no list or two, or no recording.
    """
    del seed
    return _build(data_dir, ("esc10.csv", "esc50.csv"), ("true",))


def _build(data_dir: Path, names: tuple[str, ...], kept: tuple[str, ...]) -> Manifest:
    """The rows of the first of the lists that is there, with these in column esc10."""
    what = " or ".join(f"meta/{name}" for name in names)
    collection = Collection(data_dir, f"{what} and the recordings in audio/")
    lists = collection.lists(r"(esc[15]0\.csv)", lambda match: match[1].lower())
    list_path = next((lists[name] for name in names if name in lists), None)
    if list_path is None:
        raise collection.lacks(what)
    recordings = index(collection.media, stem)
    class_names = set()
    for line, row in collection.table(
        list_path, "filename", "fold", "category", "esc10"
    ):
        is_esc10 = row["esc10"].lower()
        if (
            row["fold"] not in _FOLDS
            or not row["category"]
            or is_esc10 not in ("true", "false")
        ):
            expected = "a fold from 1 to 5, a category, and True or False for esc10"
            collection.problem(line, repr(line.text), expected)
            continue
        if is_esc10 not in kept:
            continue
        class_names.add(row["category"])
        collection.add_listed(
            line,
            recordings.get(stem(row["filename"])),
            f"audio/{row['filename']}",
            label=row["category"],
            fold=int(row["fold"]),
        )
    return collection.manifest(class_names)
