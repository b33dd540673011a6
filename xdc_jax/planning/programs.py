"""The programs of a run, compiled for a TPU slice that need not be there.

`libtpu` holds the compiler; it compiles for every core of the slice, also for those
that other hosts would drive. Call `prepare_environment` before JAX is used.
"""

import dataclasses
import importlib.util
import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from xdc_jax import parallel
from xdc_jax.clustering import assignments, lloyd, targets
from xdc_jax.clustering.layout import plan_layout
from xdc_jax.errors import UserError
from xdc_jax.planning import arithmetic, chips, hlo, traffic
from xdc_jax.training import optimizer, state, steps

log = logging.getLogger(__name__)

# A CPU runs what Python needs; libtpu neither looks for a TPU and its neighbours nor
# minds another process that compiles, and does not warn that there is none.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
# Products of float32 that are exact to float32 (`Precision.HIGHEST`) take so many
# bfloat16 ones: `DotAlgorithmPreset.BF16_BF16_F32_X6` in the documentation of jax.lax.
EXACT_PASSES = 6
# Classes of the head of method=supervised, whose data set is not looked at.
NUM_LABELS = 400
# "Used 20.16G of 15.75G hbm", or "(240.00G) exceeds available HBM (15.75G)"
_OUT_OF_MEMORY = re.compile(
    r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"
    r"|\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
)


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice: its name, such as v5e:4x4, one of its chips, and a mesh of it."""

    name: str
    chip: chips.Chip
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiler and its program's text say of one core.

    Attributes:
        hbm_needed: bytes of arguments, results, temporaries and code.
        hbm_temporary: bytes of temporaries alone.
        network_flops: see `arithmetic`; of k-means, of one turn of its loop.
        flops: what the compiler counts; of k-means `network_flops`, because it counts
            the bodies of loops once.
        flops_passes: bfloat16 operations that the chip does for one of `flops`.
        hbm_bytes: see `traffic`; of k-means, of one turn of its loop.
        unpadded_bytes: the same without the padding of tiles.
        reported_bytes: what the compiler reports as `bytes accessed`.
        collective_bytes: operands of collectives.
        sent_bytes: sent to other chips in a ring of all cores.
        compile_s: seconds to compile it.
    """

    hbm_needed: float
    hbm_temporary: float
    network_flops: float
    flops: float
    flops_passes: int
    hbm_bytes: float
    unpadded_bytes: float
    reported_bytes: float
    collective_bytes: float
    sent_bytes: float
    compile_s: float

    def roofs(self, chip: chips.Chip) -> dict[str, float]:
        """Returns the least seconds that compute, memory and collectives take."""
        return {
            "compute": self.flops * self.flops_passes / chip.flops_per_s,
            "memory": self.hbm_bytes / chip.hbm_bytes_per_s,
            "collectives": self.sent_bytes / chip.ici_bytes_per_s,
        }

    def seconds(self, chip: chips.Chip) -> float:
        """Returns the roofline: the largest of the roofs."""
        return max(self.roofs(chip).values())


@dataclasses.dataclass(frozen=True)
class DoesNotFit:
    """A program that the compiler found no room for.

    Attributes:
        hbm_needed: bytes, None where the compiler does not say.
        hbm_available: bytes there are, None likewise.
        compile_s: seconds until it said so.
    """

    hbm_needed: float | None
    hbm_available: float | None
    compile_s: float


def prepare_environment() -> None:
    """Sets what JAX and libtpu read when they start; it must come before that.

    Raises:
        UserError: there is no libtpu.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "xdc plan compiles with Google's TPU compiler, which is not installed: "
            "`pip install libtpu` (Linux; no TPU is needed)"
        )
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")  # JAX may have read its variable before


def open_slice(topology: str) -> Slice:
    """Returns a slice by name, such as v5e:4x4.

    Raises:
        UserError: there is no such slice.
    """
    chip = chips.of_topology(topology)
    try:
        found = topologies.get_topology_desc(
            topology, "tpu", **dict(chip.topology_options)
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology: {topology!r} is no slice: {_first_line(error)}; expected "
            f"chips along each axis, such as {chips.EXAMPLES}"
        ) from error
    return Slice(topology, chip, parallel.make_mesh(found.devices))


def train_step(
    tpu: Slice, config: ConfigDict, num_clips: int, batch_size: int
) -> Program | DoesNotFit:
    """Compiles the training step of a run.

    Args:
        tpu: the slice.
        config: of the run.
        num_clips: of the data set: the length of the tables of labels.
        batch_size: clips of a step, on all cores; config.batch_size is not read.
    """
    plan = targets.make_plan(config.method, config.same_modality)
    networks, initial = _initial_state(config, plan)
    step = steps.compile_train_step(
        tpu.mesh, networks, optimizer.make(config.optimizer)
    )
    tables = {name for heads in plan.heads.values() for name in heads}
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    arguments = (
        _placed(initial, tpu.mesh, P()),
        _placed(_batch(config, plan, batch_size), tpu.mesh, P(parallel.DATA_AXIS)),
        _placed(
            {name: jax.ShapeDtypeStruct((num_clips,), jnp.int32) for name in tables},
            tpu.mesh,
            P(),
        ),
        _placed(
            {name: {"body": scalar, "head": scalar} for name in plan.encoders},
            tpu.mesh,
            P(),
        ),
    )
    what = f"training step, {batch_size // tpu.mesh.size} clips per core"
    return _compile(tpu, what, step, arguments)


def extract_step(
    tpu: Slice, config: ConfigDict, batch_size: int
) -> Program | DoesNotFit:
    """Compiles the extraction of the features of a batch; arguments as `train_step`."""
    plan = targets.make_plan(config.method, config.same_modality)
    networks, initial = _initial_state(config, plan)
    encoders = {
        name: (encoder.params, encoder.batch_stats)
        for name, encoder in initial.encoders.items()
    }
    batch = _batch(config, plan, batch_size)
    del batch["clip_id"]
    arguments = (
        _placed(encoders, tpu.mesh, P()),
        _placed(batch, tpu.mesh, P(parallel.DATA_AXIS)),
    )
    step = steps.compile_extract_step(tpu.mesh, networks)
    return _compile(tpu, "extraction", step, arguments)


def kmeans(
    tpu: Slice, config: ConfigDict, num_clips: int
) -> dict[str, Program | DoesNotFit]:
    """Compiles k-means of each clustering of a run; returns it by name.

    FLOPs and traffic are of one update of the centroids: a pass over all clips, or a
    mini-batch where config.clustering.batch_size is set.
    """
    plan = targets.make_plan(config.method, config.same_modality)
    dims = feature_dims(config)
    found = {}
    for name, k in assignments.num_clusters(plan, config.clustering).items():
        d = sum(dims[member] for member in plan.clusterings[name])
        d = config.clustering.whiten_dim or d
        found[name] = _kmeans(tpu, config.clustering, name, num_clips, k, d)
    return found


def _kmeans(
    tpu: Slice, config: ConfigDict, name: str, num_clips: int, k: int, d: int
) -> Program | DoesNotFit:
    mesh = tpu.mesh
    rows = min(config.batch_size or num_clips, num_clips)
    cut = plan_layout(rows, mesh.size)
    x = jax.ShapeDtypeStruct((cut.lanes, cut.blocks, cut.rows, d), jnp.float32)
    x = _placed(x, mesh, P(parallel.DATA_AXIS))
    count = jax.ShapeDtypeStruct((), jnp.int32)
    centroids = jax.ShapeDtypeStruct((k, d), jnp.float32)
    tol = jax.ShapeDtypeStruct((), jnp.float32)
    weights = jax.ShapeDtypeStruct((k,), jnp.float32)
    if config.batch_size:
        function, rest = lloyd.minibatch_step, (count, centroids, weights)
    else:
        function, rest = lloyd.lloyd, (count, centroids, count, tol, centroids)
    arguments = (x, *_placed(rest, mesh, P()))
    return _compile(
        tpu,
        f"k-means, {name}",
        jax.jit(lambda *args: function(*args, mesh=mesh)),
        arguments,
        exact=True,
        in_loop=not config.batch_size,
    )


def _initial_state(
    config: ConfigDict, plan: targets.Plan
) -> tuple[dict[str, state.Network], Any]:
    """Returns networks and the shapes of the state of a run with its heads."""
    counts = assignments.num_clusters(plan, config.clustering)
    counts[targets.LABEL] = NUM_LABELS
    classes = {
        name: {target: counts[target] for target in heads}
        for name, heads in plan.heads.items()
    }
    networks = {}

    def create():
        found, initial = state.create(config, plan)
        networks.update(found)
        return state.reset_heads(initial, found, classes, config, 0)

    return networks, jax.eval_shape(create)


def _batch(
    config: ConfigDict, plan: targets.Plan, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch as DESIGN.md, section 4."""
    clip = config.clip
    video = (clip.num_frames, clip.crop_size, clip.crop_size, 3)
    audio = (clip.mel_frames, clip.mel_bins, 1)
    of = {"video": (video, jnp.uint8), "audio": (audio, jnp.float32)}
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *of[name][0]), of[name][1])
        for name in plan.modalities
    }
    return {**batch, "clip_id": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}


def feature_dims(config: ConfigDict) -> dict[str, int]:
    """Returns encoder name -> width of its features."""
    plan = targets.make_plan(config.method, config.same_modality)
    networks, _ = _initial_state(config, plan)
    return {name: network.feature_dim for name, network in networks.items()}


def batch_bytes(config: ConfigDict) -> int:
    """Returns the bytes of one clip of a batch on a core."""
    plan = targets.make_plan(config.method, config.same_modality)
    return sum(x.size * x.dtype.itemsize for x in _batch(config, plan, 1).values())


def _placed(tree: Any, mesh: Mesh, spec: P) -> Any:
    """Returns the shapes of `tree` as arrays that lie so on the mesh."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _compile(
    tpu: Slice,
    what: str,
    function: Callable,
    arguments: tuple,
    *,
    exact: bool = False,
    in_loop: bool = False,
) -> Program | DoesNotFit:
    """Compiles a function and reads the program.

    Args:
        tpu: the slice.
        what: the name for the log.
        function: jitted.
        arguments: shapes with sharding.
        exact: products are of float32, exact, and in loops.
        in_loop: traffic is that of a turn of the outermost loop.
    """
    start = time.monotonic()
    try:
        traced = function.trace(*arguments)
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.monotonic() - start
        found = DoesNotFit(*out_of_memory(str(error)), seconds)
        log.info("%s: %s does not fit (%.0f s)", tpu.name, what, seconds)
        return found
    seconds = time.monotonic() - start
    log.info("%s: %s compiled in %.0f s", tpu.name, what, seconds)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    module = hlo.parse(compiled.as_text())
    measure = traffic.of_main_loop if in_loop else traffic.of_program
    flops = arithmetic.flops(traced.jaxpr)
    moved = measure(module, tpu.mesh.size)
    unpadded = measure(traffic.without_padding(module), tpu.mesh.size)
    return Program(
        hbm_needed=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        hbm_temporary=memory.temp_size_in_bytes,
        network_flops=flops,
        flops=flops if exact else cost["flops"],
        flops_passes=EXACT_PASSES if exact else 1,
        hbm_bytes=moved.hbm_bytes,
        unpadded_bytes=unpadded.hbm_bytes,
        reported_bytes=cost["bytes accessed"],
        collective_bytes=moved.collective_bytes,
        sent_bytes=moved.sent_bytes,
        compile_s=seconds,
    )


def out_of_memory(message: str) -> tuple[float | None, float | None]:
    """Returns the bytes needed and available that the compiler's message names."""
    found = _OUT_OF_MEMORY.search(message)
    if not found:
        return None, None
    needed, unit, available, unit_available = filter(
        lambda group: group is not None, found.groups()
    )
    return _bytes(needed, unit), _bytes(available, unit_available)


def _bytes(number: str, unit: str) -> float:
    return float(number) * 1024 ** " KMGT".index(unit or " ")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
