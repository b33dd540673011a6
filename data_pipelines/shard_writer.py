"""Writing a prepared directory: TFRecord shards, index, TFDS metadata.

TensorFlow takes seconds to import, so the functions that need it import it: `prepare`
checks its input and starts its workers first.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.shards import (
    DATASET_NAME,
    FORMAT_VERSION,
    INDEX_COLUMNS,
    SAMPLE_RATE_HZ,
    SUMMARY_FILE,
    Record,
)

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds


class SplitWriter:
    """Writes the records of one split, giving them the clip ids 0, 1, 2, ...

    Shards have temporary names until `close` knows how many there are.
    """

    def __init__(self, out_dir: Path, split: str, records_per_shard: int):
        self.split = split
        self.shard_lengths: list[int] = []
        self._digest = hashlib.blake2b(digest_size=16)
        self._out_dir = out_dir
        self._records_per_shard = records_per_shard
        self._writer: tf.io.TFRecordWriter | None = None
        self._num_clips = 0
        self._index_file = (out_dir / f"clips_{split}.csv").open(
            "w", newline="", encoding="utf-8", errors="surrogateescape"
        )
        self._index = csv.writer(self._index_file, lineterminator="\n")
        self._index.writerow(INDEX_COLUMNS)

    def write(self, record: Record) -> None:
        """Appends `record` with the next clip id."""
        import tensorflow as tf

        if self._num_clips % self._records_per_shard == 0:
            self._close_shard()
            path = self._out_dir / self._temporary_name(len(self.shard_lengths))
            self._writer = tf.io.TFRecordWriter(str(path))
            self.shard_lengths.append(0)
        serialized = serialize(record, self._num_clips)
        self._writer.write(serialized)
        self._digest.update(serialized)
        self._index.writerow(
            (
                self._num_clips,
                record.video_id,
                f"{record.start_s:.6f}",
                f"{record.duration_s:.6f}",
                len(record.frames),
                len(record.audio),
                record.label,
                record.fold,
            )
        )
        self.shard_lengths[-1] += 1
        self._num_clips += 1

    def close(self) -> None:
        """Flushes the split and gives its shards their final names."""
        self._close_shard()
        self._index_file.close()
        for shard, path in enumerate(self.paths):
            (self._out_dir / self._temporary_name(shard)).rename(path)

    @property
    def paths(self) -> list[Path]:
        """The final paths of the shards, in order."""
        total = len(self.shard_lengths)
        stem = f"{DATASET_NAME}-{self.split}.tfrecord"
        return [
            self._out_dir / f"{stem}-{shard:05d}-of-{total:05d}"
            for shard in range(total)
        ]

    @property
    def digest(self) -> str:
        """Hex digest of the serialized records so far."""
        return self._digest.hexdigest()

    def _temporary_name(self, shard: int) -> str:
        return f"incomplete-{self.split}-{shard:05d}"

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


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


def write_metadata(
    out_dir: Path,
    writers: Iterable[SplitWriter],
    class_names: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Turns a folder of closed shards into a prepared directory.

    Args:
      out_dir: the folder that the writers wrote to.
      writers: the closed writer of each split; a split without clips is left out.
      class_names: sorted class names.
      provenance: what the directory was made from, JSON values; kept in
        `prepared.json` beside what this function adds.
    """
    import tensorflow_datasets as tfds

    writers = [writer for writer in writers if writer.shard_lengths]
    template = tfds.core.ShardedFileTemplate(
        data_dir=out_dir, dataset_name=DATASET_NAME, filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=out_dir,
        features=features(class_names),
        split_infos=[
            tfds.core.SplitInfo(
                name=writer.split,
                shard_lengths=writer.shard_lengths,
                num_bytes=sum(path.stat().st_size for path in writer.paths),
                filename_template=template.replace(split=writer.split),
            )
            for writer in writers
        ],
        check_data=False,
        description="Clips of video with sound, prepared by xdc_jax.",
        disable_shuffling=True,
    )
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(list(class_names)).encode())
    for writer in writers:
        digest.update(f"{writer.split} {writer.digest}".encode())
    summary = {
        "format_version": FORMAT_VERSION,
        "fingerprint": digest.hexdigest(),
        "class_names": list(class_names),
        "splits": {w.split: [path.name for path in w.paths] for w in writers},
        **provenance,
    }
    temporary = out_dir / f"{SUMMARY_FILE}.incomplete"
    temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    temporary.rename(out_dir / SUMMARY_FILE)
