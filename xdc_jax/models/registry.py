"""The encoders by name."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from xdc_jax.errors import UserError
from xdc_jax.models.audio_resnet import AudioResNet18, AudioResNet18Vmz
from xdc_jax.models.r2plus1d import r2plus1d_18, r2plus1d_18_torchvision

VIDEO_ENCODERS = {
    "r2plus1d_18": r2plus1d_18,
    "r2plus1d_18_torchvision": r2plus1d_18_torchvision,
}
AUDIO_ENCODERS = {
    "audio_resnet18": AudioResNet18,
    "audio_resnet18_vmz": AudioResNet18Vmz,
}


def create(
    name: str,
    *,
    width: int = 64,
    stage_sizes: Sequence[int] = (2, 2, 2, 2),
    dtype: DTypeLike = jnp.float32,
    bn_axis_name: str | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns a new encoder: `module(x, train)`, `module.feature_map(x, train)`.

    Parameters are float32 `nnx.Param`, batch statistics float32 `nnx.BatchStat`; there
    is no other state.

    Args:
      name: a key of `VIDEO_ENCODERS` or `AUDIO_ENCODERS`.
      width: channels of the first stage, 64 at full size; scales all others.
      stage_sizes: residual blocks of each stage; each stage doubles the channels.
      dtype: of the activations (bfloat16 on TPU and GPU).
      bn_axis_name: mesh axis over which batch statistics are shared; None keeps them
        per device.
      rngs: stream `params` gives the weights.

    Raises:
      UserError: unknown name, or sizes that no encoder can have.
    """
    encoders = {**VIDEO_ENCODERS, **AUDIO_ENCODERS}
    if name not in encoders:
        raise UserError(
            f"encoder: found {name!r}, expected one of {', '.join(sorted(encoders))}"
        )
    if width < 4:
        raise UserError(f"width: found {width}, expected at least 4")
    if not stage_sizes or min(stage_sizes) < 1:
        raise UserError(
            f"stage_sizes: found {tuple(stage_sizes)}, expected a number of blocks of "
            "at least 1 for each stage, such as (2, 2, 2, 2)"
        )
    return encoders[name](
        width=width,
        stage_sizes=tuple(stage_sizes),
        dtype=dtype,
        bn_axis_name=bn_axis_name,
        rngs=rngs,
    )
