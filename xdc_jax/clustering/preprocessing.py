"""What may be done to features before they are clustered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from xdc_jax.clustering.layout import add_over_lanes, place, plan_layout, valid_rows
from xdc_jax.errors import UserError
from xdc_jax.parallel import DATA_AXIS, make_mesh

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


def pca_whiten(
    features: Features, dim: int, mesh: Mesh | None = None, num_rows: int | None = None
) -> Float[Array, "n dim"]:
    """Project on the `dim` directions of largest variance, each scaled to variance 1.

    Directions without variance give zeros. The sign of each direction is such that its
    largest component is positive. As DeepCluster's preprocessing (FAISS PCA with
    eigen_power -0.5) and scikit-learn's `PCA(whiten=True)`.

    Args:
        features: as in `kmeans.fit`; stays where it is.
        dim: of the result.
        mesh: over which the sums are spread; the same bits on any (see `layout`).
        num_rows: n, if it is fewer than `features` has: the others are padding.

    Raises:
        UserError: `dim` is not in 1..min(n, d).
    """
    mesh = mesh or make_mesh(jax.local_devices()[:1])
    n = len(features) if num_rows is None else num_rows
    d = features.shape[1]
    if not 1 <= dim <= min(n, d):
        raise UserError(
            f"PCA-whitening: {dim} dimensions asked for; expected 1 to {min(n, d)}, "
            f"the smaller of {n} rows and {d} features; choose fewer"
        )
    x = place(features, n, np.zeros(d, np.float32), plan_layout(n, mesh.size), mesh)
    mean, covariance = _moments(x, n, mesh=mesh)
    variances, directions = np.linalg.eigh(np.asarray(covariance, np.float64))
    variances, directions = variances[::-1][:dim], directions[:, ::-1][:, :dim]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(dim)])
    usable = variances > _NO_VARIANCE * variances[0]
    scales = np.where(usable, 1 / np.sqrt(np.where(usable, variances, 1)), 0)
    projection = (directions * signs * scales).astype(np.float32)
    return _project(features, np.asarray(mean), projection)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _moments(x, n, *, mesh: Mesh):
    """Mean and covariance of rows as `layout.place` lays them out."""

    def per_device(x, n):
        valid = valid_rows(x, n)
        mean = add_over_lanes(jax.lax.map(lambda lane: lane.sum((0, 1)), x)) / n

        def of_block(total, block):
            rows, valid = block
            rows = jnp.where(valid[:, None], rows - mean, 0)
            return total + jnp.dot(rows.T, rows, precision=_EXACT), None

        def of_lane(lane):
            zeros = jnp.zeros((x.shape[-1], x.shape[-1]))
            return jax.lax.scan(of_block, zeros, lane)[0]

        products = add_over_lanes(jax.lax.map(of_lane, (x, valid)))
        return mean, products / jnp.maximum(n - 1, 1)

    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(P(DATA_AXIS), P()),
        out_specs=P(),
        check_vma=False,  # add_over_lanes gives every device the same bits
    )(x, n)


@jax.jit
def _project(x, mean, projection):
    return jnp.dot(jnp.asarray(x, jnp.float32) - mean, projection, precision=_EXACT)
