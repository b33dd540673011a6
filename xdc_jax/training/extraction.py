"""Features of every clip of a split, by clip id."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int
from tqdm import tqdm

from xdc_jax import preemption
from xdc_jax.training.feed import prefetch
from xdc_jax.training.state import Network, TrainState


def extract(
    extract_step: Callable,
    state: TrainState,
    networks: dict[str, Network],
    clips: Any,
    split: str,
    mesh: Mesh,
    *,
    batch_size: int,
    clip_ids: Int[np.ndarray, " m"] | None = None,
    interruptible: bool = True,
) -> dict[str, Float[np.ndarray, "n d"]]:
    """Returns encoder name -> float32 features `[num_clips, d]`, in eval mode.

    Args:
        extract_step: from `steps.compile_extract_step`.
        state: parameters and batch statistics, replicated.
        networks: the networks of the run.
        clips: where clips come from; see `data_pipelines.clips.ClipData`.
        split: which split.
        mesh: the devices.
        batch_size: clips per step over all devices.
        clip_ids: only these clips; the rows of the others are zero.
        interruptible: stop between batches when the machine is taken away; not where
            something is to be saved first.

    Raises:
        PreemptedError: there was a notice.
    """
    encoders = {
        name: (encoder.params, encoder.batch_stats)
        for name, encoder in state.encoders.items()
    }
    total = clips.num_clips(split)
    features = {
        name: np.zeros((total, network.feature_dim), np.float32)
        for name, network in networks.items()
    }
    count = total if clip_ids is None else len(clip_ids)
    batches = clips.eval_batches(split, batch_size=batch_size, clip_ids=clip_ids)
    with tqdm(total=count, desc=f"extract {split}", leave=False, disable=None) as bar:
        for batch, out in run(extract_step, encoders, networks, batches, mesh):
            if interruptible:
                preemption.check()
            ids = batch["clip_id"][batch["mask"]]
            for name, rows in out.items():
                features[name][ids] = rows
            bar.update(len(ids))
    return features


def run(
    extract_step: Callable,
    encoders: dict[str, tuple[Any, Any]],
    networks: dict[str, Network],
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Float[np.ndarray, "m *n d"]]]]:
    """Yields each batch with the features of its rows that are not padding.

    Reads results one batch behind, so that the devices never wait.

    Args:
        extract_step: from `steps.compile_extract_step`.
        encoders: encoder name -> (parameters, batch statistics), replicated.
        networks: encoder name -> structure.
        batches: see DESIGN.md, section 4.
        mesh: the devices.
    """
    keys = sorted({network.modality for network in networks.values()})

    def fetched(batch, out):
        return batch, {k: np.asarray(rows)[batch["mask"]] for k, rows in out.items()}

    pending = None
    for batch, inputs in prefetch(batches, keys, mesh):
        out = extract_step(encoders, inputs)
        if pending is not None:
            yield fetched(*pending)
        pending = (batch, out)
    if pending is not None:
        yield fetched(*pending)
