"""Prepared records to batches of clips: parse, sample, decode, preprocess, batch.

The five phases are five functions (`parse` is that of `shards`), as in dmvr. Sampling
comes before decoding, so that only the frames of the clip are decoded.

Everything is a function of stored numbers: the order of an epoch of (seed, epoch), the
place and augmentation of a clip of (seed, clip_id, epoch, draw). A pipeline can thus
start at any batch, and its rows can be spread over any number of processes.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int, Int32, UInt8

from data_pipelines import audio, order, shards
from data_pipelines.choices import (
    centre_choices,
    clip_spans,
    random_choices,
    view_choices,
)
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.views import Views
from xdc_jax.errors import UserError

MODALITIES = ("video", "audio")
FRAME_ROUNDING = 1e-3  # frames; takes float32 instants to the frame they stand for

Batch = dict[str, np.ndarray]
Tensors = dict[str, tf.Tensor]


def sample(spec: ClipSpec, record: Tensors, choices: Tensors) -> Tensors:
    """Cuts the clip out of a parsed record.

    A clip longer than the pictures repeats the last one; sound outside the record is
    zeros.

    Returns:
      `jpegs` string [num_frames], or [0] where there are none; `waveform` int16
      [num_samples]; `clip_id`, `label` int64 [].
    """
    num_frames = tf.size(record["frames"])
    length = tf.size(record["audio"])
    duration_s = tf.where(
        num_frames > 0,
        tf.math.divide_no_nan(tf.cast(num_frames, tf.float32), record["fps"]),
        tf.cast(length, tf.float32) / SAMPLE_RATE_HZ,
    )
    (video_start, _), (audio_start, _) = clip_spans(spec, duration_s, choices["t"])

    instants = video_start + np.arange(spec.num_frames, dtype=np.float32) / spec.fps
    shown = tf.cast(instants * record["fps"] + FRAME_ROUNDING, tf.int32)
    shown = tf.minimum(shown, num_frames - 1)
    shown = tf.boolean_mask(shown, shown >= 0)  # none of none

    first = tf.cast(tf.round(audio_start * SAMPLE_RATE_HZ), tf.int32)
    before = tf.clip_by_value(-first, 0, spec.num_samples)
    heard = record["audio"][tf.maximum(first, 0) : first + spec.num_samples]
    after = spec.num_samples - before - tf.size(heard)
    waveform = tf.pad(heard, [[before, after]])
    return {
        "jpegs": tf.gather(record["frames"], shown),
        "waveform": tf.ensure_shape(waveform, [spec.num_samples]),
        "clip_id": record["clip_id"],
        "label": record["label"],
    }


def decode(
    spec: ClipSpec, jpegs: tf.Tensor
) -> UInt8[tf.Tensor, "{spec.num_frames} height width 3"]:
    """Decodes the frames of one clip, string [num_frames]; a black clip from [0].

    The whole frames: for frames of some hundred pixels `tf.io.decode_and_crop_jpeg` is
    no faster, and it changes the colours at the sides of the crop.
    """

    def pictures() -> tf.Tensor:
        # One operation per frame: a loop in the graph takes longer. The accurate DCT is
        # as fast as the default, and gives the pixels that other decoders give.
        return tf.stack(
            [
                tf.io.decode_jpeg(jpegs[i], channels=3, dct_method="INTEGER_ACCURATE")
                for i in range(spec.num_frames)
            ]
        )

    def black() -> tf.Tensor:
        side = spec.short_side
        return tf.zeros([spec.num_frames, side, side, 3], tf.uint8)

    return tf.cond(tf.size(jpegs) > 0, pictures, black)


def is_portrait(frames: tf.Tensor) -> tf.Tensor:
    """Whether JPEGs, string [num_frames], are higher than wide; False of none."""

    def measured() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(frames[0])
        return shape[0] > shape[1]

    return tf.cond(tf.size(frames) > 0, measured, lambda: tf.constant(False))


def scale(
    video: UInt8[tf.Tensor, "time height width 3"], short_side: Int[tf.Tensor, ""]
) -> UInt8[tf.Tensor, "time scaled_height scaled_width 3"]:
    """Brings the shorter side to `short_side`, unless it is that already."""
    stored = tf.shape(video)[1:3]
    factor = short_side / tf.reduce_min(stored)
    scaled = tf.cast(tf.round(tf.cast(stored, tf.float64) * factor), tf.int32)

    def resized() -> tf.Tensor:
        pixels = tf.image.resize(video, scaled, antialias=True)
        return tf.saturate_cast(tf.round(pixels), tf.uint8)

    return tf.cond(tf.reduce_all(scaled == stored), lambda: video, resized)


def preprocess(spec: ClipSpec, clip: Tensors, choices: Tensors) -> Tensors:
    """A decoded clip as it stands in a batch (DESIGN.md, section 4).

    Scales the pictures, cuts out the same square of each, mirrors all or none; turns
    the sound into a log-mel spectrogram and masks it. The spectrogram is made for one
    clip at a time, although for a batch it would be faster: a matrix product may round
    differently for another batch size, and so for another number of processes.
    """
    size = spec.crop_size
    video = scale(clip["video"], choices["short_side"])
    places = tf.cast(tf.shape(video)[1:3] - size + 1, tf.float32)
    corner = tf.cast(choices["crop"] * places, tf.int32)
    y, x = corner[0], corner[1]
    video = video[:, y : y + size, x : x + size]
    video = tf.ensure_shape(video, [spec.num_frames, size, size, 3])
    if spec.flip:
        video = tf.cond(choices["flip"], lambda: _mirrored(video), lambda: video)

    mel = audio.log_mel(
        tf.cast(clip["waveform"], tf.float32)[tf.newaxis] / 2**15,
        mel_frames=spec.mel_frames,
        mel_bins=spec.mel_bins,
        hop=spec.hop,
        window=spec.window,
    )
    if spec.freq_mask:
        mel = audio.freq_mask(mel, spec.freq_mask, choices["freq_mask"][tf.newaxis])
    if spec.time_mask:
        mel = audio.time_mask(mel, spec.time_mask, choices["time_mask"][tf.newaxis])
    return {
        "video": video,
        "audio": mel[0, :, :, tf.newaxis],
        "clip_id": tf.cast(clip["clip_id"], tf.int32),
        "label": tf.cast(clip["label"], tf.int32),
        "mask": tf.constant(True),
    }


def _mirrored(video: tf.Tensor) -> tf.Tensor:
    # Three dimensions, because tf.reverse is several times slower on four.
    rows = tf.reshape(video, [-1, *video.shape[2:]])
    return tf.reshape(tf.reverse(rows, axis=[1]), video.shape)


def batch(clips: tf.data.Dataset, rows: int) -> tf.data.Dataset:
    """Batches of `rows` clips, ready before they are asked for."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = os.cpu_count()
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
    """

    def __init__(self, prepared: shards.PreparedData, spec: ClipSpec, seed: int):
        if not 0 <= seed < 2**31:
            raise UserError(f"seed: found {seed}, expected 0 to {2**31 - 1}.")
        prepare_tensorflow()
        self.spec = spec
        self.seed = seed
        self.data_dir = prepared.data_dir
        self.splits = tuple(prepared.splits)
        self.class_names = prepared.class_names
        self.fingerprint = prepared.fingerprint
        self._prepared = prepared
        # Traced once, not once per epoch: tracing takes as long as hundreds of clips.
        self._random_clip = tf.function(self._random_clip_of, autograph=False)
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
        records = order.shuffled_records(index.files, draws, (self.seed, epoch))
        records = records.skip(start_batch * batch_size)
        records = records.take(max(0, num_batches - start_batch) * batch_size)
        records = order.rows_of_process(records, batch_size, rows, process_index)
        clips = records.map(
            lambda serialized, draw: self._random_clip(
                serialized, draw, tf.constant(epoch, tf.int64)
            ),
            num_parallel_calls=os.cpu_count(),
        )
        return batch(clips, rows).as_numpy_iterator()

    def eval_batches(
        self,
        split: str,
        *,
        batch_size: int,
        clip_ids: Int[np.ndarray, " wanted"] | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Batch]:
        """The centre clip of every record, or of `clip_ids`, once, by ascending id.

        The last batch is filled (`pad`).
        Arguments and errors are those of `train_batches`.
        """
        index = self.index(split)
        rows = order.rows_per_process(batch_size, process_count)
        wanted = np.ones(len(index), bool)
        if clip_ids is not None:
            wanted = np.zeros(len(index), bool)
            wanted[clip_ids] = True
        records = order.read_shards(index.files)
        records = order.drawn_records(records, wanted.astype(np.int32))
        records = order.rows_of_process(records, batch_size, rows, process_index)
        clips = records.map(self._centre_clip, num_parallel_calls=os.cpu_count())
        batches = batch(clips, rows).as_numpy_iterator()
        return self._padded(batches, rows, -(-int(wanted.sum()) // batch_size))

    def view_batches(
        self, split: str, views: Views, *, batch_size: int, clip_ids: range
    ) -> Iterator[Batch]:
        """Views of some records, in order of clip id and view.

        Args:
          split: the split.
          views: which views of each record.
          batch_size: clips per batch; the last one is filled as in `eval_batches`.
          clip_ids: of the records, one after the other.
        """
        index = self.index(split)
        draws = np.zeros(len(index), np.int32)
        for clip_id in clip_ids:
            starts = views.starts(self.spec, float(index.duration_s[clip_id]))
            draws[clip_id] = len(starts) * views.crops
        first, last = index.shards_of(clip_ids)
        records = order.read_shards(index.files[first : last + 1])
        records = order.drawn_records(records, draws)
        clips = records.map(
            self._view_function(split, views), num_parallel_calls=os.cpu_count()
        )
        batches = batch(clips, batch_size).as_numpy_iterator()
        return self._padded(batches, batch_size, -(-int(draws.sum()) // batch_size))

    def index(self, split: str) -> shards.SplitIndex:
        """What is known of the records of a split without reading them."""
        if split not in self._prepared.splits:
            raise UserError(
                f"split: found {split!r}, but {self._prepared.data_dir} has "
                f"{', '.join(sorted(self._prepared.splits))}. Choose one of these."
            )
        return self._prepared.splits[split]

    def _random_clip_of(
        self, serialized: tf.Tensor, draw: tf.Tensor, epoch: tf.Tensor
    ) -> Tensors:
        record = shards.parse(serialized)
        choices = random_choices(self.spec, self.seed, epoch, record["clip_id"], draw)
        return self._clip(record, choices)

    def _centre_clip_of(self, serialized: tf.Tensor, draw: tf.Tensor) -> Tensors:
        del draw  # always the first
        return self._clip(shards.parse(serialized), centre_choices(self.spec))

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
        clip = sample(self.spec, record, choices)
        clip["video"] = decode(self.spec, clip["jpegs"])
        return preprocess(self.spec, clip, choices)

    def _padded(
        self, batches: Iterator[Batch], rows: int, num_batches: int
    ) -> Iterator[Batch]:
        """Exactly `num_batches` batches of `rows` rows, whatever `batches` has."""
        spec = self.spec
        nothing = {
            "video": np.zeros(
                (0, spec.num_frames, spec.crop_size, spec.crop_size, 3), np.uint8
            ),
            "audio": np.zeros((0, spec.mel_frames, spec.mel_bins, 1), np.float32),
            "clip_id": np.zeros(0, np.int32),
            "label": np.zeros(0, np.int32),
            "mask": np.zeros(0, bool),
        }
        for _ in range(num_batches):
            yield pad(next(batches, nothing), rows)
