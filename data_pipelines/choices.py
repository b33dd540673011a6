"""Which clip of a record: its time, its crop and the rest that training varies."""

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Int

from data_pipelines.clip_spec import ClipSpec
from data_pipelines.shards import SAMPLE_RATE_HZ
from data_pipelines.views import Views

Tensors = dict[str, tf.Tensor]
_LAST_PLACE = np.nextafter(np.float32(1), np.float32(0))  # choices lie in [0, 1)


def clip_spans(
    spec: ClipSpec, duration_s: Float[tf.Tensor, ""], t: Float[tf.Tensor, ""]
) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Where the clip's pictures and sound lie in its record: the one time choice.

    Args:
      spec: the clip.
      duration_s: length of the record.
      t: in [0, 1], which of the possible starts; 0.5 is the centre. A record shorter
        than the clip has one start, 0.

    Returns:
      (start, end) of the pictures and (start, end) of the sound, as
      `ClipSpec.audio_start` says, in seconds from the start of the record. They may
      reach over its ends, where it is too short.
    """
    video_s = spec.num_frames / spec.fps
    audio_s = spec.num_samples / SAMPLE_RATE_HZ
    video_start = t * tf.maximum(duration_s - video_s, 0.0)
    audio_start = spec.audio_start(video_start, duration_s, tf)
    return (
        (video_start, video_start + video_s),
        (audio_start, audio_start + audio_s),
    )


def random_choices(
    spec: ClipSpec,
    seed: int,
    epoch: Int[tf.Tensor, ""],
    clip_id: Int[tf.Tensor, ""],
    draw: Int[tf.Tensor, ""],
) -> Tensors:
    """The random choices for one clip, a function of (seed, epoch, clip_id, draw).

    Args:
      spec: which of them are wanted.
      seed: of the job; this and the following are below 2^31.
      epoch: counts from 0, int64.
      clip_id: of the record, int64.
      draw: how many clips of the record this epoch drew before, int64.

    Returns:
      Numbers in [0, 1): `t` [] (see `clip_spans`), `crop` [2] (y, x), `freq_mask` [2]
      and `time_mask` [2] (width, place); bool [] `flip`.
    """
    key = tf.stack([seed * 2**32 + epoch, clip_id * 2**32 + draw])
    uniform = tf.random.stateless_uniform([8], seed=key)
    return {
        "t": uniform[0],
        "crop": uniform[1:3] if spec.random_crop else tf.constant([0.5, 0.5]),
        "flip": uniform[3] < 0.5 if spec.flip else tf.constant(False),
        "freq_mask": uniform[4:6],
        "time_mask": uniform[6:8],
    }


def centre_choices() -> Tensors:
    """The choices of evaluation: centre in time and space, nothing that varies."""
    return {
        "t": tf.constant(0.5),
        "crop": tf.constant([0.5, 0.5]),
        "flip": tf.constant(False),
        "freq_mask": tf.zeros([2]),
        "time_mask": tf.zeros([2]),
    }


def view_choices(
    spec: ClipSpec,
    views: Views,
    duration_s: Float[tf.Tensor, ""],
    is_portrait: Bool[tf.Tensor, ""],
    view: Int[tf.Tensor, ""],
) -> Tensors:
    """The choices of one view of a record.

    Args:
      spec: of the clip.
      views: which views of a record there are.
      duration_s: length of the record.
      is_portrait: whether its pictures are higher than wide.
      view: clip times `views.crops` plus crop.
    """
    clip = tf.cast(view // views.crops, tf.float32)
    if views.stride_s is None:
        t = (clip + 0.5) / views.clips
    else:
        spare = tf.maximum(duration_s - spec.num_frames / spec.fps, 0.0)
        t = tf.minimum(
            tf.math.divide_no_nan(clip * views.stride_s, spare), tf.constant(1.0)
        )
    crop = view_crop(views, is_portrait, view % views.crops)
    return {**centre_choices(), "t": t, "crop": crop}


def view_crop(
    views: Views, is_portrait: Bool[tf.Tensor, ""], crop: Int[tf.Tensor, ""]
) -> Float[tf.Tensor, "2"]:
    """The place (y, x) of one of the crops of a clip, as in `random_choices`."""
    centre = tf.constant([0.5, 0.5])
    if views.crops == 1:
        return centre
    place = tf.minimum(tf.cast(crop, tf.float32) / 2, _LAST_PLACE)
    along = tf.stack([is_portrait, tf.logical_not(is_portrait)])  # y, x
    return tf.where(along, place, centre)
