"""Batch normalisation with float32 statistics, per device or synchronised."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from xdc_jax.errors import UserError


class BatchNorm(nnx.Module):
    """Normalises each channel over all other dimensions, as PyTorch's BatchNorm.

    `scale` and `bias` are parameters; `mean` and `var` are running statistics, `var`
    the unbiased variance. All are float32 `[features]`.
    """

    def __init__(
        self,
        features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        axis_name: str | None = None,
    ):
        """Starts at scale 1, bias 0, running mean 0 and variance 1.

        Args:
          features: number of channels.
          eps: added to the variance.
          momentum: weight of the new statistics in the running ones (PyTorch's
            convention; Caffe2's and ONNX's 0.9 is 0.1 here).
          axis_name: mesh axis over which batch statistics are shared; None keeps them
            per device.
        """
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))
        self.eps = eps
        self.momentum = momentum
        self.axis_name = axis_name

    def __call__(self, x: Float[Array, "*n c"], train: bool) -> Float[Array, "*n c"]:
        """Normalises by batch statistics and updates the running ones, or uses these.

        Args:
          x: channels last, any float dtype; the result has the same.
          train: True takes the statistics of this batch.

        Raises:
          UserError: in training, when there is one value per channel: its variance is
            0 and the result would be the bias whatever the input.
        """
        if train:
            mean, var = self._batch_statistics(x)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = self.scale[...] * lax.rsqrt(var + self.eps)
        offset = self.bias[...] - mean * factor
        return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)

    def _batch_statistics(
        self, x: Float[Array, "*n c"]
    ) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Returns mean and biased variance of the batch; updates the running ones."""
        count = x.size // x.shape[-1]
        axes = tuple(range(x.ndim - 1))
        values = x.astype(jnp.float32)
        mean, square = values.mean(axes), jnp.square(values).mean(axes)
        if self.axis_name is not None:
            count *= lax.axis_size(self.axis_name)
            mean, square = lax.pmean((mean, square), self.axis_name)
        if count < 2:
            raise UserError(
                f"batch norm: found one value per channel in an input of shape "
                f"{x.shape}, expected at least two to take statistics of; give each "
                "device more clips, use larger clips, or synchronise the statistics"
            )
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        unbiased = var * (count / (count - 1))
        keep = 1.0 - self.momentum
        self.mean[...] = keep * self.mean[...] + self.momentum * lax.stop_gradient(mean)
        self.var[...] = keep * self.var[...] + self.momentum * lax.stop_gradient(
            unbiased
        )
        return mean, var
