"""k-means on the devices of a mesh: full Lloyd passes, or mini-batches of a stream.

    result = kmeans.fit(features, k=256, seed=0, mesh=mesh)
    labels, squared_distances = kmeans.assign(features, result.centroids, mesh)

The result depends on the features, k, the seed and the settings, not on the number of
devices (see `layout`).
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from xdc_jax.clustering import lloyd, seeding
from xdc_jax.clustering.layout import (
    Layout,
    count_bad_rows,
    place,
    plan_layout,
    take_rows,
)
from xdc_jax.errors import UserError
from xdc_jax.parallel import make_mesh, replicate

Features = Float[np.ndarray, "n d"] | Float[Array, "n d"]
Batches = Callable[[], Iterable[Float[np.ndarray, "b d"]]]


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
) -> KMeans:
    """Cluster the rows of `features`; the best of several starts is kept.

    Args:
        features: float rows; NumPy (every process has all of them) or a JAX array.
        k: number of clusters, 1 to n.
        seed: of the start, of the order of mini-batches and of splitting clusters.
        mesh: one axis, `data`; the first device if None.
        max_iters: most updates of the centroids (mini-batch: passes over the data).
        tol: stop when the inertia falls by less than this fraction in an iteration; 0
            goes on until no assignment changes.
        num_restarts: number of starts; the result with the lowest inertia is kept.
        batch_size: None for Lloyd's algorithm with all rows on the mesh; else the rows
            of a mini-batch, in an order drawn once.
        init: first centroids; greedy k-means++ on a sample of the rows if None.

    Raises:
        UserError: k is not in 1..n, features are not finite, or shapes do not fit.
    """
    mesh = mesh or _one_device()
    _check_features(features)
    _check_start(*features.shape, k, init)
    _check_iters(max_iters)
    if num_restarts < 1 or (init is not None and num_restarts > 1):
        raise UserError(
            f"k-means: num_restarts is {num_restarts}; expected at least 1, and 1 when "
            "the first centroids are given"
        )
    if batch_size is not None and batch_size < 1:
        raise UserError(f"k-means: batch_size is {batch_size}; expected at least 1")
    if batch_size is None:
        fit_once = _prepare_lloyd(features, k, mesh, max_iters, tol, init)
    else:
        fit_once = _prepare_batches(features, k, mesh, max_iters, tol, init, batch_size)
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
    _check_iters(max_iters)
    return _fit_stream(batches, k, mesh, max_iters, tol, init, (seed, 0))


def assign(
    features: Features, centroids: Float[np.ndarray, "k d"], mesh: Mesh | None = None
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nearest centroid of each row, and the squared distance to it.

    Raises:
        UserError: features are not finite or have another width than the centroids.
    """
    mesh = mesh or _one_device()
    centroids = np.asarray(centroids, np.float32)
    _check_features(features)
    if centroids.ndim != 2 or centroids.shape[1] != features.shape[1]:
        raise UserError(
            f"k-means: centroids have shape {list(centroids.shape)}; expected "
            f"[k, {features.shape[1]}]"
        )
    shift = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    layout = plan_layout(len(features), len(centroids), mesh.size)
    x = place(features, shift, layout, mesh)
    return _assign(x, len(features), centroids - shift, mesh)


def _prepare_lloyd(features, k, mesh, max_iters, tol, init):
    n = len(features)
    size = seeding.sample_size(n, k)
    # Distances lose digits when the data are far from the origin. The shift need not be
    # the exact mean, but has to be the same bits on any number of devices.
    shift = _mean(take_rows(features, seeding.sample_rows(n, size, 0)))
    x = place(features, shift, plan_layout(n, k, mesh.size), mesh)

    def fit_once(start: tuple[int, int]) -> KMeans:
        if init is None:
            sample = take_rows(features, seeding.sample_rows(n, size, start))
            first = seeding.plus_plus(sample, k, start, mesh.local_devices[0])
        else:
            first = np.asarray(init, np.float32)
        directions = _directions(*first.shape, start)
        centroids, num_iters, num_reseeded = lloyd.lloyd(
            x, n, first - shift, max_iters, tol, directions, mesh=mesh
        )
        labels, squared = _assign(x, n, centroids, mesh)
        return _result(
            np.asarray(centroids) + shift, labels, squared, num_reseeded, num_iters
        )

    return fit_once


def _prepare_batches(features, k, mesh, max_iters, tol, init, batch_size):
    n = len(features)

    def fit_once(start: tuple[int, int]) -> KMeans:
        order = batch_order(n, start)

        def batches():
            for i in range(0, n, batch_size):
                yield take_rows(features, order[i : i + batch_size])

        result = _fit_stream(batches, k, mesh, max_iters, tol, init, start)
        assignments = np.empty_like(result.assignments)
        assignments[order] = result.assignments
        return dataclasses.replace(result, assignments=assignments)

    return fit_once


def batch_order(n: int, start: tuple[int, int]) -> Int[np.ndarray, " n"]:
    """Order in which `fit` goes through rows in mini-batches: f(n, (seed, restart))."""
    return np.random.default_rng(start).permutation(n)


def _fit_stream(batches, k, mesh, max_iters, tol, init, start) -> KMeans:
    n, largest, sample = _survey(batches, k, start)
    _check_start(n, sample.shape[1], k, init)
    shift = _mean(sample)
    if init is None:
        init = seeding.plus_plus(sample, k, start, mesh.local_devices[0])
    layout = plan_layout(largest, k, mesh.size)
    directions = _directions(k, len(shift), start)
    centroids = replicate(np.asarray(init, np.float32) - shift, mesh)

    weights = np.zeros(k, np.float32)
    previous, num_iters, num_reseeded, num_split, done = np.inf, 0, 0, 0, False
    while num_iters < max_iters and not done:
        sums = []
        weights = replicate(weights, mesh)
        for rows, x in _placed(batches, n, shift, layout, mesh):
            centroids, weights, inertia, batch_counts = lloyd.minibatch_step(
                x, rows, centroids, weights, mesh=mesh
            )
            sums.append((inertia, batch_counts))
        num_iters += 1
        inertias, counts = zip(*jax.device_get(sums), strict=True)
        total, counts = float(np.sum(inertias, dtype=np.float64)), sum(counts)
        done = num_split == 0 and abs(previous - total) <= tol * total
        previous = total
        if not done and num_iters < max_iters:
            centroids, empty = lloyd.split_largest(
                centroids, counts, total / n, directions
            )
            weights = np.where(counts > 0, weights, 0)
            num_split = int(empty)
            num_reseeded += num_split

    parts = [
        _assign(x, rows, centroids, mesh)
        for rows, x in _placed(batches, n, shift, layout, mesh)
    ]
    labels, squared = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _result(
        np.asarray(centroids) + shift, labels, squared, num_reseeded, num_iters
    )


def _survey(batches: Batches, k: int, start: tuple[int, int]):
    """One pass: rows, rows of the largest batch, and a uniform sample of the rows.

    The sample are the rows with the smallest of random numbers given to all rows.
    """
    rng = np.random.default_rng(start)
    n, largest, width, kept, ranks = 0, 0, None, [], np.empty(0)
    for batch in batches():
        batch = np.asarray(batch, np.float32)
        _check_features(batch, first_row=n)
        width = width or batch.shape[1]
        if batch.shape[1] != width:
            raise UserError(
                f"k-means: row {n} of the stream has {batch.shape[1]} features; "
                f"expected {width} as in the rows before"
            )
        n, largest = n + len(batch), max(largest, len(batch))
        ranks = np.concatenate([ranks, rng.random(len(batch))])
        kept = np.concatenate([kept, batch]) if len(kept) else batch
        if len(kept) > (size := seeding.sample_size(n, k)):
            smallest = np.sort(np.argpartition(ranks, size - 1)[:size])
            kept, ranks = kept[smallest], ranks[smallest]
    if not n:
        raise UserError("k-means: the stream is empty; expected batches of features")
    return n, largest, kept


def _placed(batches: Batches, n: int, shift, layout: Layout, mesh: Mesh):
    seen = 0
    for batch in batches():
        batch = np.asarray(batch, np.float32)
        seen += len(batch)
        if len(batch) > layout.lanes * layout.rows_per_lane or seen > n:
            break
        yield len(batch), place(batch, shift, layout, mesh)
    if seen != n:
        raise UserError(
            f"k-means: the stream gave {n} rows in its first pass and other batches in "
            "a later one; `batches` must start the same stream again at every call"
        )


def _assign(x, n: int, centroids, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    labels, squared = lloyd.assign_rows(x, centroids, mesh=mesh)
    return np.asarray(labels)[:n], np.asarray(squared)[:n]


def _result(centroids, labels, squared, num_reseeded, num_iters) -> KMeans:
    return KMeans(
        centroids=centroids,
        assignments=labels,
        inertia=float(np.sum(squared, dtype=np.float64)),
        sizes=np.bincount(labels, minlength=len(centroids)).astype(np.int32),
        num_reseeded=int(num_reseeded),
        num_iters=int(num_iters),
    )


def _directions(k: int, d: int, start: tuple[int, int]) -> Float[np.ndarray, "k d"]:
    steps = np.random.default_rng(start).standard_normal((k, d), np.float32)
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32)


def _one_device() -> Mesh:
    return make_mesh(jax.local_devices()[:1])


def _check_features(features: Features, first_row: int = 0) -> None:
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(
            f"k-means: features have shape {list(features.shape)}; expected "
            "[rows, features] with at least one of each"
        )
    count, first = count_bad_rows(features)
    if count:
        raise UserError(
            f"k-means: {count} of {len(features)} rows of features hold NaN or "
            f"infinity, the first is row {first_row + first}; expected finite numbers. "
            "Features become NaN when training diverges: check the loss"
        )


def _check_start(n: int, d: int, k: int, init) -> None:
    if not 1 <= k <= n:
        raise UserError(
            f"k-means: k is {k} and there are {n} rows; expected 1 <= k <= rows. "
            "Choose a smaller k or give more clips"
        )
    if init is not None and np.shape(init) != (k, d):
        raise UserError(
            f"k-means: centroids have shape {list(np.shape(init))}; expected [{k}, {d}]"
        )


def _check_iters(max_iters: int) -> None:
    if max_iters < 1:
        raise UserError(f"k-means: max_iters is {max_iters}; expected at least 1")
