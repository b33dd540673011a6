"""Mini-batch k-means of a stream of rows that need not fit in memory."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from xdc_jax.clustering import lloyd, seeding
from xdc_jax.clustering.checks import check_features, check_start
from xdc_jax.clustering.layout import Layout, place, plan_layout
from xdc_jax.errors import UserError
from xdc_jax.parallel import replicate

Batches = Callable[[], Iterable[Float[np.ndarray, "b d"]]]


def fit(
    batches: Batches,
    k: int,
    *,
    start: tuple[int, int],
    mesh: Mesh,
    max_iters: int,
    tol: float,
    init: Float[np.ndarray, "k d"] | None,
):
    """Mini-batch k-means; arguments as `kmeans.fit_stream`, `start` (seed, restart).

    Returns:
        centroids [k, d]; labels [n] and squared distances [n] in the order of the
        stream; number of clusters re-seeded; number of passes.
    """
    n, largest, sample = _survey(batches, k, start)
    check_start(n, sample.shape[1], k, init)
    shift = seeding.mean_row(sample)
    if init is None:
        init = seeding.plus_plus(sample, k, start, mesh.local_devices[0])
    layout = plan_layout(largest, mesh.size)
    directions = seeding.split_directions(k, len(shift), start)
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
        fallen = previous - total
        done = tol > 0 and num_split == 0 and fallen <= tol * total
        previous = total
        if not done and num_iters < max_iters:
            centroids, empty = lloyd.split_largest(
                centroids, counts, total / n, directions
            )
            weights = np.where(counts > 0, weights, 0)
            num_split = int(empty)
            num_reseeded += num_split

    parts = [
        lloyd.assign(x, rows, centroids, mesh)
        for rows, x in _placed(batches, n, shift, layout, mesh)
    ]
    labels, squared = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.asarray(centroids) + shift, labels, squared, num_reseeded, num_iters


def _survey(batches: Batches, k: int, start: tuple[int, int]):
    """One pass: rows, rows of the largest batch, and a uniform sample of the rows.

    The sample are the rows with the smallest of random numbers given to all rows.
    """
    rng = np.random.default_rng(start)
    n, largest, width, kept, ranks = 0, 0, None, [], np.empty(0)
    for batch in batches():
        batch = np.asarray(batch, np.float32)
        check_features(batch, first_row=n)
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
            raise _changed(n)
        yield len(batch), place(batch, len(batch), shift, layout, mesh)
    if seen != n:
        raise _changed(n)


def _changed(n: int) -> UserError:
    return UserError(
        f"k-means: the stream gave {n} rows in its first pass and other batches in a "
        "later one; `batches` must start the same stream again at every call"
    )
