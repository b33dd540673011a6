"""What the video and the audio encoder are made of: conv-norm pairs and blocks."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from xdc_jax.errors import UserError
from xdc_jax.models.batch_norm import BatchNorm
from xdc_jax.models.convolution import Conv


class ConvNorm(nnx.Module):
    """A convolution and its batch norm."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        window: Sequence[int],
        strides: Sequence[int],
        *,
        bn_eps: float,
        bn_axis_name: str | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_features, out_features, window, strides, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(out_features, eps=bn_eps, axis_name=bn_axis_name)

    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Returns norm(conv(x))."""
        return self.norm(self.conv(x), train)


class BasicBlock(nnx.Module):
    """ResNet's block of two convolutions (He et al. 2016): relu(f(x) + shortcut(x))."""

    def __init__(
        self, first: nnx.Module, second: nnx.Module, shortcut: ConvNorm | None
    ):
        """Joins two normalised convolutions; `shortcut` None means the identity."""
        self.first = first
        self.second = second
        self.shortcut = shortcut

    def __call__(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Returns the block's output in the activation dtype."""
        y = self.second(jax.nn.relu(self.first(x, train)), train)
        return jax.nn.relu(
            y + (x if self.shortcut is None else self.shortcut(x, train))
        )


def stack_blocks(
    make_block: Callable[[int, int, int], BasicBlock],
    in_features: int,
    width: int,
    stage_sizes: Sequence[int],
    first_stride: int,
) -> list[BasicBlock]:
    """Returns the residual stages as one list of blocks.

    Args:
      make_block: (in_features, out_features, stride) -> block.
      in_features: channels that enter the first stage.
      width: channels of the first stage; each later stage has twice as many.
      stage_sizes: blocks of each stage.
      first_stride: stride of the first stage; that of each later one is 2.
    """
    blocks = []
    for stage, size in enumerate(stage_sizes):
        out_features = width * 2**stage
        for index in range(size):
            stride = 1 if index else (2 if stage else first_stride)
            blocks.append(make_block(in_features, out_features, stride))
            in_features = out_features
    return blocks


def check_input(x: Array, expected: tuple[str, ...], channels: int) -> None:
    """Raises UserError unless `x` has the named dimensions and so many channels."""
    if x.ndim != len(expected) or x.shape[-1] != channels:
        raise UserError(
            f"encoder input: found shape {x.shape}, expected "
            f"[{', '.join(expected)}] with {expected[-1]} = {channels}; check which "
            "modality goes into which encoder, and the order of the dimensions"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(
            f"encoder input: found {x.dtype}, expected floats; normalise uint8 clips "
            "before the encoder"
        )
