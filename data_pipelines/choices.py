"""Which clip of a record: its time, its crop and the rest that training varies."""

import tensorflow as tf
from jaxtyping import Float, Int

from data_pipelines.clip_spec import ClipSpec
from data_pipelines.shards import SAMPLE_RATE_HZ

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
      and `time_mask` [2] (width, place); and bool [] `flip`.
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
    """The choices of evaluation: centre in time and space, no mirror, no masks."""
    return {
        "t": tf.constant(0.5),
        "crop": tf.constant([0.5, 0.5]),
        "flip": tf.constant(False),
        "freq_mask": tf.zeros([2]),
        "time_mask": tf.zeros([2]),
    }
