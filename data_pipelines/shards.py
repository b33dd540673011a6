"""The record schema of a prepared directory, and reading it.

A prepared directory holds, per split, TFRecord shards with contiguous clip ids and a
`clips_SPLIT.csv`; for the whole, TFDS metadata, so that
`tfds.builder_from_directory` reads it, and `prepared.json`, which is written last.

TensorFlow takes seconds to import, so the functions that need it import it: opening
an index does not.
"""

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int16, Int32

from xdc_jax.errors import UserError
from xdc_jax.files import reaching

if TYPE_CHECKING:
    import tensorflow as tf

SAMPLE_RATE_HZ = 16_000
FORMAT_VERSION = 2
DATASET_NAME = "clips"
SUMMARY_FILE = "prepared.json"
REPORT_FILE = "prepare_report.json"
INDEX_COLUMNS = (
    "clip_id",
    "video_id",
    "start_s",
    "duration_s",
    "num_frames",
    "num_samples",
    "label",
    "fold",
    "partitions",
    "motion",
    "level_db",
    "duplicate_of",
)


@dataclasses.dataclass(frozen=True)
class Record:
    """One clip as it is stored, all but its `clip_id`.

    Attributes:
      video_id: path of the source, as in the manifest.
      start_s: where the clip starts in its source, seconds.
      fps: frames per second of `frames`; 0 where there are none.
      frames: one RGB JPEG per frame; empty where the source has no pictures.
      audio: mono samples at 16 kHz, from the instant of the first frame on; empty
        where the source has no sound.
      label: class id, -1 where unlabelled.
      fold: cross-validation fold, -1 where none.
      partitions: part in each of several official partitions, as in the manifest.
      motion: see `SplitIndex`; it cannot be told from the JPEGs.
    """

    video_id: str
    start_s: float
    fps: float
    frames: Sequence[bytes]
    audio: Int16[np.ndarray, " samples"]
    label: int = -1
    fold: int = -1
    partitions: str = ""
    motion: float = math.nan

    @property
    def duration_s(self) -> float:
        """Length in seconds: of the pictures, or of the sound where there are none."""
        if self.frames:
            return len(self.frames) / self.fps
        return len(self.audio) / SAMPLE_RATE_HZ

    @property
    def level_db(self) -> float:
        """Level of the sound, dB of full scale, -120 at least; NaN without sound."""
        if not len(self.audio):
            return math.nan
        rms = float(np.sqrt(np.mean(np.square(self.audio, dtype=np.float64)))) / 2**15
        return max(20 * math.log10(rms), -120.0) if rms else -120.0

    @property
    def digest(self) -> str:
        """Hex digest of pictures and sound: equal for exact duplicates."""
        result = hashlib.blake2b(digest_size=16)
        for content in (*self.frames, self.audio.tobytes()):
            result.update(len(content).to_bytes(8, "little"))
            result.update(content)
        return result.hexdigest()


@dataclasses.dataclass(frozen=True)
class SplitIndex:
    """What `clips_SPLIT.csv` says of each clip, by clip id, and the split's shards.

    Attributes:
      files: paths of the shards; clip ids are contiguous over them, in this order.
      shard_lengths: number of records of each.
      video_id: path of the source, as in the manifest.
      start_s: where the clip starts in its source, seconds.
      duration_s: length of the clip, seconds.
      num_frames: number of pictures, 0 where the source has none.
      num_samples: number of 16 kHz samples, 0 where the source has no sound.
      label: class id, -1 where unlabelled.
      fold: cross-validation fold, -1 where none.
      partitions: part (`train`, `test`, ...) in each of several official partitions,
        joined by `/`; empty where there are none.
      motion: mean change from one picture to the next, in steps of 8-bit brightness;
        NaN without pictures.
      level_db: level of the sound, dB of full scale; NaN without sound.
      duplicate_of: first clip of the split with the same pictures and sound to the
        bit, -1 if it is this one.
    """

    files: tuple[str, ...]
    shard_lengths: tuple[int, ...]
    video_id: np.ndarray
    start_s: Float32[np.ndarray, " clips"]
    duration_s: Float32[np.ndarray, " clips"]
    num_frames: Int32[np.ndarray, " clips"]
    num_samples: Int32[np.ndarray, " clips"]
    label: Int32[np.ndarray, " clips"]
    fold: Int32[np.ndarray, " clips"]
    partitions: np.ndarray
    motion: Float32[np.ndarray, " clips"]
    level_db: Float32[np.ndarray, " clips"]
    duplicate_of: Int32[np.ndarray, " clips"]

    def __len__(self) -> int:
        return len(self.video_id)

    def shards_of(self, clip_ids: range) -> tuple[int, int]:
        """Returns the indices of the first and last shard that hold some records."""
        ends = np.cumsum(self.shard_lengths)
        first, last = np.searchsorted(ends, (clip_ids[0], clip_ids[-1]), side="right")
        return int(first), int(last)


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A finished prepared directory.

    Attributes:
      data_dir: where it lies.
      class_names: sorted class names; a label is an index into it.
      fingerprint: hex digest of every record of every split, in order, and of the
        class names.
      splits: the clips of each split.
    """

    data_dir: str
    class_names: tuple[str, ...]
    fingerprint: str
    splits: dict[str, SplitIndex]


def parse(serialized: "tf.Tensor") -> dict[str, "tf.Tensor"]:
    """One serialized record as tensors; the pictures stay JPEG.

    Returns:
      clip_id, label, fold: int64 []; video_id: string []; start_s, fps: float32 [];
      frames: string [num_frames]; audio: int16 [num_samples].
    """
    import tensorflow as tf

    record = tf.io.parse_single_example(
        serialized,
        {
            "clip_id": tf.io.FixedLenFeature([], tf.int64),
            "video_id": tf.io.FixedLenFeature([], tf.string),
            "start_s": tf.io.FixedLenFeature([], tf.float32),
            "frames": tf.io.RaggedFeature(tf.string),
            "fps": tf.io.FixedLenFeature([], tf.float32),
            "audio": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
            "fold": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    record["audio"] = tf.io.decode_raw(record["audio"], tf.int16)
    return record


def read_summary(data_dir: epath.PathLike) -> dict[str, Any]:
    """What `prepared.json` says of a finished prepared directory.

    Raises:
      UserError: the directory is missing, unfinished, or of another format version.
    """
    path = epath.Path(data_dir) / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{data_dir}: found no {SUMMARY_FILE}, expected a directory that "
            "`xdc prepare --out=DIR` has finished. Prepare it first, or go on with it."
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Prepare again.") from error
    if summary.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version is {summary.get('format_version')}, expected "
            f"{FORMAT_VERSION}. Prepare again with this version."
        )
    return summary


def open_prepared(data_dir: epath.PathLike) -> PreparedData:
    """Opens the index of a prepared directory, without TensorFlow.

    Raises:
      UserError: it is no finished prepared directory, or files of it are missing.
    """
    with reaching(data_dir):
        return _open_prepared(epath.Path(data_dir))


def _open_prepared(data_dir: epath.Path) -> PreparedData:
    summary = read_summary(data_dir)
    lengths = _shard_lengths(data_dir)
    return PreparedData(
        data_dir=str(data_dir),
        class_names=tuple(summary["class_names"]),
        fingerprint=summary["fingerprint"],
        splits={
            split: _read_index(data_dir, split, files, lengths[split])
            for split, files in summary["splits"].items()
        },
    )


def num_absent(data_dir: epath.PathLike) -> int:
    """Returns how many files of the source are not in a prepared directory.

    They were missing, or rejected; 0 where there is no report.
    """
    try:
        report = json.loads((epath.Path(data_dir) / REPORT_FILE).read_text())
        return int(report["missing"]) + int(report["rejected"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _shard_lengths(data_dir: epath.Path) -> dict[str, tuple[int, ...]]:
    """Returns the number of records of each shard of each split, as TFDS stores it."""
    path = data_dir / "dataset_info.json"
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        return {s["name"]: tuple(map(int, s["shardLengths"])) for s in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: missing or damaged ({error!r}). Copy the whole directory, or "
            "prepare it again."
        ) from error


def _read_index(
    data_dir: epath.Path,
    split: str,
    files: Sequence[str],
    shard_lengths: tuple[int, ...],
) -> SplitIndex:
    index_path = data_dir / f"clips_{split}.csv"
    for path in (index_path, *(data_dir / name for name in files)):
        if not path.exists():
            raise UserError(
                f"{path}: listed in {data_dir / SUMMARY_FILE} but missing. Copy the "
                "whole directory, or prepare it again."
            )
    text = index_path.read_bytes().decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    column = {name: [row[name] for row in rows] for name in INDEX_COLUMNS}
    if column["clip_id"] != [str(i) for i in range(len(rows))]:
        raise UserError(
            f"{index_path}: clip_id is not 0 to {len(rows) - 1} in order; the file "
            "was changed after it was written. Prepare again."
        )
    return SplitIndex(
        files=tuple(str(data_dir / name) for name in files),
        shard_lengths=shard_lengths,
        video_id=np.array(column["video_id"], dtype=str),
        start_s=np.array(column["start_s"], dtype=np.float32),
        duration_s=np.array(column["duration_s"], dtype=np.float32),
        num_frames=np.array(column["num_frames"], dtype=np.int32),
        num_samples=np.array(column["num_samples"], dtype=np.int32),
        label=np.array(column["label"], dtype=np.int32),
        fold=np.array(column["fold"], dtype=np.int32),
        partitions=np.array(column["partitions"], dtype=str),
        motion=np.array(column["motion"], dtype=np.float32),
        level_db=np.array(column["level_db"], dtype=np.float32),
        duplicate_of=np.array(column["duplicate_of"], dtype=np.int32),
    )
