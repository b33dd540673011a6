"""Prepared records to batches of clips: parse, sample, decode, batch, preprocess.

Sampling comes before decoding, so that only the frames of the clip are decoded; the
log-mel spectrograms are computed for a batch at once, so preprocessing comes last.

Everything is a function of stored numbers: the order of an epoch of (seed, epoch), the
place and augmentation of a clip of (seed, clip_id, epoch, draw). A pipeline can thus
start at any batch, and its rows can be spread over any number of processes.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Int, Int32, UInt8

from data_pipelines import audio, order, shards
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.shards import SAMPLE_RATE_HZ
from xdc_jax.errors import UserError

MODALITIES = ("video", "audio")
FRAME_ROUNDING = 1e-3  # frames; takes float32 instants to the frame they stand for

Batch = dict[str, np.ndarray]
Tensors = dict[str, tf.Tensor]


def clip_spans(
    spec: ClipSpec, duration_s: Float[tf.Tensor, ""], t: Float[tf.Tensor, ""]
) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Where the clip's pictures and sound lie in its record: the one time choice.

    The sound is centred on the pictures, then shifted as little as is needed: into the
    record, or around all of it where the record is shorter than the sound.

    Args:
      spec: the clip.
      duration_s: length of the record.
      t: in [0, 1], which of the possible starts; 0.5 is the centre. A record shorter
        than the clip has one start, 0.

    Returns:
      (start, end) of the pictures and (start, end) of the sound, in seconds from the
      start of the record. They may reach over its ends, where it is too short.
    """
    video_s = spec.num_frames / spec.fps
    audio_s = spec.num_samples / SAMPLE_RATE_HZ
    video_start = t * tf.maximum(duration_s - video_s, 0.0)
    spare = duration_s - audio_s
    audio_start = tf.clip_by_value(
        video_start + (video_s - audio_s) / 2,
        tf.minimum(spare, 0.0),
        tf.maximum(spare, 0.0),
    )
    return (
        (video_start, video_start + video_s),
        (audio_start, audio_start + audio_s),
    )


def random_choices(spec: ClipSpec, key: Tensors) -> Tensors:
    """The random choices for one clip, a function of (seed, epoch, clip_id, draw).

    Args:
      spec: which of them are wanted.
      key: int64 [] `seed`, `epoch`, `clip_id`, `draw`, each below 2^31.

    Returns:
      Numbers in [0, 1): `t` [] (see `clip_spans`), `crop` [2] (y, x), `freq_mask` [2]
      and `time_mask` [2] (width, place); and bool [] `flip`.
    """
    packed = [key["seed"] << 32 | key["epoch"], key["clip_id"] << 32 | key["draw"]]
    uniform = tf.random.stateless_uniform([8], seed=tf.stack(packed))
    return {
        "t": uniform[0],
        "crop": uniform[1:3] if spec.random_crop else tf.constant([0.5, 0.5]),
        "flip": uniform[3] < 0.5 if spec.flip else tf.constant(False),
        "freq_mask": uniform[4:6],
        "time_mask": uniform[6:8],
    }


def centre_choices() -> Tensors:
    """The choices of evaluation: centre in time and space, no mirror, no masks."""
    return {
        "t": tf.constant(0.5),
        "crop": tf.constant([0.5, 0.5]),
        "flip": tf.constant(False),
        "freq_mask": tf.zeros([2]),
        "time_mask": tf.zeros([2]),
    }


def sample(spec: ClipSpec, record: Tensors, choices: Tensors) -> Tensors:
    """Cuts the clip out of a parsed record.

    A clip longer than the pictures repeats the last one; sound outside the record is
    zeros.

    Returns:
      `frames` string [num_frames], or [0] where there are none; `waveform` int16
      [num_samples]; `clip_id`, `label` int32 [].
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
    frames = tf.gather(record["frames"], tf.boolean_mask(shown, shown >= 0))

    first = tf.cast(tf.round(audio_start * SAMPLE_RATE_HZ), tf.int32)
    before = tf.clip_by_value(-first, 0, spec.num_samples)
    heard = record["audio"][tf.maximum(first, 0) : first + spec.num_samples]
    after = spec.num_samples - before - tf.size(heard)
    return {
        "frames": frames,
        "waveform": tf.ensure_shape(
            tf.pad(heard, [[before, after]]), [spec.num_samples]
        ),
        "clip_id": tf.cast(record["clip_id"], tf.int32),
        "label": tf.cast(record["label"], tf.int32),
    }


def decode(
    spec: ClipSpec, frames: tf.Tensor, crop: Float[tf.Tensor, "2"]
) -> UInt8[tf.Tensor, "{spec.num_frames} {spec.crop_size} {spec.crop_size} 3"]:
    """Decodes, scales and crops the frames of one clip, all in the same place.

    Args:
      spec: the clip.
      frames: JPEGs of one size, string [num_frames], or [0] for a black clip.
      crop: place of the crop, [0, 1) from top to bottom and from left to right.
    """
    shape = [spec.num_frames, spec.crop_size, spec.crop_size, 3]
    video = tf.cond(
        tf.size(frames) > 0,
        lambda: _decode_jpegs(spec, frames, crop),
        lambda: tf.zeros(shape, tf.uint8),
    )
    return tf.ensure_shape(video, shape)


def _decode_jpegs(spec: ClipSpec, frames: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
    stored = tf.io.extract_jpeg_shape(frames[0])[:2]
    scale = spec.short_side / tf.reduce_min(stored)
    scaled = tf.cast(tf.round(tf.cast(stored, tf.float64) * scale), tf.int32)
    places = tf.cast(scaled - spec.crop_size + 1, tf.float32)
    corner = tf.cast(crop * places, tf.int32)
    window = tf.concat([corner, [spec.crop_size, spec.crop_size]], axis=0)
    # One operation per frame is faster than a loop over frames in the graph.
    jpegs = [frames[i] for i in range(spec.num_frames)]

    def crop_while_decoding():
        return tf.stack(
            [tf.io.decode_and_crop_jpeg(jpeg, window, channels=3) for jpeg in jpegs]
        )

    def decode_and_scale():
        video = tf.stack([tf.io.decode_jpeg(jpeg, channels=3) for jpeg in jpegs])
        video = tf.image.resize(video, scaled, antialias=True)
        y, x = corner[0], corner[1]
        video = video[:, y : y + spec.crop_size, x : x + spec.crop_size]
        return tf.saturate_cast(tf.round(video), tf.uint8)

    return tf.cond(
        tf.reduce_all(scaled == stored), crop_while_decoding, decode_and_scale
    )


def preprocess(spec: ClipSpec, batch: Tensors) -> Tensors:
    """Sound to log-mel spectrograms, masked; mirrors the clips that are to be.

    Args:
      spec: the clip.
      batch: stacked `video`, `waveform`, `clip_id`, `label`, `flip`, `freq_mask`,
        `time_mask` of the functions above.

    Returns:
      A batch as DESIGN.md, section 4 has it.
    """
    video = batch["video"]
    flip = batch["flip"][:, tf.newaxis, tf.newaxis, tf.newaxis, tf.newaxis]
    mel = audio.log_mel(
        tf.cast(batch["waveform"], tf.float32) / 2**15,
        mel_frames=spec.mel_frames,
        mel_bins=spec.mel_bins,
        hop=spec.hop,
        window=spec.window,
    )
    if spec.freq_mask:
        mel = audio.freq_mask(mel, spec.freq_mask, batch["freq_mask"])
    if spec.time_mask:
        mel = audio.time_mask(mel, spec.time_mask, batch["time_mask"])
    return {
        "video": tf.where(flip, tf.reverse(video, axis=[3]), video),
        "audio": mel[..., tf.newaxis],
        "clip_id": batch["clip_id"],
        "label": batch["label"],
        "mask": tf.ones_like(batch["clip_id"], tf.bool),
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
        # The accelerators are JAX's; TensorFlow would take a GPU's whole memory.
        tf.config.set_visible_devices([], "GPU")
        self.spec = spec
        self.seed = seed
        self.class_names = prepared.class_names
        self.fingerprint = prepared.fingerprint
        self._prepared = prepared

    def num_clips(self, split: str) -> int:
        """How many records the split has."""
        return len(self._index(split))

    def labels(self, split: str) -> Int32[np.ndarray, " clips"]:
        """Class id of each record, -1 where unlabelled."""
        return self._index(split).label

    def usable(
        self, split: str, modalities: Sequence[str] = MODALITIES
    ) -> Bool[np.ndarray, " clips"]:
        """True for the records that have all of `modalities`."""
        index = self._index(split)
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
        index = self._index(split)
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
        return self._batches(records, rows, epoch).as_numpy_iterator()

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

        The last batch is filled with zeros, ids and labels -1, where `mask` is False.
        Arguments and errors are those of `train_batches`.
        """
        index = self._index(split)
        rows = order.rows_per_process(batch_size, process_count)
        wanted = np.ones(len(index), bool)
        if clip_ids is not None:
            wanted = np.zeros(len(index), bool)
            wanted[clip_ids] = True
        records = tf.data.TFRecordDataset(index.files)
        records = order.drawn_records(records, wanted.astype(np.int32))
        records = order.rows_of_process(records, batch_size, rows, process_index)
        batches = self._batches(records, rows, epoch=None).as_numpy_iterator()
        return self._padded(batches, rows, -(-int(wanted.sum()) // batch_size))

    def _index(self, split: str) -> shards.SplitIndex:
        if split not in self._prepared.splits:
            raise UserError(
                f"split: found {split!r}, but {self._prepared.data_dir} has "
                f"{', '.join(sorted(self._prepared.splits))}. Choose one of these."
            )
        return self._prepared.splits[split]

    def _batches(
        self, records: tf.data.Dataset, rows: int, epoch: int | None
    ) -> tf.data.Dataset:
        """Drawn records to batches; `epoch` None is evaluation."""

        def clip(serialized: tf.Tensor, draw: tf.Tensor) -> Tensors:
            record = shards.parse(serialized)
            if epoch is None:
                choices = centre_choices()
            else:
                choices = random_choices(
                    self.spec,
                    {
                        "seed": tf.constant(self.seed, tf.int64),
                        "epoch": tf.constant(epoch, tf.int64),
                        "clip_id": record["clip_id"],
                        "draw": draw,
                    },
                )
            sampled = sample(self.spec, record, choices)
            video = decode(self.spec, sampled.pop("frames"), choices["crop"])
            return {**sampled, **choices, "video": video}

        threads = os.cpu_count()
        batches = records.map(clip, num_parallel_calls=threads)
        batches = batches.batch(rows)
        batches = batches.map(
            lambda batch: preprocess(self.spec, batch), num_parallel_calls=threads
        )
        options = tf.data.Options()
        options.deterministic = True
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = 1
        return batches.prefetch(2).with_options(options)

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
        filling = {"clip_id": -1, "label": -1}
        for _ in range(num_batches):
            batch = next(batches, nothing)
            missing = rows - len(batch["mask"])
            yield {
                key: np.pad(
                    value,
                    [(0, missing)] + [(0, 0)] * (value.ndim - 1),
                    constant_values=filling.get(key, 0),
                )
                if missing
                else value
                for key, value in batch.items()
            }
