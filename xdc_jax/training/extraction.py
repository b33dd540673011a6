"""Features of the clips of a split, spread over the devices."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from xdc_jax import parallel, preemption
from xdc_jax.clustering.layout import plan_layout
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
    clip_ids: Int[np.ndarray, " m"],
    interruptible: bool = True,
) -> dict[str, Float[Array, "n d"]]:
    """Returns encoder name -> float32 features of some clips, in eval mode.

    The rows are those of `clip_ids`, then zeros up to n, the rows of k-means' layout.
    They are split over the mesh: each process reads the clips of its own rows, and no
    process holds those of the others.

    Args:
        extract_step: from `steps.compile_extract_step`.
        state: parameters and batch statistics, replicated.
        networks: the networks of the run.
        clips: where clips come from; see `data_pipelines.clips.ClipData`.
        split: which split.
        mesh: the devices.
        batch_size: clips per step over all devices.
        clip_ids: which clips, ascending.
        interruptible: stop between batches when the machine is taken away; not where
            something is to be saved first.

    Raises:
        PreemptedError: there was a notice.
    """
    encoders = {
        name: (encoder.params, encoder.batch_stats)
        for name, encoder in state.encoders.items()
    }
    total = plan_layout(len(clip_ids), mesh.size).total
    own = parallel.own_range(total)
    features = {
        name: np.zeros((own.stop - own.start, network.feature_dim), np.float32)
        for name, network in networks.items()
    }
    rows_per_batch = batch_size // jax.process_count()
    # As many as the first process has, which has no fewer clips than the others.
    most = min(len(clip_ids), own.stop - own.start)
    batches = clips.eval_batches(
        split,
        batch_size=rows_per_batch,
        clip_ids=clip_ids[own],
        num_batches=-(-most // rows_per_batch),
    )
    done = 0
    with tqdm(
        total=len(clip_ids[own]), desc=f"extract {split}", leave=False, disable=None
    ) as bar:
        for batch, out in run(extract_step, encoders, networks, batches, mesh):
            if interruptible:
                preemption.check()
            count = int(batch["mask"].sum())
            for name, rows in out.items():
                features[name][done : done + count] = rows
            done += count
            bar.update(count)
    return parallel.shard_batch(features, mesh)


def run(
    extract_step: Callable,
    encoders: dict[str, tuple[Any, Any]],
    networks: dict[str, Network],
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Float[np.ndarray, "m *n d"]]]]:
    """Yields each batch with the features of its rows that are not padding.

    In a job of several processes each has the rows of its own batches.

    Reads results one batch behind, so that the devices never wait.

    Args:
        extract_step: from `steps.compile_extract_step`.
        encoders: encoder name -> (parameters, batch statistics), replicated.
        networks: encoder name -> structure.
        batches: see DESIGN.md, section 4; this process's, equally many in all.
        mesh: the devices.
    """
    keys = sorted({network.modality for network in networks.values()})

    def fetched(batch, out):
        rows = {name: parallel.own_rows(x, mesh) for name, x in out.items()}
        return batch, {name: array[batch["mask"]] for name, array in rows.items()}

    pending = None
    for batch, inputs in prefetch(batches, keys, mesh):
        out = extract_step(encoders, inputs)
        if pending is not None:
            yield fetched(*pending)
        pending = (batch, out)
    if pending is not None:
        yield fetched(*pending)
