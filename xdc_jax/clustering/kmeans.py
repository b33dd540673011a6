"""k-means on the devices of a mesh: full Lloyd passes, or mini-batches of a stream.

    result = kmeans.fit(features, k=256, seed=0, mesh=mesh)
    labels, squared_distances = kmeans.assign(features, result.centroids, mesh)

The result depends on the features, k, the seed and the settings, not on the number of
devices where that divides 16 (see `layout`).
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from xdc_jax.clustering import lloyd, minibatch, seeding
from xdc_jax.clustering.checks import (
    check_at_least_one,
    check_centroids,
    check_features,
    check_start,
)
from xdc_jax.clustering.layout import place, plan_layout, take_rows
from xdc_jax.clustering.minibatch import Batches
from xdc_jax.errors import UserError
from xdc_jax.parallel import make_mesh

Features = Float[np.ndarray, "n d"] | Float[Array, "n d"]


@dataclasses.dataclass(frozen=True)
class KMeans:
    """A clustering.

    Attributes:
        centroids: [k, d] float32.
        assignments: [n] int32, nearest centroid of each row.
        inertia: sum of squared distances of the rows to their centroids.
        sizes: [k] int32, rows per cluster.
        num_reseeded: how many times an empty cluster was given part of the largest.
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
    num_rows: int | None = None,
) -> KMeans:
    """Cluster the rows of `features`; the best of several starts is kept.

    Args:
        features: float rows; NumPy (every process has all of them) or a JAX array,
            which may be spread over processes and stays so.
        k: number of clusters, 1 to n.
        seed: of the start, of the order of mini-batches and of splitting clusters.
        mesh: one axis, `data`; the first device if None.
        max_iters: most updates of the centroids (mini-batch: passes over the data).
        tol: stop when the inertia falls by less than this fraction in an iteration; 0
            goes on until no assignment changes (mini-batch: to max_iters).
        num_restarts: number of starts; the result with the lowest inertia is kept.
        batch_size: None for Lloyd's algorithm with all rows on the mesh; else the rows
            of a mini-batch, in an order drawn once.
        init: first centroids; greedy k-means++ on a sample of the rows if None.
        num_rows: n, if it is fewer than `features` has: the others are padding.

    Raises:
        UserError: k is not in 1..n, features are not finite, or shapes do not fit.
    """
    mesh = mesh or _one_device()
    n = len(features) if num_rows is None else num_rows
    check_features(features)
    check_start(n, features.shape[1], k, init)
    check_at_least_one(
        max_iters=max_iters, num_restarts=num_restarts, batch_size=batch_size
    )
    if init is not None and num_restarts > 1:
        raise UserError(
            f"k-means: num_restarts is {num_restarts}; expected 1 when the first "
            "centroids are given"
        )
    if batch_size is None:
        fit_once = _prepare_lloyd(features, n, k, mesh, max_iters, tol, init)
    else:
        fit_once = _prepare_batches(
            features, n, k, mesh, max_iters, tol, init, batch_size
        )
    results = (fit_once((seed, restart)) for restart in range(num_restarts))
    return min(results, key=lambda result: result.inertia)


def fit_stream(
    batches: Batches,
    k: int,
    *,
    seed: int,
    mesh: Mesh | None = None,
    max_iters: int = 100,
    tol: float = 1e-4,
    init: Float[np.ndarray, "k d"] | None = None,
) -> KMeans:
    """Cluster rows that do not fit in memory, by mini-batch k-means.

    Args:
        batches: called once per pass; gives the same batches of rows in the same order
            every time, and in every process. The rows should be in random order: the
            first batches weigh as much as the last ones.
        k: number of clusters.
        seed: as in `fit`.
        mesh: as in `fit`; a batch is spread over it.
        max_iters: most passes over the data for training. There are two more: one that
            counts, checks and samples the rows, and one that assigns them.
        tol: as in `fit`, of the inertia summed over a pass.
        init: as in `fit`.

    Returns:
        A clustering whose assignments are in the order of the stream.

    Raises:
        UserError: as `fit`, or the stream is empty or differs between passes.
    """
    mesh = mesh or _one_device()
    check_at_least_one(max_iters=max_iters)
    return _result(
        *minibatch.fit(
            batches,
            k,
            start=(seed, 0),
            mesh=mesh,
            max_iters=max_iters,
            tol=tol,
            init=init,
        )
    )


def assign(
    features: Features,
    centroids: Float[np.ndarray, "k d"],
    mesh: Mesh | None = None,
    num_rows: int | None = None,
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nearest centroid of each row, and the squared distance to it.

    `features` and `num_rows` are as in `fit`.

    Raises:
        UserError: features are not finite or have another width than the centroids.
    """
    mesh = mesh or _one_device()
    centroids = np.asarray(centroids, np.float32)
    check_features(features)
    check_centroids(centroids, features.shape[1])
    shift = seeding.mean_row(centroids)
    n = len(features) if num_rows is None else num_rows
    x = place(features, n, shift, plan_layout(n, mesh.size), mesh)
    return lloyd.assign(x, n, centroids - shift, mesh)


def _prepare_lloyd(features, n, k, mesh, max_iters, tol, init):
    size = seeding.sample_size(n, k)
    # Distances lose digits when the data are far from the origin. The shift need not be
    # the exact mean, but has to be the same bits on any number of devices.
    shift = seeding.mean_row(take_rows(features, seeding.sample_rows(n, size, 0)))
    x = place(features, n, shift, plan_layout(n, mesh.size), mesh)

    def fit_once(start: tuple[int, int]) -> KMeans:
        if init is None:
            sample = take_rows(features, seeding.sample_rows(n, size, start))
            first = seeding.plus_plus(sample, k, start, mesh.local_devices[0])
        else:
            first = np.asarray(init, np.float32)
        directions = seeding.split_directions(*first.shape, start)
        centroids, num_iters, num_reseeded = lloyd.lloyd(
            x, n, first - shift, max_iters, tol, directions, mesh=mesh
        )
        labels, squared = lloyd.assign(x, n, centroids, mesh)
        return _result(
            np.asarray(centroids) + shift, labels, squared, num_reseeded, num_iters
        )

    return fit_once


def _prepare_batches(features, n, k, mesh, max_iters, tol, init, batch_size):
    def fit_once(start: tuple[int, int]) -> KMeans:
        order = batch_order(n, start)

        def batches():
            for i in range(0, n, batch_size):
                yield take_rows(features, order[i : i + batch_size])

        result = _result(
            *minibatch.fit(
                batches,
                k,
                start=start,
                mesh=mesh,
                max_iters=max_iters,
                tol=tol,
                init=init,
            )
        )
        assignments = np.empty_like(result.assignments)
        assignments[order] = result.assignments
        return dataclasses.replace(result, assignments=assignments)

    return fit_once


def batch_order(n: int, start: tuple[int, int]) -> Int[np.ndarray, " n"]:
    """Order in which `fit` goes through rows in mini-batches: f(n, (seed, restart))."""
    return np.random.default_rng(start).permutation(n)


def _result(centroids, labels, squared, num_reseeded, num_iters) -> KMeans:
    return KMeans(
        centroids=centroids,
        assignments=labels,
        inertia=float(np.sum(squared, dtype=np.float64)),
        sizes=np.bincount(labels, minlength=len(centroids)).astype(np.int32),
        num_reseeded=int(num_reseeded),
        num_iters=int(num_iters),
    )


def _one_device() -> Mesh:
    return make_mesh(jax.local_devices()[:1])
