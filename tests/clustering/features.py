"""Features like those of an encoder: overlapping, uneven, positive, of length 1."""

import numpy as np


def encoder_like(n, d, seed=0, components=40):
    rng = np.random.default_rng(seed)
    component = rng.choice(components, n, p=rng.dirichlet(np.ones(components)))
    centres = 0.5 * rng.standard_normal((components, d))
    spread = np.exp(0.3 * rng.standard_normal((components, 1)))
    axes = rng.standard_normal((d, d)) / np.sqrt(1 + np.arange(d))[:, None]
    noise = rng.standard_normal((n, d)) @ axes / np.sqrt(d)
    x = np.maximum(centres[component] + spread[component] * noise + 0.3, 1e-3)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def separated(n, d, k, seed=0):
    """Clusters far apart, and a start with one row of each."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % k
    x = 20 * rng.standard_normal((k, d))[label] + rng.standard_normal((n, d))
    return x.astype(np.float32), x[:k].astype(np.float32), label
