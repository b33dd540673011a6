"""Rows of features in memory: lanes of blocks, spread over the devices of a mesh.

`[n, d]` features become `[lanes, blocks, rows, d]`, padded with zeros at the end, with
the lanes sharded over the mesh axis `data`. A lane is summed in order, and the lanes
are added as a balanced binary tree. Neither the blocks nor the tree change with the
number of devices as long as that divides LANES, so all sums are the same bit for bit on
1, 2, 4, 8 or 16 devices, and so are the assignments.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

LANES = 16
# Most rows of a block. Larger ones leave the cache: on two CPU cores an iteration over
# 131,072 x 512 takes 0.14 s of CPU time at k = 64 with 512 rows, 0.19 with 4096; at 256
# and 1024 clusters there is no difference.
_BLOCK_ROWS = 512
# Rows of a NumPy array that are checked at a time.
_CHECKED_ROWS = 2**14


@dataclass(frozen=True)
class Layout:
    """How n rows are cut: `lanes` x `blocks` x `rows` >= n."""

    lanes: int
    blocks: int
    rows: int

    @property
    def rows_per_lane(self) -> int:
        """Rows of all blocks of a lane."""
        return self.blocks * self.rows

    @property
    def total(self) -> int:
        """Rows of all lanes, padding included."""
        return self.lanes * self.rows_per_lane


def plan_layout(n: int, num_devices: int) -> Layout:
    """Cut n rows into lanes and blocks."""
    lanes = LANES if LANES % num_devices == 0 else num_devices
    per_lane = -(-n // lanes)
    blocks = -(-per_lane // _BLOCK_ROWS)
    rows = -(-per_lane // blocks)
    return Layout(lanes, blocks, -(-rows // 8) * 8)


def place(features, n: int, shift: np.ndarray, layout: Layout, mesh: Mesh) -> jax.Array:
    """Put `features - shift` on the mesh as float32 `[lanes, blocks, rows, d]`.

    A NumPy array must hold all n rows in every process, of which each copies only what
    its devices need; a `jax.Array` may be spread over processes, and nothing moves if
    it has as many rows as the layout. What it has after the first n is left out.
    """
    d = features.shape[1]
    shape = (layout.lanes, layout.blocks, layout.rows, d)
    sharding = NamedSharding(mesh, P("data"))
    if isinstance(features, jax.Array):
        if features.sharding.device_set == sharding.device_set:
            return _cut(features, n, shift, shape, sharding)
        features = np.asarray(features)

    def lanes_of(index) -> np.ndarray:
        start, stop, _ = index[0].indices(layout.lanes)
        first, last = start * layout.rows_per_lane, stop * layout.rows_per_lane
        out = _aligned_zeros((last - first, d))
        part = features[first : min(last, n)]
        np.subtract(part, shift, out=out[: len(part)], casting="same_kind")
        return out.reshape(stop - start, *shape[1:])

    return jax.make_array_from_callback(shape, sharding, lanes_of)


def _aligned_zeros(shape: tuple[int, int]) -> np.ndarray:
    """float32 zeros at an address that JAX's CPU devices take over without a copy."""
    size = shape[0] * shape[1]
    buffer = np.zeros(size + 16, np.float32)
    skip = -buffer.ctypes.data // 4 % 16
    return buffer[skip : skip + size].reshape(shape)


@partial(jax.jit, static_argnums=(3, 4))
def _cut(x, n, shift, shape, sharding) -> jax.Array:
    counts = (jnp.arange(len(x)) < n)[:, None]
    x = jnp.where(counts, x.astype(jnp.float32) - shift, 0)
    total = math.prod(shape[:3])
    x = jnp.pad(x[:total], ((0, max(total - len(x), 0)), (0, 0))).reshape(shape)
    return jax.lax.with_sharding_constraint(x, sharding)


def take_rows(features, rows: np.ndarray) -> Float[np.ndarray, "b d"]:
    """Some rows as float32 NumPy, also of an array that is spread over processes."""
    if not isinstance(features, jax.Array):
        return np.asarray(features[rows], np.float32)
    sharding = features.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, P())
    return np.asarray(_gather(features, rows, sharding))


@partial(jax.jit, static_argnums=2)
def _gather(x, rows, sharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(x[rows].astype(jnp.float32), sharding)


def count_bad_rows(features) -> tuple[int, int]:
    """How many rows hold NaN or infinity, and the index of the first."""
    if isinstance(features, jax.Array):
        return tuple(int(value) for value in _count_bad_rows(features))
    starts = range(0, len(features), _CHECKED_ROWS)
    parts = [np.isfinite(features[i : i + _CHECKED_ROWS]).all(axis=1) for i in starts]
    bad = ~np.concatenate(parts)
    return int(bad.sum()), int(bad.argmax())


@jax.jit
def _count_bad_rows(x):
    bad = ~jnp.isfinite(x).all(axis=1)
    return jnp.sum(bad), jnp.argmax(bad)


def valid_rows(x: jax.Array, n) -> jax.Array:
    """`[local lanes, blocks, rows]` bool: False for padding. Runs inside shard_map."""
    shape = x.shape[:3]
    local = math.prod(shape)
    start = jax.lax.axis_index("data") * local
    return (start + jnp.arange(local) < n).reshape(shape)


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
