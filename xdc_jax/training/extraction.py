"""Features of every clip of a split, by clip id."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int
from tqdm import tqdm

from xdc_jax.parallel import shard_batch
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
    keys = {network.modality for network in networks.values()}
    count = total if clip_ids is None else len(clip_ids)
    pending = None

    def keep(ids, mask, out):
        for name, rows in out.items():
            features[name][ids[mask]] = np.asarray(rows)[mask]

    with tqdm(total=count, desc=f"extract {split}", leave=False, disable=None) as bar:
        for batch in clips.eval_batches(
            split, batch_size=batch_size, clip_ids=clip_ids
        ):
            inputs = shard_batch({key: batch[key] for key in keys}, mesh)
            out = extract_step(encoders, inputs)
            if pending is not None:  # one batch behind, so that the device never waits
                keep(*pending)
            pending = (batch["clip_id"], batch["mask"], out)
            bar.update(int(batch["mask"].sum()))
        if pending is not None:
            keep(*pending)
    return features
