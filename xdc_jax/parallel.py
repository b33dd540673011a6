"""The device mesh, and how arrays and functions are spread over it.

There is one mesh axis, `data`. Every device-side function is written for one core and
mapped with `jax.shard_map`; sums over the batch are `jax.lax.psum` over `data`.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from xdc_jax.errors import UserError
from xdc_jax.files import cache_dir

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of all devices (or those given) along `data`.

    The devices of a process are neighbours, so that its rows of a batch are a range.
    (`jax.make_mesh` sorts by place in the slice. A sum over all devices gains nothing
    by that.)
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError unless the global batch divides over the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"config.batch_size is {batch_size}, which {mesh.size} devices cannot "
            f"share evenly; use a multiple of {mesh.size}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts every array of `tree` whole on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over `data`, of this process's rows of a batch."""
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    return {
        key: jax.make_array_from_process_local_data(sharding, value)
        for key, value in batch.items()
    }


def own_range(num_rows: int) -> slice:
    """Returns which of rows that are split over `data` are this process's."""
    count = num_rows // jax.process_count()
    return slice(jax.process_index() * count, (jax.process_index() + 1) * count)


def own_rows(array: jax.Array, mesh: Mesh) -> np.ndarray:
    """Returns this process's rows of an array that is split over `data`."""
    return np.asarray(
        multihost_utils.global_array_to_host_local_array(array, mesh, P(DATA_AXIS))
    )


def map_over_data(
    function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any, donate: tuple = ()
) -> Callable:
    """Jits `function`, written for one core, over the mesh.

    Replication is not tracked (`check_vma=False`), so `jax.grad` inside the function
    gives this core's part of the gradient, and the function sums it with `psum`.
    """
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache folder.

    `JAX_COMPILATION_CACHE_DIR` names another folder.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next use; elsewhere, does nothing.

    By default it may hand what a convolution on CPU frees back to the system, and get
    it again page by page: 8.7 s become 12 s for the features of 32 clips of 8x112x112
    by R(2+1)D-18 (`benchmarks/extract.py`, 2 cores), and `xdc pretrain` does 138 clips
    per second in place of 167 (configs/grid_words.py, one core).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_MAX, 0)
