"""The tensors of an encoder by PyTorch name, and the way there and back.

Video encoders have the names of torchvision's `VideoResNet`, which the XDC release
uses too (`stem.0.weight`, `layer2.0.conv1.0.3.weight`, ...); audio encoders those of
torchvision's `ResNet`, and `layer0` for the three extra blocks of VMZ's.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, Shaped

from xdc_jax.errors import UserError
from xdc_jax.models import registry

StateDict = Mapping[str, Shaped[np.ndarray, "..."]]

# Tensors that a file may have beside the encoder's: the classifier and counters.
HEAD = {"fc.weight": "kernel", "fc.bias": "bias"}
COUNTER = "num_batches_tracked"
_WRAPPERS = ("state_dict", "model", "model_state_dict")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_VIDEO_STEM = {
    "spatial.conv": "0",
    "spatial.norm": "1",
    "temporal.conv": "3",
    "temporal.norm": "4",
}
_VIDEO_BLOCK = {
    "spatial.conv": "0.0",
    "spatial.norm": "0.1",
    "temporal.conv": "0.3",
    "temporal.norm": "1",
}
_AUDIO_BLOCK = {
    "first.conv": "conv1",
    "first.norm": "bn1",
    "second.conv": "conv2",
    "second.norm": "bn2",
}
_SHORTCUT = {"shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which encoder: the arguments of `registry.create` that shape its arrays.

    Attributes:
      name: a key of the registry.
      width: channels of the first stage.
      stage_sizes: blocks of each stage.
    """

    name: str
    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)

    @property
    def modality(self) -> str:
        """`video` or `audio`."""
        return "video" if self.name in registry.VIDEO_ENCODERS else "audio"

    def create(self, dtype: Any = jnp.float32) -> nnx.Module:
        """Returns the encoder with weights still to be set."""
        return registry.create(
            self.name,
            width=self.width,
            stage_sizes=self.stage_sizes,
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )


@dataclasses.dataclass(frozen=True)
class Variables:
    """What an encoder has learned, as nested dicts of float32 arrays.

    Attributes:
      params: parameters; keys of lists of blocks are ints.
      batch_stats: running means and variances.
      head: `{"kernel": [d, classes], "bias": [classes]}` of a linear classifier, or
        empty.
      counters: PyTorch name -> batches that a batch norm has seen in training; only
        carried along.
    """

    params: Any
    batch_stats: Any
    head: dict[str, Float32[np.ndarray, "..."]] = dataclasses.field(
        default_factory=dict
    )
    counters: dict[str, int] = dataclasses.field(default_factory=dict)


@functools.cache
def abstract(spec: ModelSpec) -> tuple[nnx.GraphDef, Any, Any]:
    """Returns (graphdef, params, batch_stats) with shapes in the place of arrays."""
    graphdef, params, stats = nnx.split(
        nnx.eval_shape(spec.create), nnx.Param, nnx.BatchStat
    )
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def torch_name(spec: ModelSpec, path: tuple[str | int, ...]) -> str:
    """Returns the PyTorch name of the variable at a path of `params`/`batch_stats`."""
    *parts, leaf = path
    leaf = _LEAVES[leaf]
    if parts[0] == "stem":
        inner = ".".join(parts[1:])
        if spec.modality == "video":
            return f"stem.{_VIDEO_STEM[inner]}.{leaf}"
        return f"{'bn1' if inner == 'norm' else 'conv1'}.{leaf}"
    group, index, *inner = parts
    block = f"layer0.{index}" if group == "extra_blocks" else _block(spec, index)
    inner = ".".join(inner)
    if inner in _SHORTCUT:
        return f"{block}.{_SHORTCUT[inner]}.{leaf}"
    if spec.modality == "audio":
        return f"{block}.{_AUDIO_BLOCK[inner]}.{leaf}"
    half, inner = inner.split(".", 1)
    return f"{block}.conv{1 + (half == 'second')}.{_VIDEO_BLOCK[inner]}.{leaf}"


def _block(spec: ModelSpec, index: int) -> str:
    for stage, size in enumerate(spec.stage_sizes):
        if index < size:
            return f"layer{stage + 1}.{index}"
        index -= size
    raise ValueError(f"{spec} has no block {index}")


def counters(spec: ModelSpec, count: int) -> dict[str, int]:
    """Returns the counters of an encoder all of whose batch norms saw `count`."""
    names = torch_shapes(spec)
    suffix = ".running_mean"
    norms = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return {f"{norm}.{COUNTER}": count for norm in norms}


def paths(tree: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """Returns the path and the leaf of every leaf of nested dicts."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(tuple(key.key for key in path), leaf) for path, leaf in leaves]


def _to_torch(array: np.ndarray) -> np.ndarray:
    """A filter `[*window, in, out]` as `[out, in, *window]`; vectors as they are."""
    if array.ndim > 1:
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return np.ascontiguousarray(array)


def _from_torch(array: np.ndarray) -> np.ndarray:
    if array.ndim > 1:
        array = np.moveaxis(array, (0, 1), (-1, -2))
    return np.ascontiguousarray(array, np.float32)


def torch_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Returns PyTorch name -> shape of every tensor of an encoder."""
    _, params, stats = abstract(spec)
    shapes = {}
    for path, leaf in paths(params) + paths(stats):
        shape = leaf.shape
        if len(shape) > 1:
            shape = (shape[-1], shape[-2], *shape[:-2])
        shapes[torch_name(spec, path)] = shape
    return shapes


def unwrap(state: Any) -> dict[str, Any]:
    """Takes a state dict out of what training programs wrap around it.

    Known are `{"state_dict": ...}`, `{"model": ...}` and DistributedDataParallel's
    prefix `module.` on every name.
    """
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if state and all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the tensors of a file agree with an encoder's.

    Attributes:
      spec: the encoder.
      matched: names in both, with one shape.
      missing: names of the encoder that the file lacks.
      unexpected: names of the file that the encoder lacks; its classifier and its
        counters of batches are not among them.
      differing: name -> (shape in the file, shape of the encoder).
    """

    spec: ModelSpec
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    differing: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def fits(self) -> bool:
        """Whether every tensor of the encoder is there."""
        return not self.missing and not self.differing


def compare(state: StateDict, spec: ModelSpec) -> Comparison:
    """Compares the tensors of a file with those of an encoder, by name and shape."""
    expected = torch_shapes(spec)
    known = {*expected, *HEAD}
    return Comparison(
        spec=spec,
        matched=tuple(n for n in expected if n in state and _same(state, expected, n)),
        missing=tuple(n for n in expected if n not in state),
        unexpected=tuple(
            n for n in state if n not in known and not n.endswith(f".{COUNTER}")
        ),
        differing={
            n: (tuple(state[n].shape), expected[n])
            for n in expected
            if n in state and not _same(state, expected, n)
        },
    )


def _same(state: StateDict, expected: Mapping[str, tuple[int, ...]], name: str) -> bool:
    return tuple(state[name].shape) == expected[name]


def recognise(state: StateDict) -> Comparison:
    """Finds the encoder that a state dict belongs to, by its names and shapes.

    Returns:
      The comparison with the encoder that agrees best; `fits` says whether it does.

    Raises:
      UserError: the names are of no known layout.
    """
    stages: dict[int, set[int]] = {}
    for name in state:
        if found := re.match(r"layer([1-9])\.(\d+)\.", name):
            stages.setdefault(int(found[1]), set()).add(int(found[2]))
    first = "stem.3.weight" if "stem.0.weight" in state else "layer1.0.conv1.weight"
    is_known = first in state and ("stem.0.weight" in state or "conv1.weight" in state)
    if not is_known or sorted(stages) != [*range(1, len(stages) + 1)]:
        some = ", ".join(list(state)[:5]) or "none"
        raise UserError(
            f"no R(2+1)D and no audio ResNet: found {len(state)} tensors ({some}, ...),"
            " expected the names of torchvision's VideoResNet (stem.0.weight, "
            "layer1.0.conv1.0.0.weight, ...) or ResNet (conv1.weight, ...)"
        )
    sizes = {
        "width": int(state[first].shape[0]),
        "stage_sizes": tuple(len(stages[stage]) for stage in sorted(stages)),
    }
    names = registry.VIDEO_ENCODERS
    if "stem.0.weight" not in state:
        names = registry.AUDIO_ENCODERS
    found = [compare(state, ModelSpec(name, **sizes)) for name in names]
    return max(found, key=lambda comparison: len(comparison.matched))


def from_torch(state: StateDict, spec: ModelSpec) -> Variables:
    """Converts a state dict that fits an encoder (see `compare`).

    Raises:
      UserError: a tensor holds NaN or infinity.
    """
    for name in (*torch_shapes(spec), *HEAD):
        if name in state and not np.isfinite(state[name]).all():
            raise UserError(
                f"tensor {name}: holds NaN or infinity, expected finite weights; the "
                "file is damaged or its training diverged"
            )
    _, params, stats = abstract(spec)

    def fill(tree):
        def leaf(path, _):
            return _from_torch(state[torch_name(spec, tuple(key.key for key in path))])

        return jax.tree.map_with_path(leaf, tree)

    return Variables(
        fill(params),
        fill(stats),
        {ours: _from_torch(state[n]) for n, ours in HEAD.items() if n in state},
        {n: int(state[n]) for n in state if n.endswith(f".{COUNTER}")},
    )


def to_torch(variables: Variables, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Returns the state dict of an encoder, in the order of its layers' names."""
    state = {
        torch_name(spec, path): _to_torch(np.asarray(leaf))
        for tree in (variables.params, variables.batch_stats)
        for path, leaf in paths(tree)
    }
    for name, ours in HEAD.items():
        if ours in variables.head:
            state[name] = _to_torch(np.asarray(variables.head[ours]))
    for name, count in variables.counters.items():
        state[name] = np.asarray(count, np.int64)
    return {name: state[name] for name in sorted(state)}


def digest(variables: Variables) -> str:
    """Returns 16 hex digits that stand for the parameters and statistics."""
    found = hashlib.sha256()
    for tree in (variables.params, variables.batch_stats):
        for _, leaf in paths(tree):
            found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]
