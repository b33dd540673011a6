"""Which clips an epoch draws, and how often."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def held_out(
    usable: Bool[np.ndarray, " n"], fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Returns the clips whose pseudo-labels are predicted but never trained on.

    Args:
        usable: clips that take part at all; only they are held out.
        fraction: share of the usable clips, rounded to a whole number of clips.
        seed: of the run; the choice is the same in every iteration.
    """
    ids = np.flatnonzero(usable)
    order = np.random.default_rng([seed, 0]).permutation(ids)
    chosen = np.zeros_like(usable)
    chosen[order[: round(fraction * len(ids))]] = True
    return chosen


def draws(
    used: Bool[np.ndarray, " n"],
    clusterings: Sequence[Int[np.ndarray, " n"]],
    *,
    clips_per_record: int,
    balanced: bool,
    seed: int,
    epoch: int,
) -> Int[np.ndarray, " n"]:
    """Returns how often each clip is drawn in an epoch.

    The draws sum to `clips_per_record` times the number of used clips. When `balanced`,
    every cluster of a clustering is drawn equally often in expectation (DeepCluster's
    uniform sampling); with several clusterings each governs an equal share.

    Args:
        used: clips to train on.
        clusterings: cluster of each clip, one array per clustering; read if `balanced`.
        clips_per_record: clips per record and epoch, on average.
        balanced: draw uniformly over clusters instead of over clips.
        seed: of the run.
        epoch: counted over the whole run.
    """
    if not balanced:
        return np.where(used, clips_per_record, 0).astype(np.int32)
    expected = np.zeros(len(used))
    for labels in clusterings:
        sizes = np.bincount(labels[used])
        weights = 1.0 / sizes[labels[used]]
        expected[used] += weights / weights.sum() / len(clusterings)
    expected *= used.sum() * clips_per_record
    # Systematic sampling: whole numbers with these expectations and an exact sum.
    offset = np.random.default_rng([seed, 1, epoch]).random()
    edges = np.floor(np.round(np.cumsum(expected), 6) + offset)
    return np.diff(edges, prepend=np.floor(offset)).astype(np.int32)
