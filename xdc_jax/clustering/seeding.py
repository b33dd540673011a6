"""What is random in k-means: first centroids (k-means++ on a sample), directions."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_EXACT = jax.lax.Precision.HIGHEST


def sample_size(n: int, k: int) -> int:
    """Number of rows that are seeded from: 32 per cluster, at least 8192, at most n."""
    return min(n, max(32 * k, 8192))


def sample_rows(n: int, size: int, start: int | tuple[int, int]) -> np.ndarray:
    """Indices of `size` of `n` rows, ascending, none twice; f(n, size, start)."""
    rng = np.random.default_rng(start)
    return np.sort(rng.choice(n, size, replace=False, shuffle=False))


def mean_row(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Mean of rows, summed in float64."""
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32)


def split_directions(
    k: int, d: int, start: tuple[int, int]
) -> Float[np.ndarray, "k d"]:
    """Random unit vectors along which `lloyd.split_largest` splits clusters."""
    steps = np.random.default_rng(start).standard_normal((k, d), np.float32)
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


def plus_plus(
    rows: Float[np.ndarray, "sample d"], k: int, start: tuple[int, int], device
) -> Float[np.ndarray, "k d"]:
    """Choose k of the rows by greedy k-means++.

    The next centroid is the best of 2 + log(k) candidates drawn with probability
    proportional to the squared distance to the nearest centroid so far (Arthur and
    Vassilvitskii 2007, section 5; the number of trials is scikit-learn's). Runs on one
    device whatever the mesh, so that the result depends on (rows, k, start) alone;
    `start` is (seed, restart).
    """
    rng = np.random.default_rng(start)
    draws = rng.random((k, 2 + int(np.log(k))), np.float32)
    with jax.default_device(device):
        chosen = _plus_plus(rows, rng.integers(len(rows)), draws)
    return rows[np.asarray(chosen)]


@jax.jit
def _plus_plus(x: Float[Array, "n d"], first, draws: Float[Array, "k trials"]):
    x = x - jnp.mean(x, axis=0)
    norms = jnp.sum(x * x, axis=1)

    def distances_to(index):  # [trials] -> [trials, n]
        products = jnp.dot(x[index], x.T, precision=_EXACT)
        return jnp.maximum(norms[index][:, None] + norms - 2 * products, 0)

    def add_one(i, state):
        chosen, nearest = state
        cumulative = jnp.cumsum(nearest)
        candidates = jnp.searchsorted(cumulative, draws[i] * cumulative[-1])
        candidates = jnp.minimum(candidates, x.shape[0] - 1)
        updated = jnp.minimum(nearest, distances_to(candidates))
        best = jnp.argmin(jnp.sum(updated, axis=1))
        return chosen.at[i].set(candidates[best]), updated[best]

    chosen = jnp.full((len(draws),), first, jnp.int32)
    nearest = distances_to(first[None])[0]
    return jax.lax.fori_loop(1, len(draws), add_one, (chosen, nearest))[0]
