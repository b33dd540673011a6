r"""How the system scales: as compiled for TPU slices, on devices and processes here.

Example (after `pip install libtpu`):
  python -m benchmarks.scaling --parts=compiled,devices,kmeans

compiled: the training step of configs/xdc_kinetics.py with 32 clips per core on v4
slices of 4 to 1,024 cores: FLOPs, HBM traffic and collectives per core, and the time
that the peaks of the chip allow (see `xdc plan`), beside that of 4 cores.
devices: the same small training step, with global BatchNorm, on 1, 2, 4 and 8 devices
of one process and on 1, 2 and 4 processes with two devices each, all on the cores of
this machine: what dividing the work costs, not what it gains.
kmeans: seconds of one update of the centroids and memory of this process against the
number of clips and of clusters, 512 features; and what 65 million clips need on a v4
slice, as compiled.
"""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

PARTS = ("compiled", "devices", "kmeans")
SELECTED = flags.DEFINE_list("parts", list(PARTS), "Which.")
ONLY = flags.DEFINE_string("only", None, "Measure this here; for itself.")
ADDRESS = flags.DEFINE_string("address", None, "Of process 0; for itself.")
PROCESS = flags.DEFINE_integer("process", 0, "Of --only=devices; for itself.")

SLICES = ("v4:2x2x1", "v4:2x2x4", "v4:4x4x4", "v4:4x8x8", "v4:8x8x16")
CLIPS_PER_CORE = 32
KINETICS_CLIPS, MANY_CLIPS = 230_000, 65_000_000
MANY_SLICE = "v4:4x4x8"
DEVICES = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (4, 2))  # processes, devices of each
GLOBAL_BATCH, STEPS = 32, 10
DIM = 512
SIZES = ((10_000, 256), (100_000, 256), (1_000_000, 256))
CLUSTERS = ((100_000, 64), (100_000, 256), (100_000, 1024))
UPDATES, REPEATS = 10, 3


def compiled_slices() -> None:
    """Prints the table of the training step as compiled for slices."""
    from configs import xdc_kinetics
    from xdc_jax.planning import programs

    programs.prepare_environment()
    print("| slice | cores | TFLOP | HBM GB | collective MB | ", end="")
    print("compute ms | memory ms | collectives ms | of 4 cores' clips/s and core |")
    print("| --- " * 9 + "|")
    first_s = None
    for name in SLICES:
        tpu = programs.open_slice(name)
        cores = tpu.mesh.size
        step = programs.train_step(
            tpu, xdc_kinetics.get_config(), KINETICS_CLIPS, CLIPS_PER_CORE * cores
        )
        if isinstance(step, programs.DoesNotFit):
            print(f"| {name} | {cores} | does not fit | | | | | | |", flush=True)
            continue
        roofs = step.roofs(tpu.chip)
        first_s = first_s or step.seconds(tpu.chip)
        print(
            f"| {name} | {cores} | {step.flops / 1e12:.2f} | {step.hbm_bytes / 1e9:.1f}"
            f" | {step.collective_bytes / 1e6:.0f} | "
            + " | ".join(f"{1e3 * seconds:.1f}" for seconds in roofs.values())
            + f" | {first_s / step.seconds(tpu.chip):.2f} |",
            flush=True,
        )


def devices() -> None:
    """Prints the table of a small training step on devices and processes here."""
    print("| processes | devices of each | clips/s | of 1 device |")
    print("| --- | --- | --- | --- |")
    one = None
    for processes, each in DEVICES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        force = f"--xla_force_host_platform_device_count={each}"
        job = [
            _start(
                [
                    f"--only=devices:{processes}",
                    f"--address={address}",
                    f"--process={i}",
                ],
                XLA_FLAGS=force,
            )
            for i in range(processes)
        ]
        found = min(_result(process) for process in job)
        one = one or found
        print(f"| {processes} | {each} | {found:.1f} | {found / one:.2f} |", flush=True)


def _measure_devices(processes: int) -> float:
    """Returns the clips per second of the training step in a job of processes."""
    import jax

    if processes > 1:
        jax.distributed.initialize(
            ADDRESS.value,
            processes,
            PROCESS.value,
            cluster_detection_method="deactivate",
        )
    from configs import av_digits
    from xdc_jax import parallel
    from xdc_jax.clustering import targets
    from xdc_jax.training import optimizer, state, steps

    config = av_digits.get_config()
    config.sync_bn = True
    mesh = parallel.make_mesh()
    plan = targets.make_plan(config.method, config.same_modality)
    networks, initial = state.create(config, plan)
    classes = {"video": {"audio": 32}, "audio": {"video": 32}}
    initial = state.reset_heads(initial, networks, classes, config, 0)
    initial = parallel.replicate(initial, mesh)
    step = steps.compile_train_step(mesh, networks, optimizer.make(config.optimizer))
    rng = np.random.default_rng(PROCESS.value)
    rows, clip = GLOBAL_BATCH // processes, config.clip
    video = (rows, clip.num_frames, clip.crop_size, clip.crop_size, 3)
    audio = (rows, clip.mel_frames, clip.mel_bins, 1)
    batch = parallel.shard_batch(
        {
            "video": rng.integers(0, 256, video).astype(np.uint8),
            "audio": rng.normal(size=audio).astype(np.float32),
            "clip_id": rng.integers(0, 1000, rows).astype(np.int32),
        },
        mesh,
    )
    table = {name: np.arange(1000, dtype=np.int32) % 32 for name in classes}
    table = parallel.replicate(table, mesh)
    rates = {name: {"body": np.float32(0), "head": np.float32(0)} for name in classes}
    for number in range(STEPS + 2):
        if number == 2:
            jax.block_until_ready(initial)
            start = time.perf_counter()
        initial, _ = step(initial, batch, table, rates)
    jax.block_until_ready(initial)
    return STEPS * GLOBAL_BATCH / (time.perf_counter() - start)


def kmeans() -> None:
    """Prints the tables of k-means against rows and clusters, and the plan of many."""
    print(f"| clips | k | s per update | memory, GB | features of {DIM}, GB |")
    print("| --- | --- | --- | --- | --- |")
    for n, k in dict.fromkeys((*SIZES, *CLUSTERS)):
        seconds, memory = _result(_start([f"--only=kmeans:{n}:{k}"]))
        size = 4 * n * DIM / 1e9
        print(
            f"| {n:,} | {k} | {seconds:.2f} | {memory:.2f} | {size:.2f} |", flush=True
        )
    _in_process("many")


def _measure_kmeans(n: int, k: int) -> tuple[float, float]:
    """Returns seconds of one update of the centroids, and the most memory in GB."""
    import resource

    from xdc_jax.clustering import kmeans as kmeans_lib

    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, DIM), np.float32)
    settings = {"seed": 0, "tol": 0.0, "init": x[:k]}
    taken = []
    for iters in (1, 1 + UPDATES):
        each = []
        for _ in range(1 + REPEATS):  # the first one compiles
            start = time.perf_counter()
            kmeans_lib.fit(x, k, max_iters=iters, **settings)
            each.append(time.perf_counter() - start)
        taken.append(min(each))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return (taken[1] - taken[0]) / UPDATES, memory


def many() -> None:
    """Prints what k-means of many clips needs on a slice, as compiled."""
    from configs import xdc_kinetics
    from xdc_jax.planning import programs

    programs.prepare_environment()
    tpu = programs.open_slice(MANY_SLICE)
    config = xdc_kinetics.get_config()
    config.clustering.whiten_dim = 0
    for name, found in programs.kmeans(tpu, config, MANY_CLIPS).items():
        k = config.clustering[f"k_{name}"]
        if isinstance(found, programs.DoesNotFit):
            print(f"{MANY_CLIPS:,} clips, k = {k}, {MANY_SLICE}: does not fit")
            continue
        print(
            f"{MANY_CLIPS:,} clips, k = {k}, {MANY_SLICE}: "
            f"{found.hbm_needed / 1e9:.2f} GB per core, at least "
            f"{found.seconds(tpu.chip):.3f} s per update"
        )


def _in_process(what: str = "compiled") -> None:
    """Runs a part of this script in a process of its own, which sets JAX up for it."""
    command = [sys.executable, "-m", "benchmarks.scaling", f"--only={what}"]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)


def _start(arguments: list[str], **environment: str) -> subprocess.Popen:
    """Starts this script for one measurement."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scaling", *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(process: subprocess.Popen):
    """Returns what a measurement printed last."""
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    lines = [line for line in out.splitlines() if not line.startswith("[Gloo]")]
    return json.loads(lines[-1])


def main(_) -> None:
    """Runs everything and prints the tables."""
    what, *numbers = (ONLY.value or "").split(":")
    if what == "devices":
        print("\n" + json.dumps(_measure_devices(int(numbers[0]))))
    elif what == "kmeans":
        print(json.dumps(_measure_kmeans(*map(int, numbers))))
    elif what == "many":
        many()
    elif what == "compiled":
        compiled_slices()
    else:
        for name in SELECTED.value:
            print(f"\n{name}\n", flush=True)
            {"compiled": _in_process, "devices": devices, "kmeans": kmeans}[name]()


if __name__ == "__main__":
    app.run(main)
