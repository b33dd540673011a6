"""Feature data sets: written slice by slice, read as arrays, both as TFDS.

One slice of work becomes one TFRecord shard, under a temporary name until it is whole:
a second start goes on with the slices that are missing. The TFDS metadata come last;
with them the folder is complete.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import FeatureRows
from xdc_jax.files import write_atomically

DATASET_NAME = "features"
REJECTED_FILE = "rejected.csv"
SUFFIX = "_feature"
HOW_TO_READ = """
Reading the result, here split train into rows["video_feature"], float32 [clips, 512]:
  import tensorflow_datasets as tfds
  builder = tfds.builder_from_directory("features/ucf101")
  rows = tfds.as_numpy(builder.as_dataset("train", batch_size=-1))
"""

Rows = Mapping[str, Shaped[np.ndarray, "n ..."]]
Rejected = tuple[str, str, str]  # path, reason, detail


def shard_path(folder: Path, split: str, index: int, total: int) -> Path:
    """Returns the file of a slice."""
    return folder / f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{total:05d}"


def schema(shapes: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> Any:
    """Returns the TFDS features of a row.

    Args:
      shapes: name of each feature (`video_feature`, `audio_feature`) -> its shape.
      class_names: sorted class names; empty where there are no labels.
    """
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "video_id": tfds.features.Text(),
            "start_s": np.float32,
            "end_s": np.float32,
            "label": tfds.features.ClassLabel(names=class_names)
            if class_names
            else np.int64,
            "fold": np.int64,
            **{
                name: tfds.features.Tensor(shape=tuple(shape), dtype=np.float32)
                for name, shape in shapes.items()
            },
        }
    )


def write_slice(path: Path, rows: Rows, rejected: Sequence[Rejected] = ()) -> None:
    """Writes one shard, and beside it how many rows it has and what was rejected.

    The bytes are a function of the rows, so that slices of several runs are the same.

    Args:
      path: of the shard.
      rows: the keys of `schema`, one row per clip.
      rejected: the files that could not be read.
    """
    import tensorflow as tf

    report = {"rows": len(rows["label"]), "rejected": rejected}
    write_atomically(_report_path(path), json.dumps(report).encode())
    temporary = path.with_name(f".{path.name}.tmp")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for i in range(len(rows["label"])):
            writer.write(_serialize({key: value[i] for key, value in rows.items()}))
    temporary.replace(path)


def _serialize(row: Mapping[str, Any]) -> bytes:
    import tensorflow as tf

    feature = {}
    for key, value in row.items():
        if key == "video_id":
            text = str(value).encode(errors="surrogateescape")
            feature[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
        elif key in ("label", "fold"):
            feature[key] = tf.train.Feature(
                int64_list=tf.train.Int64List(value=[int(value)])
            )
        else:
            feature[key] = tf.train.Feature(
                float_list=tf.train.FloatList(value=np.ravel(value))
            )
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def reports(
    shards: Sequence[tuple[str, Path]],
) -> tuple[dict[str, list[int]], list[Rejected]]:
    """Returns split -> rows of each of its shards, and the files that were rejected.

    Args:
      shards: split and path of each shard, in order.
    """
    lengths: dict[str, list[int]] = {}
    rejected: list[Rejected] = []
    for split, path in shards:
        report = json.loads(_report_path(path).read_text())
        lengths.setdefault(split, []).append(report["rows"])
        rejected += map(tuple, report["rejected"])
    return lengths, rejected


def _report_path(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.json")


def write_rejected(folder: Path, rejected: Sequence[Rejected]) -> None:
    """Writes `rejected.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", "reason", "detail"), *rejected])
    data = text.getvalue().encode(errors="surrogateescape")
    write_atomically(folder / REJECTED_FILE, data)


def write_metadata(
    folder: Path,
    lengths: Mapping[str, Sequence[int]],
    shapes: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
) -> None:
    """Completes a folder of shards.

    Args:
      folder: the folder.
      lengths: split -> rows of each of its shards.
      shapes: see `schema`.
      class_names: sorted class names.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET_NAME, filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=schema(shapes, class_names),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=list(counts),
                num_bytes=sum(
                    shard_path(folder, split, i, len(counts)).stat().st_size
                    for i in range(len(counts))
                ),
                filename_template=template.replace(split=split),
            )
            for split, counts in lengths.items()
        ],
        check_data=False,
        description="Features of video and sound, extracted by xdc_jax.",
        disable_shuffling=True,
    )


def read(folder: str | Path) -> dict[str, dict[str, FeatureRows]]:
    """Reads a feature data set, of this program or of another, through TFDS.

    Every field whose name ends in `_feature` is a kind of features, flattened to one
    row per clip. `label` is needed; `fold` and `video_id` are optional.

    Returns:
      Kind (`video`, `audio`) -> split -> rows.

    Raises:
      UserError: the folder holds no such data set.
    """
    import tensorflow_datasets as tfds

    folder = Path(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        names = set(builder.info.features)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: not a TFDS data set ({str(error).splitlines()[0]}); expected a "
            "folder that `xdc extract` has finished"
        ) from error
    kinds = sorted(name for name in names if name.endswith(SUFFIX))
    if not kinds or "label" not in names:
        raise UserError(
            f"{folder}: found fields {', '.join(sorted(names))}; expected `label` and "
            f"at least one whose name ends in `{SUFFIX}`"
        )
    result: dict[str, dict[str, FeatureRows]] = {
        k.removesuffix(SUFFIX): {} for k in kinds
    }
    for split in builder.info.splits:
        dataset = builder.as_dataset(split=split, batch_size=1024)
        batches = list(tfds.as_numpy(dataset))
        if not batches:
            continue
        column = {
            name: np.concatenate([batch[name] for batch in batches])
            for name in {*kinds, "label", "fold", "video_id"} & names
        }
        count = len(column["label"])
        for kind in kinds:
            result[kind.removesuffix(SUFFIX)][split] = FeatureRows(
                features=np.float32(column[kind].reshape(count, -1)),
                label=column["label"],
                fold=column.get("fold", np.full(count, -1)),
                video_id=column.get("video_id", np.arange(count)),
            )
    return result
