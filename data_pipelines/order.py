"""Which records an epoch has, in which order, and who reads them.

An epoch is cut into streams, each with shards of its own and a fixed block of rows in
every batch. The streams depend on the shards, the batch size and the seeds alone; a
process reads those that its rows come from, so that the number of processes changes
nothing but who reads what.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import Int

from xdc_jax.errors import UserError

MAX_STREAMS = 64
SHARDS_READ_AT_ONCE = 128  # by all streams
SHUFFLE_CLIPS = 16_384  # likewise
SHUFFLE_BYTES = 2 << 30  # likewise: fewer clips are held where they are large
READ_BYTES = 1 << 20  # per open shard


@dataclasses.dataclass(frozen=True)
class Stream:
    """A part of an epoch.

    Attributes:
      files: paths of shards, in the order in which they are read.
      first: of each shard, its first draw that is wanted, counted over its records.
      last: of each shard, the draw after the last one.
      seed: of the order in which the clips leave the stream.
    """

    files: tuple[str, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    seed: int


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


def streams(
    files: Sequence[str],
    shard_lengths: Sequence[int],
    draws: Int[np.ndarray, " clips"],
    batch_size: int,
    seeds: tuple[int, int],
) -> list[Stream]:
    """Cuts an epoch into streams of equal length.

    The draws of all shards, in random order, are one long row; a stream is a piece of
    it, of as many draws as it has rows in all batches. The remainder, less than a
    batch, is left out. A shard at the seam of two streams is read by both.

    Args:
      files: paths of the shards.
      shard_lengths: number of records of each; the clip ids go on from one to the next.
      draws: how often each record is drawn.
      batch_size: rows of a batch, of all processes together.
      seeds: of the order.
    """
    rng = np.random.default_rng(seeds)
    ends = np.cumsum(shard_lengths)
    up_to = np.concatenate([[0], np.cumsum(draws)])
    in_shard = up_to[ends] - up_to[ends - np.asarray(shard_lengths)]
    shards = rng.permutation(np.flatnonzero(in_shard))
    count = 1
    while 2 * count <= min(MAX_STREAMS, len(shards)) and batch_size % (2 * count) == 0:
        count *= 2
    length = int(in_shard.sum()) // batch_size * batch_size // count
    shard_ends = np.cumsum(in_shard[shards])
    shard_starts = shard_ends - in_shard[shards]
    result = []
    for start in range(0, count * length, max(length, 1)):
        first = np.clip(start - shard_starts, 0, in_shard[shards])
        last = np.clip(start + length - shard_starts, 0, in_shard[shards])
        found = np.flatnonzero(last > first)
        result.append(
            Stream(
                tuple(files[shards[i]] for i in found),
                tuple(first[found].tolist()),
                tuple(last[found].tolist()),
                int(rng.integers(2**31)),
            )
        )
    return result


def draws_before(
    shard_lengths: Sequence[int], draws: Int[np.ndarray, " clips"]
) -> Int[np.ndarray, " clips"]:
    """How many draws of its shard come before those of each record."""
    before = np.cumsum(draws) - draws
    starts = np.cumsum(shard_lengths) - shard_lengths
    of_shard = np.append(before, 0)[np.minimum(starts, len(draws))]
    return before - np.repeat(of_shard, shard_lengths)


def interleaved(
    chosen: Sequence[Stream],
    num_streams: int,
    block: int,
    buffer: int,
    clips_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.data.Dataset],
) -> tf.data.Dataset:
    """The clips of some streams: a block of the first, of the second, and around.

    Args:
      chosen: the streams.
      num_streams: how many the epoch has.
      block: clips of a stream in each batch.
      buffer: clips of a stream that are held, of which a random one leaves at a time.
      clips_of: shard, first and last draw -> the clips of these draws in order.
    """
    columns = [
        tf.ragged.constant([getattr(s, name) for s in chosen], kind, ragged_rank=1)
        for name, kind in (
            ("files", tf.string),
            ("first", tf.int64),
            ("last", tf.int64),
        )
    ]
    seeds = tf.constant([stream.seed for stream in chosen], tf.int64)

    @tf.autograph.experimental.do_not_convert
    def clips_of_stream(number: tf.Tensor) -> tf.data.Dataset:
        shards = tf.data.Dataset.from_tensor_slices(
            tuple(column[number] for column in columns)
        )
        clips = shards.interleave(
            clips_of,
            cycle_length=max(1, SHARDS_READ_AT_ONCE // num_streams),
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return clips.shuffle(buffer, seed=seeds[number], reshuffle_each_iteration=False)

    return tf.data.Dataset.range(len(chosen)).interleave(
        clips_of_stream,
        cycle_length=len(chosen),
        block_length=block,
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def shuffle_buffer(
    files: Sequence[str],
    num_frames: int,
    num_samples: int,
    clip_frames: int,
    clip_samples: int,
    num_streams: int,
) -> int:
    """How many undecoded clips a stream may hold.

    Args:
      files: paths of the shards.
      num_frames: pictures in all of them.
      num_samples: 16-bit samples in all of them.
      clip_frames: pictures of a clip.
      clip_samples: samples of a clip.
      num_streams: streams that hold clips at the same time.
    """
    size = sum(epath.Path(file).stat().length for file in files)
    per_frame = max(size - 2 * num_samples, 0) / max(num_frames, 1)
    clip_bytes = clip_frames * per_frame + 2 * clip_samples
    total = min(SHUFFLE_BYTES / clip_bytes, SHUFFLE_CLIPS)
    return max(1, int(total / num_streams))


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


def rows_of_batches(
    rows: tf.data.Dataset, batch_size: int, first: int, count: int
) -> tf.data.Dataset:
    """The rows `first` to `first + count` of every `batch_size` rows."""
    if count == batch_size:
        return rows

    def is_wanted(place: tf.Tensor, row: Any) -> tf.Tensor:
        del row
        return (place % batch_size >= first) & (place % batch_size < first + count)

    return rows.enumerate().filter(is_wanted).map(lambda _, row: row)
