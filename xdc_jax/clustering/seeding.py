"""First centroids: greedy k-means++ on a sample of the rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_EXACT = jax.lax.Precision.HIGHEST


def sample_size(n: int, k: int) -> int:
    """Number of rows that are seeded from: 32 per cluster, at least 8192, at most n."""
    return min(n, max(32 * k, 8192))


def sample_rows(n: int, size: int, seed: int) -> np.ndarray:
    """Indices of `size` rows of `n` without repetition, ascending; f(seed, n, size)."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n, size, replace=False, shuffle=False))


def plus_plus(
    rows: Float[np.ndarray, "sample d"], k: int, *, seed: int, restart: int, device
) -> Float[np.ndarray, "k d"]:
    """Choose k of the rows by greedy k-means++.

    The next centroid is the best of 2 + log(k) candidates drawn with probability
    proportional to the squared distance to the nearest centroid so far (Arthur and
    Vassilvitskii 2007, section 5; the number of trials is scikit-learn's). Runs on one
    device whatever the mesh, so the result depends on (rows, k, seed, restart) alone.
    """
    key = jax.random.fold_in(jax.random.key(seed), restart)
    with jax.default_device(device):
        chosen = _plus_plus(rows, key, k=k, trials=2 + int(np.log(k)))
    return rows[np.asarray(chosen)]


@partial(jax.jit, static_argnames=("k", "trials"))
def _plus_plus(x: Float[Array, "n d"], key, *, k: int, trials: int):
    x = x - jnp.mean(x, axis=0)
    norms = jnp.sum(x * x, axis=1)

    def distances_to(index):  # [trials] -> [trials, n]
        products = jnp.dot(x[index], x.T, precision=_EXACT)
        return jnp.maximum(norms[index][:, None] + norms - 2 * products, 0)

    def add_one(i, state):
        chosen, nearest = state
        cumulative = jnp.cumsum(nearest)
        draws = jax.random.uniform(jax.random.fold_in(key, i), (trials,))
        candidates = jnp.searchsorted(cumulative, draws * cumulative[-1])
        candidates = jnp.minimum(candidates, x.shape[0] - 1)
        updated = jnp.minimum(nearest, distances_to(candidates))
        best = jnp.argmin(jnp.sum(updated, axis=1))
        return chosen.at[i].set(candidates[best]), updated[best]

    first = jax.random.randint(jax.random.fold_in(key, 0), (1,), 0, x.shape[0])
    chosen = jnp.zeros((k,), jnp.int32).at[0].set(first[0])
    return jax.lax.fori_loop(1, k, add_one, (chosen, distances_to(first)[0]))[0]
