"""ResNet-18 audio encoders on log-mel spectrograms.

XDC's own audio encoder was not released and its stem is not published: the family is
known (ResNet-18 on mel spectrograms, HumamAlwassel/XDC issue 4), the rest is not.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from xdc_jax.models.convolution import Conv
from xdc_jax.models.residual import BasicBlock, ConvNorm, check_input, stack_blocks

INPUT_DIMENSIONS = ("batch", "frames", "mels", "channels")


def basic_block(
    in_features: int, out_features: int, stride: int, **settings
) -> BasicBlock:
    """Returns a block of two 3x3 convolutions; `settings` are those of `ConvNorm`."""
    is_identity = stride == 1 and in_features == out_features
    return BasicBlock(
        ConvNorm(in_features, out_features, (3, 3), (stride, stride), **settings),
        ConvNorm(out_features, out_features, (3, 3), (1, 1), **settings),
        None
        if is_identity
        else ConvNorm(in_features, out_features, (1, 1), (stride, stride), **settings),
    )


class AudioResNet18(nnx.Module):
    """ResNet-18 with torchvision's stem less its max-pool; this project's own choice.

    Stem 7x7 with stride 2, batch norm and ReLU; four stages of basic blocks, all but
    the first with stride 2; average. The stem is our choice because XDC's is
    unpublished; without the pooling [100, 40] log-mels end as a 7x3 map. Batch norm
    eps is PyTorch's 1e-5.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        dtype: DTypeLike = jnp.float32,
        bn_axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the weights; the arguments are those of `registry.create`."""
        settings = {
            "bn_eps": 1e-5,
            "bn_axis_name": bn_axis_name,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.stem = ConvNorm(1, width, (7, 7), (2, 2), **settings)
        make_block = partial(basic_block, **settings)
        self.blocks = nnx.List(stack_blocks(make_block, width, width, stage_sizes, 1))
        self.feature_dim = width * 2 ** (len(stage_sizes) - 1)

    def __call__(
        self, x: Float[Array, "b frames mels 1"], train: bool
    ) -> Float[Array, "b {self.feature_dim}"]:
        """Returns float32 features: the average of the last map."""
        return self.feature_map(x, train).mean((1, 2), dtype=jnp.float32)

    def feature_map(
        self, x: Float[Array, "b frames mels 1"], train: bool
    ) -> Float[Array, "b frames2 mels2 {self.feature_dim}"]:
        """Returns the last map, 1/16 in both dimensions with four stages.

        Args:
          x: log-mel spectrograms.
          train: batch norm by batch statistics, which updates the running ones.

        Raises:
          UserError: `x` has another rank, another number of channels, or integers.
        """
        check_input(x, INPUT_DIMENSIONS, 1)
        x = jax.nn.relu(self.stem(x, train))
        for block in self.blocks:
            x = block(x, train)
        return x


class AudioResNet18Vmz(nnx.Module):
    """The audio network of the authors' group, which may or may not be XDC's.

    A 3x3 convolution with bias and without batch norm or ReLU, three extra basic blocks
    (the first with stride 2), four stages of basic blocks, all with stride 2; maximum.
    Batch norm eps 1e-3. Source: `create_acoustic_resnet` in facebookresearch/VMZ,
    c2/lib/models/audio_visual_model.py.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        dtype: DTypeLike = jnp.float32,
        bn_axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the weights; the arguments are those of `registry.create`."""
        settings = {
            "bn_eps": 1e-3,
            "bn_axis_name": bn_axis_name,
            "dtype": dtype,
            "rngs": rngs,
        }
        make_block = partial(basic_block, **settings)
        narrow, half = width // 4, width // 2
        self.stem = Conv(
            1, narrow, (3, 3), (1, 1), use_bias=True, dtype=dtype, rngs=rngs
        )
        self.extra_blocks = nnx.List(
            [
                make_block(narrow, half, 2),
                make_block(half, half, 1),
                make_block(half, half, 1),
            ]
        )
        self.blocks = nnx.List(stack_blocks(make_block, half, width, stage_sizes, 2))
        self.feature_dim = width * 2 ** (len(stage_sizes) - 1)

    def __call__(
        self, x: Float[Array, "b frames mels 1"], train: bool
    ) -> Float[Array, "b {self.feature_dim}"]:
        """Returns float32 features: the maximum of the last map."""
        last_map = self.feature_map(x, train)
        # Not `.max`: its gradient goes where the map equals its maximum, and XLA may
        # compute the two with different rounding and so find no such place.
        pooled = nnx.max_pool(last_map, last_map.shape[1:3])
        return pooled[:, 0, 0].astype(jnp.float32)

    def feature_map(
        self, x: Float[Array, "b frames mels 1"], train: bool
    ) -> Float[Array, "b frames2 mels2 {self.feature_dim}"]:
        """Returns the last map, 1/32 in both dimensions with four stages.

        Args:
          x: log-mel spectrograms.
          train: batch norm by batch statistics, which updates the running ones.

        Raises:
          UserError: `x` has another rank, another number of channels, or integers.
        """
        check_input(x, INPUT_DIMENSIONS, 1)
        x = self.stem(x)
        for block in self.extra_blocks:
            x = block(x, train)
        for block in self.blocks:
            x = block(x, train)
        return x
