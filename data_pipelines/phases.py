"""From a parsed record to a clip in a batch: sample, decode, preprocess.

Three of the five phases, as in dmvr; `parse` is that of `shards`, `batch` that of
`clips`. Sampling comes before decoding, so that only the frames of a clip are decoded.
"""

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int16, UInt8

from data_pipelines import audio
from data_pipelines.choices import clip_spans
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.shards import SAMPLE_RATE_HZ

FRAME_ROUNDING = 1e-3  # frames; takes float32 instants to the frame they stand for

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
    video: UInt8[tf.Tensor, "time height width 3"], short_side: int
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

    `video` and `waveform` are worked on where the clip has them.
    """
    batched = {
        "clip_id": tf.cast(clip["clip_id"], tf.int32),
        "label": tf.cast(clip["label"], tf.int32),
        "mask": tf.constant(True),
    }
    if "video" in clip:
        batched["video"] = _pictures(spec, clip["video"], choices)
    if "waveform" in clip:
        batched["audio"] = _spectrogram(spec, clip["waveform"], choices)
    return batched


def _pictures(
    spec: ClipSpec, video: UInt8[tf.Tensor, "time height width 3"], choices: Tensors
) -> UInt8[tf.Tensor, "time crop crop 3"]:
    """Scales the pictures, cuts out the same square of each, mirrors all or none."""
    size = spec.crop_size
    video = scale(video, spec.short_side)
    places = tf.cast(tf.shape(video)[1:3] - size + 1, tf.float32)
    corner = tf.cast(choices["crop"] * places, tf.int32)
    y, x = corner[0], corner[1]
    video = video[:, y : y + size, x : x + size]
    video = tf.ensure_shape(video, [spec.num_frames, size, size, 3])
    if spec.flip:
        video = tf.cond(choices["flip"], lambda: _mirrored(video), lambda: video)
    return video


def _spectrogram(
    spec: ClipSpec, waveform: Int16[tf.Tensor, " samples"], choices: Tensors
) -> Float32[tf.Tensor, "frames mels 1"]:
    """Turns the sound into a log-mel spectrogram and masks it.

    It is made for one clip at a time, although for a batch it would be faster: a matrix
    product may round differently for another batch size, and so for another number of
    processes.
    """
    mel = audio.log_mel(
        tf.cast(waveform, tf.float32)[tf.newaxis] / 2**15,
        mel_frames=spec.mel_frames,
        mel_bins=spec.mel_bins,
        hop=spec.hop,
        window=spec.window,
    )
    if spec.freq_mask:
        mel = audio.freq_mask(mel, spec.freq_mask, choices["freq_mask"][tf.newaxis])
    if spec.time_mask:
        mel = audio.time_mask(mel, spec.time_mask, choices["time_mask"][tf.newaxis])
    return mel[0, :, :, tf.newaxis]


def _mirrored(video: tf.Tensor) -> tf.Tensor:
    # Three dimensions, because tf.reverse is several times slower on four.
    rows = tf.reshape(video, [-1, *video.shape[2:]])
    return tf.reshape(tf.reverse(rows, axis=[1]), video.shape)
