"""A share of the labels: what is learned when few clips are labelled."""

import numpy as np
from jaxtyping import Bool, Int, Shaped

from xdc_jax.errors import UserError


def few_labels(
    label: Int[np.ndarray, " n"],
    video: Shaped[np.ndarray, " n"],
    fraction: float,
    seed: int,
) -> Bool[np.ndarray, " n"]:
    """Chooses a share of the labelled videos of each class, one at least.

    Of one seed, the videos of a smaller share are among those of a larger one.

    Args:
        label: class of each clip, -1 where it has none; such clips are not chosen.
        video: source of each clip; all clips of a video are chosen, or none.
        fraction: share of the videos, rounded to whole ones.
        seed: of the choice.

    Raises:
        UserError: the share is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"label fraction: found {fraction}, expected 0 < x <= 1")
    chosen = np.zeros(len(label), bool)
    for class_id in np.unique(label[label >= 0]):
        of_class = label == class_id
        videos = np.unique(video[of_class])
        rng = np.random.default_rng([seed, int(class_id)])
        count = max(1, round(fraction * len(videos)))
        wanted = rng.permutation(videos)[:count]
        chosen |= of_class & np.isin(video, wanted)
    return chosen
