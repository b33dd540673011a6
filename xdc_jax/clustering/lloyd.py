"""The device programs of k-means: Lloyd's iterations, a mini-batch step, assignment.

All work on rows laid out by `layout.place`, are written per device and mapped over the
mesh axis `data` with shard_map. Distances are float32 with exact products, for one
block of rows at a time.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from xdc_jax.clustering.layout import add_over_lanes, valid_rows

_EXACT = jax.lax.Precision.HIGHEST
# How far a centroid that got no rows is moved from that of the cluster it splits, in
# units of the root mean square distance of rows to centroids.
_SPLIT_OFFSET = 1e-2


@partial(jax.jit, static_argnames=("mesh",))
def lloyd(x, n, centroids, max_iters, tol, directions, *, mesh: Mesh):
    """Run Lloyd's algorithm until assignments or inertia stop changing.

    Args:
        x: [lanes, blocks, rows, d] float32, sharded over lanes.
        n: number of rows that are not padding.
        centroids: [k, d] float32, the start.
        max_iters: most updates of the centroids.
        tol: stop when the inertia falls by less than this fraction, if above 0.
        directions: [k, d], see `split_largest`.
        mesh: one axis, `data`.

    Returns:
        centroids [k, d]; number of updates; number of empty clusters re-seeded.
    """

    def per_device(x, n, centroids, max_iters, tol, directions):
        valid = valid_rows(x, n)
        norms = jnp.sum(x * x, axis=-1)

        def running(state):
            return ~state["done"] & (state["iters"] < max_iters)

        def iterate(state):
            labels, sums, counts, inertia = _assign_and_sum(
                x, norms, valid, state["centroids"]
            )
            moved = jax.lax.psum(jnp.sum(labels != state["labels"]), "data")
            settled = (tol > 0) & (state["inertia"] - inertia <= tol * inertia)
            updated = jnp.where(
                (counts > 0)[:, None],
                sums / jnp.maximum(counts, 1)[:, None],
                state["centroids"],
            )
            updated, reseeded = split_largest(updated, counts, inertia / n, directions)
            return {
                "centroids": updated,
                "labels": labels,
                "inertia": inertia,
                "iters": state["iters"] + 1,
                "reseeded": state["reseeded"] + reseeded,
                "split": reseeded > 0,
                "done": (moved == 0) | (settled & ~state["split"]),
            }

        state = jax.lax.while_loop(
            running,
            iterate,
            {
                "centroids": centroids,
                "labels": jnp.full(valid.shape, -1, jnp.int32),
                "inertia": jnp.float32(jnp.inf),
                "iters": jnp.int32(0),
                "reseeded": jnp.int32(0),
                "split": jnp.bool_(False),
                "done": jnp.bool_(False),
            },
        )
        return state["centroids"], state["iters"], state["reseeded"]

    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(P("data"), P(), P(), P(), P(), P()),
        out_specs=P(),
        check_vma=False,  # add_over_lanes gives every device the same bits
    )(x, n, centroids, max_iters, tol, directions)


@partial(jax.jit, static_argnames=("mesh",))
def minibatch_step(x, n, centroids, weights, *, mesh: Mesh):
    """Move each centroid to the mean of all rows that it has been given so far.

    That is Sculley's mini-batch k-means (2010): a step of 1 / (rows seen) per row.

    Returns:
        centroids [k, d]; weights [k], rows seen per centroid; inertia of the batch
        before the step; counts [k], rows of this batch per centroid.
    """

    def per_device(x, n, centroids, weights):
        norms = jnp.sum(x * x, axis=-1)
        _, sums, counts, inertia = _assign_and_sum(
            x, norms, valid_rows(x, n), centroids
        )
        weights = weights + counts
        step = (sums - counts[:, None] * centroids) / jnp.maximum(weights, 1)[:, None]
        return centroids + step, weights, inertia, counts

    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(P("data"), P(), P(), P()),
        out_specs=P(),
        check_vma=False,  # as in lloyd
    )(x, n, centroids, weights)


def assign(x, n: int, centroids, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each of the n rows, and the squared distance to it."""
    labels, squared = _assign_rows(x, centroids, mesh=mesh)
    return np.asarray(labels)[:n], np.asarray(squared)[:n]


@partial(jax.jit, static_argnames=("mesh",))
def _assign_rows(x, centroids, *, mesh: Mesh):
    """Nearest centroid of each row and the squared distance to it.

    The distance is that of the difference of the two vectors, which keeps its digits
    where the expanded square of `lloyd` cancels.

    Returns:
        labels int32 and squared distances float32, both [lanes * blocks * rows], whole
        on every device, padding included.
    """

    def per_device(x, centroids):
        half_norms = jnp.sum(centroids * centroids, axis=1) / 2

        def one_block(rows):
            labels, _ = _nearest(rows, centroids, half_norms)
            difference = rows - centroids[labels]
            return labels, jnp.sum(difference * difference, axis=1)

        blocks = x.reshape(-1, *x.shape[2:])
        labels, distances = jax.lax.map(one_block, blocks)
        gather = partial(jax.lax.all_gather, axis_name="data", tiled=True)
        return gather(labels.reshape(-1)), gather(distances.reshape(-1))

    return jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(P("data"), P()),
        out_specs=P(),
        check_vma=False,  # as in lloyd
    )(x, centroids)


@jax.jit
def split_largest(
    centroids: Float[Array, "k d"],
    counts: Float[Array, " k"],
    mean_square: Float[Array, ""],
    directions: Float[Array, "k d"],
) -> tuple[Float[Array, "k d"], Int[Array, ""]]:
    """Give each empty cluster a centroid beside that of the largest cluster.

    The new centroid lies a small step from the old one, which stays; the rows of the
    large cluster then divide along that direction (as in FAISS, whose step is a fixed
    pattern of signs). A cluster that was split counts half.

    Args:
        centroids: of all clusters.
        counts: rows per cluster.
        mean_square: mean squared distance of rows to centroids, the unit of the step.
        directions: unit vectors; row i is the step to the centroid of cluster i.

    Returns:
        centroids [k, d]; number of empty clusters.
    """
    size = _SPLIT_OFFSET * jnp.sqrt(jnp.maximum(mean_square, 0))

    def split(_, state):
        centroids, counts = state
        empty, largest = jnp.argmin(counts), jnp.argmax(counts)
        step = size * directions[empty]
        half = counts[largest] / 2
        return (
            centroids.at[empty].set(centroids[largest] + step),
            counts.at[largest].set(half).at[empty].set(half),
        )

    num_empty = jnp.sum(counts == 0)
    centroids, _ = jax.lax.fori_loop(0, num_empty, split, (centroids, counts))
    return centroids, num_empty


def _assign_and_sum(x, norms, valid, centroids):
    """Labels per row (-1 for padding); sums, counts and inertia over all devices."""
    k, d = centroids.shape
    half_norms = jnp.sum(centroids * centroids, axis=1) / 2

    def one_block(total, at):
        # By index, because a scan over x would copy a lane and then each block of it.
        rows = jax.lax.dynamic_slice(x, (*at, 0, 0), (1, 1, *x.shape[2:]))[0, 0]
        labels, scores = _nearest(rows, centroids, half_norms)
        labels = jnp.where(valid[*at], labels, -1)
        squared = jnp.where(valid[*at], jnp.maximum(norms[*at] + 2 * scores, 0), 0)
        sums, counts, inertia = total
        sums, counts = jax.lax.platform_dependent(
            sums, counts, rows, labels, cpu=_add_by_scatter, default=_add_by_matmul
        )
        return (sums, counts, inertia + jnp.sum(squared)), labels

    def one_lane(lane):
        zeros = jnp.zeros((k, d)), jnp.zeros((k,)), jnp.float32(0)
        blocks = jnp.arange(x.shape[1])
        return jax.lax.scan(lambda total, i: one_block(total, (lane, i)), zeros, blocks)

    totals, labels = jax.lax.map(one_lane, jnp.arange(x.shape[0]))
    return labels, *(add_over_lanes(total) for total in totals)


def _nearest(rows, centroids, half_norms):
    """Label and score, half the squared distance less that of the row's own norm.

    Column-wise minimum and first index that attains it: XLA's argmin does not vectorise
    on CPU and takes 5 to 10 times as long as both.
    """
    products = jnp.dot(centroids, rows.T, precision=_EXACT)
    scores = half_norms[:, None] - products
    lowest = jnp.min(scores, axis=0)
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    hits = jnp.where(scores == lowest, index, scores.shape[0] - 1)
    return jnp.min(hits, axis=0), lowest


def _add_by_scatter(sums, counts, rows, labels):
    """CPU: 0.02 s for 131,072 x 512 at any k; the matmul takes 0.14 to 1.6 s."""
    k = len(sums)
    index = jnp.where(labels < 0, k, labels)
    return (
        sums.at[index].add(rows, mode="drop"),
        counts.at[index].add(1, mode="drop"),
    )


def _add_by_matmul(sums, counts, rows, labels):
    """TPU and GPU: no scatter there, or none with a fixed order of additions."""
    one_hot = (labels == jnp.arange(len(sums))[:, None]).astype(jnp.float32)
    return (
        sums + jnp.dot(one_hot, rows, precision=_EXACT),
        counts + jnp.sum(one_hot, axis=1),
    )
