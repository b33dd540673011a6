"""Which records an epoch has, and in which order."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from xdc_jax.errors import UserError

SHUFFLE_RECORDS = 16_384
SHUFFLE_BYTES = 2 << 30  # fewer records are held where they are large
SHARDS_READ_AT_ONCE = 16
READ_BYTES = 1 << 20  # per open shard


def rows_per_process(batch_size: int, process_count: int) -> int:
    """Rows of a batch that one process yields.

    Raises:
      UserError: they are not the same number for every process.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size: found {batch_size}, expected a positive multiple of the "
            f"number of processes ({process_count})."
        )
    return batch_size // process_count


def read_shards(files: tf.Tensor | Sequence[str]) -> tf.data.Dataset:
    """Serialized records of one shard, or of several, one shard after the other."""
    return tf.data.TFRecordDataset(files, buffer_size=READ_BYTES)


def shuffled_records(
    files: Sequence[str], draws: np.ndarray, seeds: tuple[int, int]
) -> tf.data.Dataset:
    """Pairs (serialized record, draw) of an epoch, in an order given by `seeds`.

    Shards are read in random order, several at once; record and draw then go through
    a buffer, of which a random one leaves at a time.
    """
    rng = np.random.default_rng(seeds)
    files = rng.permutation(np.array(files))
    bytes_per_record = sum(os.path.getsize(file) for file in files) / len(draws)
    buffer = int(np.clip(SHUFFLE_BYTES / bytes_per_record, 1, SHUFFLE_RECORDS))
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
        read_shards, cycle_length=SHARDS_READ_AT_ONCE, block_length=1
    )
    return drawn_records(records, draws).shuffle(
        buffer, seed=int(rng.integers(2**31)), reshuffle_each_iteration=False
    )


def drawn_records(records: tf.data.Dataset, draws: np.ndarray) -> tf.data.Dataset:
    """Pairs (serialized record, draw), each record as often as `draws` says."""
    draws = tf.constant(draws, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def repeat(serialized: tf.Tensor) -> tf.data.Dataset:
        clip_id = tf.io.parse_single_example(
            serialized, {"clip_id": tf.io.FixedLenFeature([], tf.int64)}
        )["clip_id"]
        record = tf.data.Dataset.from_tensors(serialized).repeat(draws[clip_id])
        return tf.data.Dataset.zip(record, tf.data.Dataset.range(draws[clip_id]))

    return records.flat_map(repeat)


def rows_of_process(
    records: tf.data.Dataset, batch_size: int, rows: int, process_index: int
) -> tf.data.Dataset:
    """The part of each batch of `batch_size` records that the process yields."""
    if rows == batch_size:
        return records
    return (
        records.enumerate()
        .filter(lambda place, _: place % batch_size // rows == process_index)
        .map(lambda _, record: record)
    )
