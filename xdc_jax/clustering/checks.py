"""What k-means refuses, and how it says so."""

import numpy as np

from xdc_jax.clustering.layout import count_bad_rows
from xdc_jax.errors import UserError


def check_features(features, first_row: int = 0) -> None:
    """Raises UserError unless features are a table of finite numbers.

    `first_row` is the number of the first row, for the message.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(
            f"k-means: features have shape {list(features.shape)}; expected "
            "[rows, features] with at least one of each"
        )
    count, first = count_bad_rows(features)
    if count:
        raise UserError(
            f"k-means: {count} of {len(features)} rows of features hold NaN or "
            f"infinity, the first is row {first_row + first}; expected finite numbers. "
            "Features become NaN when training diverges: check the loss"
        )


def check_start(n: int, d: int, k: int, init) -> None:
    """Raises UserError unless k clusters of n rows of width d can start from `init`."""
    if not 1 <= k <= n:
        raise UserError(
            f"k-means: k is {k} and there are {n} rows; expected 1 <= k <= rows. "
            "Choose a smaller k or give more clips"
        )
    if init is not None and np.shape(init) != (k, d):
        raise UserError(
            f"k-means: centroids have shape {list(np.shape(init))}; expected [{k}, {d}]"
        )


def check_centroids(centroids: np.ndarray, d: int) -> None:
    """Raises UserError unless rows of width d can be assigned to the centroids."""
    if centroids.ndim != 2 or centroids.shape[1] != d:
        raise UserError(
            f"k-means: centroids have shape {list(centroids.shape)}; expected [k, {d}]"
        )


def check_at_least_one(**settings: int | None) -> None:
    """Raises UserError if a setting that is not None is below 1."""
    for name, value in settings.items():
        if value is not None and value < 1:
            raise UserError(f"k-means: {name} is {value}; expected at least 1")
