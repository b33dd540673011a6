"""R(2+1)D video encoders (Tran et al. 2018), as XDC released and as in torchvision."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from xdc_jax.models.residual import BasicBlock, ConvNorm, check_input, stack_blocks


def mid_planes(in_features: int, out_features: int) -> int:
    """Returns the mid-planes that give a factored 3x3x3 convolution its parameters."""
    return in_features * out_features * 27 // (in_features * 9 + 3 * out_features)


def mid_planes_per_convolution(in_features: int, out_features: int) -> tuple[int, int]:
    """Returns both mid-planes of a block as in XDC and VMZ: each from its own sizes."""
    return (
        mid_planes(in_features, out_features),
        mid_planes(out_features, out_features),
    )


def mid_planes_per_block(in_features: int, out_features: int) -> tuple[int, int]:
    """Returns both mid-planes of a block as in torchvision: the first one's twice."""
    return (mid_planes(in_features, out_features),) * 2


class FactoredConvNorm(nnx.Module):
    """A 1xkxk convolution, batch norm and ReLU, then a 3x1x1 one and batch norm."""

    def __init__(
        self,
        in_features: int,
        mid_features: int,
        out_features: int,
        window: int,
        spatial_stride: int,
        temporal_stride: int,
        **settings,
    ):
        """Makes both; `settings` are those of `ConvNorm`."""
        self.spatial = ConvNorm(
            in_features,
            mid_features,
            (1, window, window),
            (1, spatial_stride, spatial_stride),
            **settings,
        )
        self.temporal = ConvNorm(
            mid_features, out_features, (3, 1, 1), (temporal_stride, 1, 1), **settings
        )

    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t2 h2 w2 d"]:
        """Returns the normalised output, before the ReLU."""
        return self.temporal(jax.nn.relu(self.spatial(x, train)), train)


class R2Plus1D(nnx.Module):
    """R(2+1)D: clips to features of `feature_dim` channels.

    Stem 1x7x7 with stride (1, 2, 2) and 3x1x1, no pooling; stages of basic blocks of
    factored convolutions, all but the first striding by 2 in time and space; average.
    """

    def __init__(
        self,
        *,
        block_mid_planes: Callable[[int, int], tuple[int, int]],
        bn_eps: float,
        width: int = 64,
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        dtype: DTypeLike = jnp.float32,
        bn_axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the weights; see `registry.create` for the arguments not named here.

        Args:
          block_mid_planes: (in, out) of a block -> mid-planes of its two convolutions.
          bn_eps: of every batch norm.
          width: channels of the first stage; the stem's 45 mid-planes scale with it.
          stage_sizes: blocks of each stage.
          dtype: of the activations.
          bn_axis_name: mesh axis for synchronised batch statistics.
          rngs: stream `params` gives the weights.
        """
        settings = {
            "bn_eps": bn_eps,
            "bn_axis_name": bn_axis_name,
            "dtype": dtype,
            "rngs": rngs,
        }

        def make_block(in_features: int, out_features: int, stride: int) -> BasicBlock:
            first, second = block_mid_planes(in_features, out_features)
            is_identity = stride == 1 and in_features == out_features
            return BasicBlock(
                FactoredConvNorm(
                    in_features, first, out_features, 3, stride, stride, **settings
                ),
                FactoredConvNorm(
                    out_features, second, out_features, 3, 1, 1, **settings
                ),
                None
                if is_identity
                else ConvNorm(
                    in_features, out_features, (1, 1, 1), (stride,) * 3, **settings
                ),
            )

        self.stem = FactoredConvNorm(3, 45 * width // 64, width, 7, 2, 1, **settings)
        self.blocks = nnx.List(stack_blocks(make_block, width, width, stage_sizes, 1))
        self.feature_dim = width * 2 ** (len(stage_sizes) - 1)

    def __call__(
        self, x: Float[Array, "b t h w 3"], train: bool
    ) -> Float[Array, "b {self.feature_dim}"]:
        """Returns float32 features: the average of the last map."""
        return self.feature_map(x, train).mean((1, 2, 3), dtype=jnp.float32)

    def feature_map(
        self, x: Float[Array, "b t h w 3"], train: bool
    ) -> Float[Array, "b t2 h2 w2 {self.feature_dim}"]:
        """Returns the last map, 1/8 in time and 1/16 in space with four stages.

        Args:
          x: RGB clips, normalised per channel.
          train: batch norm by batch statistics, which updates the running ones.

        Raises:
          UserError: `x` has another rank, another number of channels, or integers.
        """
        check_input(x, ("batch", "time", "height", "width", "channels"), 3)
        x = jax.nn.relu(self.stem(x, train))
        for block in self.blocks:
            x = block(x, train)
        return x


def r2plus1d_18(**settings) -> R2Plus1D:
    """Returns the encoder of the released XDC models.

    Mid-planes per convolution, batch norm eps 1e-3: 33,165,639 parameters. Source:
    HumamAlwassel/XDC, model/r2plus1d_18.py. `settings` are those of `R2Plus1D`.
    """
    return R2Plus1D(
        block_mid_planes=mid_planes_per_convolution, bn_eps=1e-3, **settings
    )


def r2plus1d_18_torchvision(**settings) -> R2Plus1D:
    """Returns torchvision's encoder.

    Mid-planes per block, batch norm eps 1e-5: 31,300,125 parameters. Source:
    pytorch/vision, torchvision/models/video/resnet.py. `settings` as `R2Plus1D`.
    """
    return R2Plus1D(block_mid_planes=mid_planes_per_block, bn_eps=1e-5, **settings)
