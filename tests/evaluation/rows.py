"""Made-up features of several clips per video."""

import numpy as np

from xdc_jax.evaluation.rows import FeatureRows


def make_rows(seed, videos=60, clips=3, classes=4, spread=2.0, prefix="v"):
    """Rows of several clips per video; a third of each feature is the class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, 12))
    video = np.repeat(np.arange(videos), clips)
    label = (np.arange(videos) % classes)[video]
    features = centres[label] + spread * rng.normal(size=(len(video), 12))
    order = rng.permutation(len(video))
    return FeatureRows(
        features=features[order].astype(np.float32),
        label=label[order],
        fold=video[order] % 3,
        video_id=np.array([f"{prefix}{i}" for i in video[order]]),
    )
