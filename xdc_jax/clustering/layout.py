"""Rows of features in memory: lanes of blocks, spread over the devices of a mesh.

`[n, d]` features become `[lanes, blocks, rows, d]`, padded with zeros at the end, with
the lanes sharded over the mesh axis `data`. A lane is summed in order, and the lanes are
added as a balanced binary tree. Neither the blocks nor the tree change with the number of
devices as long as that divides LANES, so all sums are the same bit for bit on 1, 2, 4, 8
or 16 devices, and so are the assignments.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

LANES = 16
# Elements of one block's distance matrix, rows x k: 2 MB, so that it stays in cache.
_BLOCK_ELEMENTS = 2**19


@dataclass(frozen=True)
class Layout:
    """How n rows are cut: `lanes` x `blocks` x `rows` >= n."""

    lanes: int
    blocks: int
    rows: int

    @property
    def rows_per_lane(self) -> int:
        return self.blocks * self.rows


def single_device_mesh() -> Mesh:
    """The mesh that stands for `mesh=None`: this process's first device."""
    return Mesh(
        np.array(jax.local_devices()[:1]), ("data",), axis_types=(AxisType.Auto,)
    )


def plan_layout(n: int, k: int, num_devices: int) -> Layout:
    """Cut n rows into lanes and cache-sized blocks for distances to k centroids."""
    lanes = LANES if LANES % num_devices == 0 else num_devices
    per_lane = -(-n // lanes)
    largest = min(8192, max(256, _BLOCK_ELEMENTS // k))
    blocks = -(-per_lane // largest)
    rows = -(-per_lane // blocks)
    return Layout(lanes, blocks, -(-rows // 8) * 8)


def place(features, shift: np.ndarray, layout: Layout, mesh: Mesh) -> jax.Array:
    """Put `features - shift` on the mesh as float32 `[lanes, blocks, rows, d]`.

    A NumPy array must hold all rows in every process, of which each copies only what its
    devices need; a `jax.Array` may be spread over processes.
    """
    n, d = features.shape
    shape = (layout.lanes, layout.blocks, layout.rows, d)
    sharding = NamedSharding(mesh, P("data"))
    if isinstance(features, jax.Array):
        if features.sharding.device_set == sharding.device_set:
            return _cut(features, shift, shape, sharding)
        features = np.asarray(features)

    def lanes_of(index) -> np.ndarray:
        start, stop, _ = index[0].indices(layout.lanes)
        out = np.zeros((stop - start, layout.rows_per_lane, d), np.float32)
        first, last = start * layout.rows_per_lane, stop * layout.rows_per_lane
        flat = out.reshape(-1, d)
        part = features[first : min(last, n)]
        np.subtract(part, shift, out=flat[: len(part)], casting="same_kind")
        return out.reshape(stop - start, *shape[1:])

    return jax.make_array_from_callback(shape, sharding, lanes_of)


@partial(jax.jit, static_argnums=(2, 3))
def _cut(x, shift, shape, sharding) -> jax.Array:
    x = x.astype(jnp.float32) - shift
    missing = shape[0] * shape[1] * shape[2] - x.shape[0]
    x = jnp.pad(x, ((0, missing), (0, 0))).reshape(shape)
    return jax.lax.with_sharding_constraint(x, sharding)


def add_over_lanes(partial_sums: jax.Array) -> jax.Array:
    """Sum `[local lanes, ...]` over local lanes and the mesh, in a fixed order.

    Runs inside shard_map. All devices get the same bits.
    """
    local = _tree_sum(partial_sums)
    if LANES % jax.lax.axis_size("data"):
        return jax.lax.psum(local, "data")
    return _tree_sum(jax.lax.all_gather(local, "data"))


def _tree_sum(x: jax.Array) -> jax.Array:
    while x.shape[0] > 1:
        x = x[0::2] + x[1::2]
    return x[0]
