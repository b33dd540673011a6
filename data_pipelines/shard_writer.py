"""Writing a prepared directory: parts, and from them shards, index, TFDS metadata.

How many clips a file gives is known when it is decoded, so a part is written without
regard to the others: its clips are counted from 0. When all parts are there,
`make_shards` gives the clips their ids, which go on from one shard to the next.

TensorFlow takes seconds to import, so the functions that need it import it: `prepare`
checks its input and starts its workers first.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from data_pipelines.shards import (
    DATASET_NAME,
    FORMAT_VERSION,
    INDEX_COLUMNS,
    SAMPLE_RATE_HZ,
    SUMMARY_FILE,
    Record,
)
from xdc_jax.files import write_atomically

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclasses.dataclass(frozen=True)
class PartReport:
    """What is known of a finished part.

    Attributes:
      clips: one per clip: the columns of the index, but for `clip_id` and
        `duplicate_of`; and `digest`, of pictures and sound.
      rejected: (path, reason, detail) of the sources that failed.
      digest: hex digest of the serialized records.
    """

    clips: list[dict[str, Any]]
    rejected: list[tuple[str, str, str]]
    digest: str


class PartWriter:
    """Writes a part; it has its name, and its report, when it is whole.

    Args:
      path: of the part.
    """

    def __init__(self, path: epath.Path):
        import tensorflow as tf

        self._path = path
        self._temporary = path.with_name(f"{path.name}.incomplete")
        self._clips: list[dict[str, Any]] = []
        self._rejected: list[tuple[str, str, str]] = []
        self._digest = hashlib.blake2b(digest_size=16)
        with _disk_errors(path):
            self._writer = tf.io.TFRecordWriter(str(self._temporary))

    def write(self, record: Record) -> None:
        """Appends a clip.

        Raises:
          OSError: the disk is full, or the like.
        """
        serialized = serialize(record, len(self._clips))
        with _disk_errors(self._path):
            self._writer.write(serialized)
        self._digest.update(serialized)
        self._clips.append(
            {
                "video_id": record.video_id,
                "start_s": f"{record.start_s:.6f}",
                "duration_s": f"{record.duration_s:.6f}",
                "num_frames": len(record.frames),
                "num_samples": len(record.audio),
                "label": record.label,
                "fold": record.fold,
                "partitions": record.partitions,
                "motion": f"{record.motion:.3f}",
                "level_db": f"{record.level_db:.2f}",
                "digest": record.digest,
            }
        )

    def reject(self, path: str, reason: str, detail: str) -> None:
        """Notes a source, or the rest of it, that cannot be used."""
        self._rejected.append((path, reason, detail))

    def close(self) -> None:
        """Finishes the part.

        Raises:
          OSError: as `write`.
        """
        with _disk_errors(self._path):
            self._writer.close()
        self._temporary.replace(self._path)
        report = PartReport(self._clips, self._rejected, self._digest.hexdigest())
        text = json.dumps(dataclasses.asdict(report))
        write_atomically(_report_path(self._path), text.encode())


def read_report(path: epath.Path) -> PartReport | None:
    """The report of a part, None while it is not finished."""
    try:
        found = json.loads(_report_path(path).read_text())
    except FileNotFoundError:
        return None
    rejected = [tuple(row) for row in found["rejected"]]
    return PartReport(found["clips"], rejected, found["digest"])


def _report_path(part: epath.Path) -> epath.Path:
    return part.with_name(f"{part.name}.json")


@contextlib.contextmanager
def _disk_errors(path: epath.Path) -> Iterator[None]:
    """Has what TensorFlow says of files raised as an OSError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path}: cannot be written ({error.message})") from error


def serialize(record: Record, clip_id: int) -> bytes:
    """A record as a serialized `tf.train.Example`; `features` is its schema."""
    import tensorflow as tf

    def int64(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def float32(value: float) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    def strings(values: Sequence[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    feature = {
        "clip_id": int64(clip_id),
        "video_id": strings([record.video_id.encode(errors="surrogateescape")]),
        "start_s": float32(record.start_s),
        "frames": strings(record.frames),
        "fps": float32(record.fps),
        "audio": strings([record.audio.astype("<i2", copy=False).tobytes()]),
        "label": int64(record.label),
        "fold": int64(record.fold),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def features(class_names: Sequence[str]) -> "tfds.features.FeaturesDict":
    """The TFDS features of a record."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "clip_id": np.int64,
            "video_id": tfds.features.Text(),
            "start_s": np.float32,
            "frames": tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            ),
            "fps": np.float32,
            "audio": tfds.features.Tensor(
                shape=(None,),
                dtype=np.int16,
                encoding="bytes",
                doc=f"Mono samples at {SAMPLE_RATE_HZ} Hz.",
            ),
            "label": tfds.features.ClassLabel(names=class_names)
            if class_names
            else np.int64,
            "fold": np.int64,
        }
    )


def make_shards(
    out_dir: epath.Path,
    parts: Mapping[str, Mapping[epath.Path, PartReport]],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Makes shards, index and TFDS metadata of finished parts.

    Args:
      out_dir: the folder to complete; shards that it has already are taken over.
      parts: split -> path and report of its parts, in order; a split without clips is
        left out.
      class_names: sorted class names.

    Returns:
      What `shards.open_prepared` needs in `prepared.json`, which completes the folder.

    Raises:
      OSError: as `PartWriter.write`; what is finished stays.
    """
    import tensorflow_datasets as tfds

    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(list(class_names)).encode())
    template = tfds.core.ShardedFileTemplate(
        data_dir=out_dir, dataset_name=DATASET_NAME, filetype_suffix="tfrecord"
    )
    split_infos, names = [], {}
    for split, of_split in parts.items():
        reports = list(of_split.values())
        lengths = [len(report.clips) for report in reports]
        if not sum(lengths):
            continue
        stem = f"{DATASET_NAME}-{split}.tfrecord"
        shards = [
            out_dir / f"{stem}-{i:05d}-of-{len(of_split):05d}"
            for i in range(len(of_split))
        ]
        firsts = itertools.accumulate(lengths, initial=0)
        for part, shard, first in zip(of_split, shards, firsts, strict=False):
            _number(part, shard, first)
        _write_index(out_dir / f"clips_{split}.csv", reports)
        names[split] = [path.name for path in shards]
        digest.update(f"{split} {[report.digest for report in reports]}".encode())
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=sum(path.stat().length for path in shards),
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=out_dir,
        features=features(class_names),
        split_infos=split_infos,
        check_data=False,
        description="Clips of video with sound, prepared by xdc_jax.",
        disable_shuffling=True,
    )
    return {
        "format_version": FORMAT_VERSION,
        "fingerprint": digest.hexdigest(),
        "class_names": list(class_names),
        "splits": names,
    }


def write_summary(out_dir: epath.Path, summary: Mapping[str, Any]) -> None:
    """Completes a prepared directory."""
    text = json.dumps(summary, indent=1) + "\n"
    write_atomically(out_dir / SUMMARY_FILE, text.encode())


def _number(part: epath.Path, shard: epath.Path, first_clip_id: int) -> None:
    """Makes a shard of a part: its clip ids go on from `first_clip_id`."""
    import tensorflow as tf

    if shard.exists():
        return
    temporary = shard.with_name(f"{shard.name}.incomplete")
    with _disk_errors(shard):
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            records = tf.data.TFRecordDataset(str(part)).as_numpy_iterator()
            for clip_id, serialized in enumerate(records, first_clip_id):
                example = tf.train.Example.FromString(serialized)
                example.features.feature["clip_id"].int64_list.value[0] = clip_id
                writer.write(example.SerializeToString(deterministic=True))
        temporary.replace(shard)
    part.unlink()


def _write_index(path: epath.Path, reports: Sequence[PartReport]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, INDEX_COLUMNS, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    first_of: dict[str, int] = {}
    clips = itertools.chain.from_iterable(report.clips for report in reports)
    for clip_id, clip in enumerate(clips):
        first = first_of.setdefault(clip["digest"], clip_id)
        duplicate_of = -1 if first == clip_id else first
        writer.writerow({**clip, "clip_id": clip_id, "duplicate_of": duplicate_of})
    # Surrogates stand for the bytes of names that are not UTF-8.
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))
