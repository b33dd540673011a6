"""A linear probe: how much of the labels can be read off frozen features."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def linear_probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, " m"],
) -> float:
    """Returns the test accuracy of logistic regression on standardised features.

    Clips without a label (-1) are left out. The regularisation is scikit-learn's
    default (C = 1); nothing is chosen on the test clips.
    """
    train, test = train_labels >= 0, test_labels >= 0
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train_features[train], train_labels[train])
    return float(probe.score(test_features[test], test_labels[test]))
