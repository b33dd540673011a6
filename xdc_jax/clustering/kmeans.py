"""k-means on the devices of a mesh: full Lloyd passes, or mini-batches of a stream.

    result = kmeans.fit(features, k=256, seed=0, mesh=mesh)
    labels, squared_distances = kmeans.assign(features, result.centroids, mesh)

The result depends on the features, k, the seed and the settings, not on the number of
devices (see `layout`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from xdc_jax.clustering import lloyd, seeding
from xdc_jax.clustering.layout import Layout, place, plan_layout, single_device_mesh
from xdc_jax.errors import UserError

Features = Float[np.ndarray, "n d"] | Float[Array, "n d"]
Batches = Callable[[], Iterable[Float[np.ndarray, "b d"]]]

_CHECKED_ROWS = 2**16


@dataclasses.dataclass(frozen=True)
class KMeans:
    """A clustering.

    Attributes:
        centroids: [k, d] float32.
        assignments: [n] int32, nearest centroid of each row.
        inertia: sum of squared distances of the rows to their centroids.
        sizes: [k] int32, rows per cluster.
        num_reseeded: how many times an empty cluster was given half of the largest.
        num_iters: updates of the centroids, or passes over the data for mini-batches.
    """

    centroids: Float[np.ndarray, "k d"]
    assignments: Int[np.ndarray, " n"]
    inertia: float
    sizes: Int[np.ndarray, " k"]
    num_reseeded: int
    num_iters: int


def fit(
    features: Features,
    k: int,
    *,
    seed: int,
    mesh: Mesh | None = None,
    max_iters: int = 100,
    tol: float = 1e-4,
    num_restarts: int = 1,
    batch_size: int | None = None,
    init: Float[np.ndarray, "k d"] | None = None,
) -> KMeans:
    """Cluster the rows of `features`; the best of several starts is kept.

    Args:
        features: [n, d], float. NumPy (all rows in every process) or a JAX array.
        k: number of clusters, 1 to n.
        seed: of the start, of mini-batches and of splitting clusters.
        mesh: one axis, `data`; the first device if None.
        max_iters: most updates of the centroids (passes over the data if mini-batch).
        tol: stop when the inertia falls by less than this fraction in an iteration;
            0 runs until no assignment changes.
        num_restarts: starts, of which the one with the lowest inertia is kept.
        batch_size: None for Lloyd's algorithm, which holds the features on the mesh;
            else rows per mini-batch, which are all that it holds.
        init: first centroids; greedy k-means++ on a sample of the rows if None.

    Raises:
        UserError: k is not in 1..n, features are not finite, or shapes do not fit.
    """
    mesh = mesh or single_device_mesh()
    n = _check_features(features, "features")
    _check_settings(n, k, max_iters, num_restarts, init, features.shape[1])
    if batch_size is not None:
        return _best(
            _fit_batches(
                shuffled_batches(features, batch_size, [seed, restart]),
                lambda: ordered_batches(features, batch_size),
                _sample(features, k, seed, restart),
                Layout_of := plan_layout(min(batch_size, n), k, mesh.size),
            )
            for restart in range(num_restarts)
        )
