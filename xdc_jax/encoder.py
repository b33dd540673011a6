"""A trained encoder as a function: clips in, features out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from xdc_jax import convert
from xdc_jax.errors import UserError
from xdc_jax.training import steps
from xdc_jax.weights.encoder_dir import SavedEncoder


class Encoder:
    """A video or audio encoder in evaluation mode, jitted for each shape of its input.

    Attributes:
        saved: its structure, weights and where they come from.
        feature_dim: width of the features.
    """

    def __init__(self, saved: SavedEncoder, dtype: DTypeLike = jnp.float32):
        """Puts the weights on the default device.

        Args:
            saved: the encoder.
            dtype: of the activations; bfloat16 is faster on TPU and GPU.
        """
        self.saved = saved
        network = saved.network(dtype)
        self.feature_dim = network.feature_dim
        variables = saved.variables
        self._variables = jax.device_put((variables.params, variables.batch_stats))

        @functools.partial(jax.jit, static_argnames="pooled")
        def apply(variables, clips, pooled):
            inputs = steps.encoder_inputs(network, {network.modality: clips})
            return network.apply(*variables, inputs, False, pooled)[0]

        self._apply = apply

    def __call__(self, clips: Array | np.ndarray) -> Float[Array, "b d"]:
        """Returns features: the last map, pooled over time and space.

        Args:
            clips: video as uint8 RGB `[batch, time, height, width, 3]`, 0 to 255, or
                log-mel spectrograms as float32 `[batch, frames, mels, 1]`.

        Raises:
            UserError: another shape or type, or values that cannot be right.
        """
        return self._apply(self._variables, self._checked(clips), pooled=True)

    def feature_map(self, clips: Array | np.ndarray) -> Float[Array, "b *n d"]:
        """Returns the last map: for video `[batch, time, height, width, d]`.

        Time is an eighth of the clip's, height and width a sixteenth, rounded up.
        Arguments and errors are those of calling the encoder.
        """
        return self._apply(self._variables, self._checked(clips), pooled=False)

    def _checked(self, clips: Array | np.ndarray) -> Array | np.ndarray:
        if not isinstance(clips, (np.ndarray, jax.Array)):
            clips = np.asarray(clips)
        if self.saved.spec.modality == "audio":
            if clips.ndim != 4 or clips.shape[-1] != 1 or clips.dtype != np.float32:
                raise UserError(
                    f"audio clips: found {clips.dtype} {clips.shape}, expected float32 "
                    "[batch, frames, mels, 1]: log-mel spectrograms"
                )
            if not jnp.isfinite(clips).all():
                raise UserError("audio clips: found NaN or infinity in a spectrogram")
            return clips
        if clips.ndim != 5 or clips.shape[-1] != 3:
            raise UserError(
                f"video clips: found shape {clips.shape}, expected [batch, time, "
                "height, width, 3]; add the batch dimension, and put channels last"
            )
        if clips.dtype != np.uint8:
            raise UserError(
                f"video clips: found {clips.dtype}, expected uint8 RGB from 0 to 255; "
                "the encoder normalises them itself"
            )
        return clips


def load_encoder(
    weights: epath.PathLike, modality: str | None = None, dtype: DTypeLike = jnp.float32
) -> Encoder:
    """Loads an encoder, as in `load_encoder("r2plus1d_18_xdc_audioset")`.

    Args:
        weights: the name of a released checkpoint (downloaded once), a PyTorch file, a
            folder that `xdc convert` wrote, or a workdir of `xdc pretrain`. The first
            two need the extra `convert`.
        modality: which encoder of a workdir: `video` or `audio`.
        dtype: of the activations; bfloat16 is faster on TPU and GPU.

    Raises:
        UserError: there is no such encoder, or its file is damaged.
    """
    return Encoder(convert.load(weights, modality), dtype)
