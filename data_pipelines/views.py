"""The clips of a record whose features are wanted: in time, in space, or windows."""

import dataclasses

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Int

from data_pipelines.choices import centre_choices
from data_pipelines.clip_spec import ClipSpec
from xdc_jax.errors import UserError

Tensors = dict[str, tf.Tensor]
_LAST_PLACE = np.nextafter(np.float32(1), np.float32(0))  # choices lie in [0, 1)


@dataclasses.dataclass(frozen=True)
class Views:
    """Which clips of each record are looked at.

    Attributes:
      clips: clips per record, evenly spread over its length; one is the centre.
      crops: 1 takes the centre square of a clip, 3 both ends and the centre of its
        longer side.
      stride_s: a clip every so many seconds from the record's start on, instead of
        `clips`; the last one ends with the record or before.
    """

    clips: int = 1
    crops: int = 1
    stride_s: float | None = None

    def __post_init__(self):
        if self.clips < 1:
            raise UserError(f"clips: found {self.clips}, expected at least 1.")
        if self.crops not in (1, 3):
            raise UserError(f"crops: found {self.crops}, expected 1 or 3.")
        if self.stride_s is not None and not 0 < self.stride_s < float("inf"):
            raise UserError(f"stride_s: found {self.stride_s}, expected more than 0.")

    def starts(self, spec: ClipSpec, duration_s: float) -> Float[np.ndarray, " clips"]:
        """Returns when the clips of a record start, seconds from its start."""
        spare = max(duration_s - spec.num_frames / spec.fps, 0.0)
        if self.stride_s is None:
            return (np.arange(self.clips) + 0.5) / self.clips * spare
        # A record is as long as its frames say, to a rounding error.
        return np.arange(int(spare / self.stride_s + 1e-6) + 1) * self.stride_s

    def choices(
        self,
        spec: ClipSpec,
        duration_s: Float[tf.Tensor, ""],
        is_portrait: Bool[tf.Tensor, ""],
        view: Int[tf.Tensor, ""],
    ) -> Tensors:
        """Returns the choices (see `choices.centre_choices`) of one view of a record.

        Args:
          spec: of the clip.
          duration_s: length of the record.
          is_portrait: whether its pictures are higher than wide.
          view: clip times `crops` plus crop.
        """
        clip = tf.cast(view // self.crops, tf.float32)
        if self.stride_s is None:
            t = (clip + 0.5) / self.clips
        else:
            spare = tf.maximum(duration_s - spec.num_frames / spec.fps, 0.0)
            t = tf.minimum(
                tf.math.divide_no_nan(clip * self.stride_s, spare), tf.constant(1.0)
            )
        crop = tf.constant([0.5, 0.5])
        if self.crops == 3:
            place = tf.minimum(tf.cast(view % 3, tf.float32) / 2, _LAST_PLACE)
            along = tf.stack([is_portrait, tf.logical_not(is_portrait)])  # y, x
            crop = tf.where(along, place, crop)
        return {**centre_choices(), "t": t, "crop": crop}
