"""Kinetics-400, -600 and -700: clips of about ten seconds, one human action each.

The lists are the owners' CSV files: train.csv, val.csv (or validate.csv) and test.csv,
or the same with `kinetics_`, `kinetics-400_`, `k600_` and the like in front, anywhere
below the folder. Columns: `youtube_id`, `time_start`, `time_end` (whole seconds), and
`label`, which the rows of a test list may lack; others (`split`, `is_cc`) are not read.

The clips are `<youtube_id>_<start>_<end>.<suffix>`, as ActivityNet's crawler and the
CVD Foundation's archives name them (000012_000022 or 12_22), anywhere below the folder,
such as train/<label>/ or train/. A file below a folder `replacement*` goes before one
of the same name elsewhere: so CVDF distributes mended copies of corrupt clips.

Splits are `train`, `val` and `test`, one per list that is there. Listed clips without a
file are missing, as <split>/<label>/<id>_<start>_<end>.mp4.
"""

from pathlib import Path

from data_pipelines.datasets import youtube
from data_pipelines.datasets.collection import Collection, whole_number
from data_pipelines.manifest import Manifest
from xdc_jax.errors import UserError

_LIST = r"(?:(?:k|kinetics)[-_]?[\d_]*[-_])?(train|val|validate|validation|test)\.csv"


def build(data_dir: Path, seed: int, *, num_classes: int) -> Manifest:
    """The clips of the lists that are there.

    Args:
      data_dir: the folder of one of the three data sets.
      seed: has no effect.
      num_classes: 400, 600 or 700.

    Raises:
      UserError: no list, two of one split, one of a larger data set, or no clip.
    """
    del seed
    collection = Collection(
        data_dir, "Kinetics: train.csv, val.csv or test.csv and the clips they list"
    )
    lists = collection.lists(_LIST, lambda match: _split(match[1]))
    if not lists:
        raise collection.lacks("train.csv, val.csv or test.csv")
    clips = youtube.by_id(sorted(collection.media, key=lambda p: not _is_mended(p)))
    class_names = set()
    for split, list_path in sorted(lists.items()):
        for line, row in collection.table(
            list_path, "youtube_id", "time_start", "time_end"
        ):
            youtube_id, label = row["youtube_id"], row.get("label", "")
            start_s = whole_number(row["time_start"])
            end_s = whole_number(row["time_end"])
            if not youtube.is_id(youtube_id):
                collection.problem(line, repr(youtube_id), "a YouTube id")
                continue
            if start_s is None or end_s is None or end_s <= start_s:
                found = f"{row['time_start']!r} to {row['time_end']!r}"
                collection.problem(line, found, "two whole seconds, the later second")
                continue
            if not label and split != "test":
                collection.problem(line, "no label", "one")
                continue
            class_names.update({label} - {""})
            folder = f"{split}/{label}" if label else split
            collection.add_listed(
                line,
                youtube.clip_from(clips.get(youtube_id, ()), start_s),
                f"{folder}/{youtube_id}_{start_s:06d}_{end_s:06d}.mp4",
                label=label,
                split=split,
            )
    if len(class_names) > num_classes:
        raise UserError(
            f"{', '.join(map(str, lists.values()))}: found {len(class_names)} classes, "
            f"expected at most {num_classes}. Give --dataset the one of these lists."
        )
    return collection.manifest(class_names)


def _is_mended(path: str) -> bool:
    return any(name.startswith("replacement") for name in path.lower().split("/")[:-1])


def _split(name: str) -> str:
    return "val" if name.lower().startswith("val") else name.lower()
