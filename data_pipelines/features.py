"""Feature data sets: written slice by slice, read as arrays, both as TFDS.

One slice of work becomes one TFRecord shard, under a temporary name until it is whole:
a second start goes on with the slices that are missing. The TFDS metadata come last;
with them the folder is complete.
"""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import FeatureRows
from xdc_jax.files import write_atomically

DATASET_NAME = "features"
REQUEST_FILE = "request.json"
REJECTED_FILE = "rejected.csv"
FORMAT_VERSION = 2  # 1 had no partitions
SUFFIX = "_feature"
HOW_TO_READ = """
Reading the result, here split train into rows["video_feature"], float32 [clips, 512]:
  import tensorflow_datasets as tfds
  builder = tfds.builder_from_directory("features/ucf101")
  rows = tfds.as_numpy(builder.as_dataset("train", batch_size=-1))
"""

Rows = Mapping[str, Shaped[np.ndarray, "n ..."]]
Rejected = tuple[str, str, str]  # path, reason, detail


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of one video, in order of time.

    Attributes:
      start_s: where each starts in the video, seconds.
      end_s: where it ends.
      features: one row per window.
    """

    start_s: Float32[np.ndarray, " windows"]
    end_s: Float32[np.ndarray, " windows"]
    features: Float32[np.ndarray, "windows d"]


def claim(folder: Path, request: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Makes a folder that of a job, new or gone on with.

    Args:
      folder: of the features.
      request: what the features are a function of, as JSON values.
      about: names for tables of results; jobs that differ in them alone are the same.

    Raises:
      UserError: the folder holds something else.
    """
    file = folder / REQUEST_FILE
    request = {"format_version": FORMAT_VERSION, **json.loads(json.dumps(request))}
    wanted = {**request, "about": json.loads(json.dumps(about))}
    found = read_request(folder)
    if file.exists():
        differing = [key for key in request if found.get(key) != request[key]]
        if differing:
            raise UserError(
                f"{folder}: holds other features ({', '.join(differing)} differ); "
                "choose another --out or remove it"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists and holds no features; choose another --out")
    if found != wanted:
        write_atomically(file, json.dumps(wanted, indent=1).encode())


def read_request(folder: Path) -> dict[str, Any]:
    """Returns what `claim` wrote; of features of another program, nothing."""
    try:
        found = json.loads((folder / REQUEST_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
            "partitions": tfds.features.Text(),
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
        if key in ("video_id", "partitions"):
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
    row per clip. `label` is needed; `fold`, `video_id` and `partitions` are optional.

    Returns:
      Kind (`video`, `audio`) -> split -> rows.

    Raises:
      UserError: the folder holds no such data set.
    """
    builder = _open(folder)
    names = set(builder.info.features)
    kinds = sorted(name for name in names if name.endswith(SUFFIX))
    if not kinds or "label" not in names:
        raise UserError(
            f"{folder}: found fields {', '.join(sorted(names))}; expected `label` and "
            f"at least one whose name ends in `{SUFFIX}`"
        )
    result: dict[str, dict[str, FeatureRows]] = {
        k.removesuffix(SUFFIX): {} for k in kinds
    }
    wanted = {*kinds, "label", "fold", "video_id", "partitions"} & names
    for split, column in _columns(builder, wanted):
        count = len(column["label"])
        for kind in kinds:
            result[kind.removesuffix(SUFFIX)][split] = FeatureRows(
                features=np.float32(column[kind].reshape(count, -1)),
                label=column["label"],
                fold=column.get("fold", np.full(count, -1)),
                video_id=column.get(
                    "video_id", np.array([f"{split}/{i}" for i in range(count)])
                ),
                partitions=column.get("partitions"),
            )
    return result


def class_names(folder: str | Path) -> tuple[str, ...]:
    """Returns the class names of a feature data set; none where it has only numbers."""
    return tuple(getattr(_open(folder).info.features["label"], "names", None) or ())


def read_windows(folder: str | Path) -> dict[str, Windows]:
    """Reads the video features of windows, of all splits.

    Returns:
      `video_id` -> its windows.

    Raises:
      UserError: the folder holds no video features of windows.
    """
    folder = Path(folder)
    builder = _open(folder)
    stride_s = read_request(folder).get("views", {}).get("stride_s")
    kind = f"video{SUFFIX}"
    if stride_s is None or kind not in builder.info.features:
        what = "no windows" if stride_s is None else f"no {kind}"
        raise UserError(
            f"{folder}: found {what}, expected what `xdc extract --stride_s=...` "
            "writes with a video encoder; extract once more"
        )
    found: dict[str, Windows] = {}
    for split, column in _columns(builder, {kind, "video_id", "start_s", "end_s"}):
        features = np.float32(column[kind].reshape(len(column[kind]), -1))
        names, number = np.unique(column["video_id"], return_inverse=True)
        # By video, then by time.
        order = np.lexsort((column["start_s"], number))
        ends = np.searchsorted(number[order], np.arange(1, len(names)))
        for name, rows in zip(names, np.split(order, ends), strict=True):
            if name in found:
                raise UserError(f"{folder}: {name} is in split {split} and in another")
            found[name] = Windows(
                column["start_s"][rows], column["end_s"][rows], features[rows]
            )
    return found


def _open(folder: str | Path) -> Any:
    """Returns the TFDS builder of a folder."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: not a TFDS data set ({str(error).splitlines()[0]}); expected a "
            "folder that `xdc extract` has finished"
        ) from error


def _columns(
    builder: Any, names: set[str]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields each split that has rows, and some fields of its rows; texts as `str`."""
    import tensorflow_datasets as tfds

    for split in builder.info.splits:
        # TFDS takes the string `all`, which a split may be called, for every split.
        one = tfds.core.ReadInstruction(split)
        dataset = builder.as_dataset(split=one, batch_size=1024)
        dataset = dataset.map(lambda row: {name: row[name] for name in names})
        batches = list(tfds.as_numpy(dataset))
        if not batches:
            continue
        column = {
            name: np.concatenate([batch[name] for batch in batches]) for name in names
        }
        for name, values in column.items():
            if values.dtype == object:
                column[name] = np.array([os.fsdecode(text) for text in values], object)
        yield split, column
