"""Convolutions, with the lowering chosen for the platform they are compiled for."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def convolve(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    strides: Sequence[int],
) -> Float[Array, "..."]:
    """Convolves `x` with `kernel`, padded by half the kernel as PyTorch pads.

    On CPU a factored 3-D convolution is folded into a 2-D one (2 times faster there);
    on TPU and GPU it is not (2.5 times less memory traffic unfolded on TPU v4).
    `benchmarks/convolution.py` measures both.

    Args:
      x: `[batch, *space, in]`, space being (height, width) or (time, height, width).
      kernel: `[*window, in, out]` with odd window sizes.
      strides: one per dimension of space.

    Returns:
      `[batch, *ceil(space / strides), out]` in the dtype of `x`.
    """
    if not is_factored(kernel, strides):
        return plain_convolution(x, kernel, strides)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(folded_convolution, strides=tuple(strides)),
        default=partial(plain_convolution, strides=tuple(strides)),
    )


def is_factored(kernel: Float[Array, "..."], strides: Sequence[int]) -> bool:
    """Says whether a 3-D convolution is 1xkxk, or kx1x1 with no stride in space."""
    return kernel.ndim == 5 and (
        kernel.shape[0] == 1 or kernel.shape[1:3] == (1, 1) == tuple(strides[1:])
    )


def plain_convolution(
    x: Float[Array, "..."], kernel: Float[Array, "..."], strides: Sequence[int]
) -> Float[Array, "..."]:
    """Convolves over all dimensions of space at once; arguments as `convolve`."""
    layout = {4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}[x.ndim]
    padding = [(size // 2, size // 2) for size in kernel.shape[:-2]]
    return lax.conv_general_dilated(
        x, kernel, tuple(strides), padding, dimension_numbers=layout
    )


def folded_convolution(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c d"],
    strides: Sequence[int],
) -> Float[Array, "b t2 h2 w2 d"]:
    """Convolves a clip with a factored kernel as a 2-D convolution.

    1xkxk becomes k x k over batch*time; kx1x1 becomes k x 1 over (time, height*width).
    """
    batch, time, height, width, channels = x.shape
    if kernel.shape[0] == 1:
        x = x[:, :: strides[0]]
        frames = x.reshape(-1, height, width, channels)
        y = plain_convolution(frames, kernel[0], strides[1:])
        return y.reshape(batch, -1, *y.shape[1:])
    rows = x.reshape(batch, time, height * width, channels)
    y = plain_convolution(rows, kernel[:, :, 0], (strides[0], 1))
    return y.reshape(batch, -1, height, width, y.shape[-1])


class Conv(nnx.Module):
    """A convolution, by default without bias.

    `kernel` is float32 `[*window, in, out]`, drawn Kaiming-normal with fan-out as in
    torchvision's video ResNets; `bias` is None or float32 zeros `[out]`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        window: Sequence[int],
        strides: Sequence[int],
        *,
        use_bias: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        init = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (*window, in_features, out_features)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.strides = tuple(strides)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the convolution of `x` in the activation dtype."""
        kernel = self.kernel[...].astype(self.dtype)
        y = convolve(x.astype(self.dtype), kernel, self.strides)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)
