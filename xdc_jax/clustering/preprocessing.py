"""What may be done to features before they are clustered."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xdc_jax.errors import UserError

Features = Float[np.ndarray, "n d"] | Float[Array, "n d"]

_EXACT = jax.lax.Precision.HIGHEST
# Directions with less than this share of the largest variance are rounding noise.
_NO_VARIANCE = 1e-10


@jax.jit
def l2_normalize(features: Features) -> Float[Array, "n d"]:
    """Scale each row to length 1; rows of zeros stay zero. float32."""
    features = jnp.asarray(features, jnp.float32)
    length = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)


def pca_whiten(features: Features, dim: int) -> Float[Array, "n dim"]:
    """Project on the `dim` directions of largest variance, each scaled to variance 1.

    Directions without variance give zeros. The sign of each direction is such that its
    largest component is positive. As DeepCluster's preprocessing (FAISS PCA with
    eigen_power -0.5) and scikit-learn's `PCA(whiten=True)`.

    Raises:
        UserError: `dim` is not in 1..min(n, d).
    """
    n, d = features.shape
    if not 1 <= dim <= min(n, d):
        raise UserError(
            f"PCA-whitening: {dim} dimensions asked for; expected 1 to {min(n, d)}, "
            f"the smaller of {n} rows and {d} features; choose fewer"
        )
    mean, covariance = _moments(features)
    variances, directions = np.linalg.eigh(np.asarray(covariance, np.float64))
    variances, directions = variances[::-1][:dim], directions[:, ::-1][:, :dim]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(dim)])
    usable = variances > _NO_VARIANCE * variances[0]
    scales = np.where(usable, 1 / np.sqrt(np.where(usable, variances, 1)), 0)
    return _project(features, mean, (directions * signs * scales).astype(np.float32))


@jax.jit
def _moments(x):
    x = jnp.asarray(x, jnp.float32)
    mean = jnp.mean(x, axis=0)
    x = x - mean
    return mean, jnp.dot(x.T, x, precision=_EXACT) / max(len(x) - 1, 1)


@jax.jit
def _project(x, mean, projection):
    return jnp.dot(jnp.asarray(x, jnp.float32) - mean, projection, precision=_EXACT)
