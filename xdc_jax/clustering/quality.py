"""How good a clustering is: agreement with labels, and how even its sizes are."""

import numpy as np
from jaxtyping import Int
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix


def nmi(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Normalised mutual information, 0 to 1; arithmetic mean of the entropies."""
    return float(metrics.normalized_mutual_info_score(a, b))


def ari(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Adjusted Rand index: 0 on average for random labels, 1 for the same partition."""
    return float(metrics.adjusted_rand_score(a, b))


def purity(assignments: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Share of rows that have the most frequent label of their cluster."""
    table = contingency_matrix(labels, assignments, sparse=True)
    return float(table.max(axis=0).sum() / table.sum())


def size_entropy(sizes: Int[np.ndarray, " k"]) -> float:
    """Entropy of the cluster sizes over its maximum log(k): 1 if all are equal.

    1 also for k = 1, where there is nothing to be uneven.
    """
    if len(sizes) == 1:
        return 1.0
    shares = sizes[sizes > 0] / sizes.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(sizes)))


def summary(assignments: Int[np.ndarray, " n"], k: int) -> dict[str, int | float]:
    """Sizes of k clusters: how many are empty, extremes, normalised entropy."""
    sizes = np.bincount(assignments, minlength=k)
    return {
        "empty": int((sizes == 0).sum()),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "size_entropy": size_entropy(sizes),
    }
