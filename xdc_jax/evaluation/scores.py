"""Accuracy of class scores, of clips and of videos."""

import numpy as np
from jaxtyping import Float, Int, Shaped

from xdc_jax.evaluation.rows import mean_per_group


def top_k(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], k: int
) -> float:
    """Returns the share of rows whose label is among the k highest scores.

    Of equal scores, the class with the lower number counts as the higher one.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((order == labels[:, np.newaxis]).any(axis=1).mean())


def accuracies(
    scores: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    video: Shaped[np.ndarray, " n"],
) -> dict[str, float]:
    """Returns `clip_top1`, `clip_top5`, and of videos `video_top1` and `video_top5`.

    Args:
        scores: of each clip; those of a video are averaged.
        labels: of each clip; the clips of a video have one label.
        video: the source of each clip.
    """
    _, first, number = np.unique(video, return_index=True, return_inverse=True)
    of_videos = mean_per_group(scores, number)
    return {
        f"{unit}_top{k}": top_k(values, truth, k)
        for unit, values, truth in (
            ("clip", scores, labels),
            ("video", of_videos, labels[first]),
        )
        for k in (1, 5)
    }
