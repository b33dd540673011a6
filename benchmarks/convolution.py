"""Folded against plain convolutions in an R(2+1)D-18 training step.

    python -m benchmarks.convolution
    python -m benchmarks.convolution --topology=v4:2x2x1

The first times a forward pass and a training step on this machine, PyTorch (channels
last) beside them when it is installed. The second needs the `libtpu` package and no
TPU: it prints what the TPU compiler reports for one core with 32 clips in bfloat16,
and takes minutes to compile.
"""

import argparse
import os
import time
from unittest import mock

TPU_COMPILER_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
ENCODERS = [  # width, stage sizes, clips
    (8, (1, 1, 1, 1), (64, 8, 48, 48, 3)),
    (64, (2, 2, 2, 2), (2, 8, 112, 112, 3)),
]


def lowerings():
    """Returns name -> function in the place of `convolution.convolve`."""
    from xdc_jax.models import convolution

    def folded(x, kernel, strides):
        if convolution.is_factored(kernel, strides):
            return convolution.folded_convolution(x, kernel, strides)
        return convolution.plain_convolution(x, kernel, strides)

    return {"plain": convolution.plain_convolution, "folded": folded}


def make_step(width, stage_sizes, dtype, lowering):
    """Returns (forward, training step, abstract state); both of (state, clips)."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from xdc_jax.models import convolution, registry

    model = nnx.eval_shape(
        lambda: registry.create(
            "r2plus1d_18",
            width=width,
            stage_sizes=stage_sizes,
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )
    )
    graphdef, *state = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss(params, stats, clips, train):
        with mock.patch.object(convolution, "convolve", lowering):
            model = nnx.merge(graphdef, params, stats, copy=True)
            value = jnp.square(model(clips, train)).mean()
        return value, nnx.state(model, nnx.BatchStat)

    def forward(state, clips):
        return loss(*state, clips, False)[0]

    def step(state, clips):
        return jax.value_and_grad(loss, has_aux=True)(*state, clips, True)

    return jax.jit(forward), jax.jit(step), state


def best_seconds(function, repeats=5):
    """Returns the shortest of a few runs after a first one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def time_pytorch(width, stage_sizes, shape):
    """Returns seconds of PyTorch's forward pass and training step."""
    import torch

    from tests.models.torch_encoders import video_encoder

    model = video_encoder(width, stage_sizes, official=True)
    model = model.to(memory_format=torch.channels_last_3d)
    clips = torch.randn(shape).permute(0, 4, 1, 2, 3)  # channels last in memory

    def forward():
        with torch.no_grad():
            model.eval()(clips).mean((2, 3, 4)).square().mean()

    def step():
        model.zero_grad()
        model.train()(clips).mean((2, 3, 4)).square().mean().backward()

    return best_seconds(forward), best_seconds(step)


def print_times():
    """Prints the table of times on this machine."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    print(f"{device.platform}, {os.cpu_count()} CPU cores, float32, seconds")
    print("| width | stages | clips | convolutions | forward | training step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width, stage_sizes, shape in ENCODERS:
        rows = []
        for name, lowering in lowerings().items():
            forward, step, state = make_step(width, stage_sizes, jnp.float32, lowering)
            state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), state)
            clips = jax.random.normal(jax.random.key(0), shape)
            times = [
                best_seconds(lambda f=f: jax.block_until_ready(f(state, clips)))  # noqa: B023
                for f in (forward, step)
            ]
            rows.append((name, *times))
        try:
            rows.append(("PyTorch", *time_pytorch(width, stage_sizes, shape)))
        except ModuleNotFoundError:
            rows.append(("PyTorch: not installed", float("nan"), float("nan")))
        clips = "x".join(map(str, shape[:-1]))
        for name, forward, step in rows:
            print(
                f"| {width} | {stage_sizes} | {clips} | {name} | {forward:.3f} "
                f"| {step:.3f} |",
                flush=True,
            )


def print_compiled(topology):
    """Prints what the TPU compiler reports for a training step of one core."""
    os.environ.update(TPU_COMPILER_ENVIRONMENT)
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    device = topologies.get_topology_desc(topology, "tpu").devices[0]
    sharding = SingleDeviceSharding(device)
    print(f"{topology}, one core, 32 clips of 8x112x112, bfloat16")
    print("| convolutions | TFLOP | GB accessed | GB temporary | compile s |")
    print("| --- | --- | --- | --- | --- |")
    for name, lowering in lowerings().items():
        _, step, state = make_step(64, (2, 2, 2, 2), jnp.bfloat16, lowering)
        clips = jax.ShapeDtypeStruct((32, 8, 112, 112, 3), jnp.float32)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            (state, clips),
        )
        start = time.perf_counter()
        compiled = step.lower(*arguments).compile()
        seconds = time.perf_counter() - start
        cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
        print(
            f"| {name} | {cost['flops'] / 1e12:.2f} "
            f"| {cost['bytes accessed'] / 1e9:.1f} "
            f"| {memory.temp_size_in_bytes / 1e9:.1f} | {seconds:.0f} |",
            flush=True,
        )


def main():
    """Prints one of the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", help="TPU slice to compile for, as v4:2x2x1")
    topology = parser.parse_args().topology
    if topology:
        print_compiled(topology)
    else:
        print_times()


if __name__ == "__main__":
    main()
