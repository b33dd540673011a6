"""Prepared records to batches of clips: parse, sample, decode, preprocess, batch.

In training, a record is read and parsed once for all clips that an epoch draws from it;
what is shuffled is clips before decoding.

Everything is a function of stored numbers: the order of an epoch of (seed, epoch), the
place and augmentation of a clip of (seed, clip_id, epoch, draw). A pipeline can thus
start at any batch, and its rows can be spread over any number of processes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int, Int32

from data_pipelines import order, shards
from data_pipelines.choices import centre_choices, random_choices, view_choices
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.phases import Tensors, decode, is_portrait, preprocess, sample
from data_pipelines.views import Views
from data_pipelines.workers import available_cores
from xdc_jax.errors import UserError

MODALITIES = ("video", "audio")

Batch = dict[str, np.ndarray]


def batch(clips: tf.data.Dataset, rows: int) -> tf.data.Dataset:
    """Batches of `rows` clips, ready before they are asked for."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = available_cores()
    options.threading.max_intra_op_parallelism = 1
    return clips.batch(rows).prefetch(2).with_options(options)


def prepare_tensorflow() -> None:
    """Leaves the accelerators to JAX; TensorFlow would take a GPU's whole memory."""
    tf.config.set_visible_devices([], "GPU")
    # It finds no loop to optimise here, and says so at every start of a pipeline.
    tf.config.optimizer.set_experimental_options({"loop_optimization": False})


def pad(found: Batch, rows: int) -> Batch:
    """Fills a batch up with zeros, ids and labels -1, where `mask` is False."""
    missing = rows - len(found["mask"])
    if not missing:
        return found
    filling = {"clip_id": -1, "label": -1}
    return {
        key: np.pad(
            value,
            [(0, missing)] + [(0, 0)] * (value.ndim - 1),
            constant_values=filling.get(key, 0),
        )
        for key, value in found.items()
    }


class ClipData:
    """Batches of clips from a prepared directory.

    Args:
      prepared: the prepared directory.
      spec: what is cut out of a record.
      seed: of order and augmentation, 0 to 2^31 - 1.
      modalities: those that batches have; the other one is not decoded.
    """

    def __init__(
        self,
        prepared: shards.PreparedData,
        spec: ClipSpec,
        seed: int,
        modalities: Sequence[str] = MODALITIES,
    ):
        if not 0 <= seed < 2**31:
            raise UserError(f"seed: found {seed}, expected 0 to {2**31 - 1}.")
        prepare_tensorflow()
        self.spec = spec
        self.seed = seed
        self.modalities = tuple(modalities)
        self.data_dir = prepared.data_dir
        self.splits = tuple(prepared.splits)
        self.class_names = prepared.class_names
        self.fingerprint = prepared.fingerprint
        self._prepared = prepared
        # Traced once, not once per epoch: tracing takes as long as hundreds of clips.
        self._sampled = tf.function(self._sampled_of, autograph=False)
        self._finish = tf.function(self._finish_of, autograph=False)
        self._centre_clip = tf.function(self._centre_clip_of, autograph=False)
        self._view_functions: dict[tuple[str, Views], Callable] = {}

    def num_clips(self, split: str) -> int:
        """How many records the split has."""
        return len(self.index(split))

    def labels(self, split: str) -> Int32[np.ndarray, " clips"]:
        """Class id of each record, -1 where unlabelled."""
        return self.index(split).label

    def usable(
        self, split: str, modalities: Sequence[str] = MODALITIES
    ) -> Bool[np.ndarray, " clips"]:
        """True for the records that have all of `modalities`."""
        index = self.index(split)
        count = {"video": index.num_frames, "audio": index.num_samples}
        return np.all([count[modality] > 0 for modality in modalities], axis=0)

    def kept(
        self,
        split: str,
        *,
        min_motion: float,
        min_level_db: float,
        min_duration_s: float,
        duplicates: bool,
    ) -> Bool[np.ndarray, " clips"]:
        """True for the records that a filter keeps; see `config.filter`.

        A value that was not measured, for want of pictures or sound, filters nothing.
        """
        index = self.index(split)
        too_low = (
            (index.motion < min_motion)
            | (index.level_db < min_level_db)
            | (index.duration_s < min_duration_s)
        )
        return ~too_low & (duplicates | (index.duplicate_of < 0))

    def train_batches(
        self,
        split: str,
        *,
        batch_size: int,
        epoch: int,
        draws: Int[np.ndarray, " clips"],
        start_batch: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Batch]:
        """One epoch of augmented clips in random order, whole batches only.

        Args:
          split: the split.
          batch_size: clips per batch, of all processes together.
          epoch: counts from 0; order and augmentation change with it.
          draws: how often each record is drawn, each time as another clip.
          start_batch: batches at the start of the epoch that are left out.
          process_index: which rows of each batch are wanted: those of the process.
          process_count: number of processes, among which the rows are divided evenly.

        Raises:
          UserError: the split is unknown, `batch_size` is not a multiple of
            `process_count`, or there are fewer draws than `batch_size`.
        """
        index = self.index(split)
        rows = order.rows_per_process(batch_size, process_count)
        draws = np.asarray(draws)
        if draws.shape != (len(index),) or draws.min(initial=0) < 0:
            raise ValueError(f"draws: expected {len(index)} counts, found {draws}")
        num_batches = int(draws.sum()) // batch_size
        if num_batches == 0:
            raise UserError(
                f"batch_size: found {batch_size}, but an epoch of split {split!r} has "
                f"only {draws.sum()} clips. Lower batch_size or add clips."
            )
        streams = order.streams(
            index.files, index.shard_lengths, draws, batch_size, (self.seed, epoch)
        )
        # Each stream fills a block of every batch; those of this process's rows.
        block = batch_size // len(streams)
        first_row = process_index * rows
        first = first_row // block
        chosen = streams[first : -(-(first_row + rows) // block)]
        buffer = order.shuffle_buffer(
            index.files,
            int(index.num_frames.sum()),
            int(index.num_samples.sum()),
            self.spec.num_frames,
            self.spec.num_samples,
            len(streams),
        )
        clips = order.interleaved(
            chosen,
            len(streams),
            block,
            buffer,
            self._drawn_clips(index, draws, epoch),
        )
        here = block * len(chosen)
        clips = clips.skip(start_batch * here)
        clips = order.rows_of_batches(clips, here, first_row - first * block, rows)
        clips = clips.map(self._finish, num_parallel_calls=available_cores())
        return batch(clips, rows).as_numpy_iterator()

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        clip_ids: Int[np.ndarray, " wanted"] | None = None,
        num_batches: int | None = None,
    ) -> Iterator[Batch]:
        """The centre clip of every record, or of `clip_ids`, once, by ascending id.

        Args:
          split: the split.
          batch_size: clips per batch; what is missing in the last is filled (`pad`).
          clip_ids: of the records; default: all.
          num_batches: more than the clips need: of several processes, which read some
            of the clips each, all have equally many.
        """
        index = self.index(split)
        wanted = np.arange(len(index)) if clip_ids is None else np.sort(clip_ids)
        draws = np.zeros(len(index), np.int32)
        draws[wanted] = 1
        records = self._records(index, wanted)
        records = order.drawn_records(records, draws)
        clips = records.map(self._centre_clip, num_parallel_calls=available_cores())
        batches = batch(clips, batch_size).as_numpy_iterator()
        return self._padded(batches, batch_size, num_batches, len(wanted))

    def view_batches(
        self,
        split: str,
        views: Views,
        *,
        batch_size: int,
        clip_ids: Sequence[int],
        num_batches: int | None = None,
    ) -> Iterator[Batch]:
        """Views of some records, in order of clip id and view.

        Args:
          split: the split.
          views: which views of each record.
          batch_size: clips per batch; the last one is filled as in `eval_batches`.
          clip_ids: of the records, ascending.
          num_batches: as in `eval_batches`.
        """
        index = self.index(split)
        draws = np.zeros(len(index), np.int32)
        for clip_id in clip_ids:
            starts = views.starts(self.spec, float(index.duration_s[clip_id]))
            draws[clip_id] = len(starts) * views.crops
        records = order.drawn_records(self._records(index, clip_ids), draws)
        clips = records.map(
            self._view_function(split, views), num_parallel_calls=available_cores()
        )
        batches = batch(clips, batch_size).as_numpy_iterator()
        return self._padded(batches, batch_size, num_batches, int(draws.sum()))

    def index(self, split: str) -> shards.SplitIndex:
        """What is known of the records of a split without reading them."""
        if split not in self._prepared.splits:
            raise UserError(
                f"split: found {split!r}, but {self._prepared.data_dir} has "
                f"{', '.join(sorted(self._prepared.splits))}. Choose one of these."
            )
        return self._prepared.splits[split]

    def _records(
        self, index: shards.SplitIndex, clip_ids: Sequence[int]
    ) -> tf.data.Dataset:
        """Serialized records of the shards that hold some records."""
        if not len(clip_ids):
            return tf.data.Dataset.from_tensor_slices(tf.constant([], tf.string))
        first, last = index.shards_of(clip_ids)
        return order.read_shards(index.files[first : last + 1])

    def _drawn_clips(
        self, index: shards.SplitIndex, draws: np.ndarray, epoch: int
    ) -> Callable[..., tf.data.Dataset]:
        """Returns (shard, first draw, last draw) -> sampled clips of these draws."""
        before = tf.constant(order.draws_before(index.shard_lengths, draws), tf.int64)
        counts = tf.constant(draws, tf.int64)

        def of_shard(
            file: tf.Tensor, first: tf.Tensor, last: tf.Tensor
        ) -> tf.data.Dataset:
            def of_record(serialized: tf.Tensor) -> tf.data.Dataset:
                record = shards.parse(serialized)
                clip_id = record["clip_id"]
                range_ = [
                    tf.clip_by_value(end - before[clip_id], 0, counts[clip_id])
                    for end in (first, last)
                ]
                epoch_ = tf.constant(epoch, tf.int64)
                return tf.data.Dataset.range(*range_).map(
                    lambda draw: self._sampled(record, draw, epoch_)
                )

            return order.read_shards(file).flat_map(of_record)

        return of_shard

    def _sampled_of(
        self, record: Tensors, draw: tf.Tensor, epoch: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        choices = random_choices(self.spec, self.seed, epoch, record["clip_id"], draw)
        return sample(self.spec, record, choices), choices

    def _finish_of(self, clip: Tensors, choices: Tensors) -> Tensors:
        decoded = {"clip_id": clip["clip_id"], "label": clip["label"]}
        if "video" in self.modalities:
            decoded["video"] = decode(self.spec, clip["jpegs"])
        if "audio" in self.modalities:
            decoded["waveform"] = clip["waveform"]
        return preprocess(self.spec, decoded, choices)

    def _centre_clip_of(self, serialized: tf.Tensor, draw: tf.Tensor) -> Tensors:
        del draw  # always the first
        return self._clip(shards.parse(serialized), centre_choices())

    def _view_function(self, split: str, views: Views) -> Callable:
        """Returns (serialized record, view) -> clip; traced once for all slices."""
        key = (split, views)
        if key not in self._view_functions:
            durations_s = self.index(split).duration_s

            def view_of(serialized: tf.Tensor, view: tf.Tensor) -> Tensors:
                record = shards.parse(serialized)
                duration_s = tf.gather(durations_s, record["clip_id"])
                portrait = is_portrait(record["frames"])
                choices = view_choices(self.spec, views, duration_s, portrait, view)
                return self._clip(record, choices)

            self._view_functions[key] = tf.function(view_of, autograph=False)
        return self._view_functions[key]

    def _clip(self, record: Tensors, choices: Tensors) -> Tensors:
        return self._finish_of(sample(self.spec, record, choices), choices)

    def _padded(
        self, batches: Iterator[Batch], rows: int, num_batches: int | None, clips: int
    ) -> Iterator[Batch]:
        """So many batches of `rows` rows, or else as many as the clips need."""
        if num_batches is None:
            num_batches = -(-clips // rows)
        spec = self.spec
        side = spec.crop_size
        inputs = {
            "video": np.zeros((0, spec.num_frames, side, side, 3), np.uint8),
            "audio": np.zeros((0, spec.mel_frames, spec.mel_bins, 1), np.float32),
        }
        nothing = {
            **{name: inputs[name] for name in self.modalities},
            "clip_id": np.zeros(0, np.int32),
            "label": np.zeros(0, np.int32),
            "mask": np.zeros(0, bool),
        }
        for _ in range(num_batches):
            yield pad(next(batches, nothing), rows)
