"""Features as arrays with one row per clip, and how a protocol divides them."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from xdc_jax.errors import UserError
from xdc_jax.evaluation import partition


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Clips with one kind of features.

    Attributes:
        features: one row per clip; a clip without this modality has NaN.
        label: class of each clip, -1 where unlabelled.
        fold: cross-validation fold of each clip, -1 where none.
        video_id: the source of each clip; clips of one source have one label.
        partitions: part (`train`, `test`, `val` or `-`) of each clip in each of several
            official partitions, joined by `/`; empty where there are none.
    """

    features: Float[np.ndarray, "n d"]
    label: Int[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    video_id: np.ndarray
    partitions: np.ndarray = None  # by default, none

    def __post_init__(self):
        if self.partitions is None:
            object.__setattr__(self, "partitions", np.full(len(self), "", object))

    def __len__(self) -> int:
        return len(self.label)

    def where(self, mask: Bool[np.ndarray, " n"]) -> "FeatureRows":
        """Returns the rows for which `mask` is True."""
        return FeatureRows(
            self.features[mask],
            self.label[mask],
            self.fold[mask],
            self.video_id[mask],
            self.partitions[mask],
        )

    def known(self) -> "FeatureRows":
        """Returns the rows with a label and with finite features."""
        return self.where((self.label >= 0) & np.isfinite(self.features).all(axis=1))

    def videos(self) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
        """Returns the first row of each video, and the number of each row's video."""
        _, first, number = np.unique(
            self.video_id, return_index=True, return_inverse=True
        )
        return first, number


def mean_per_group(
    values: Float[np.ndarray, "n *d"], group: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "groups *d"]:
    """Averages the rows of each group, in float64; groups are numbered from 0."""
    total = np.zeros((group.max(initial=-1) + 1, *values.shape[1:]))
    np.add.at(total, group, values)
    counts = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return total / counts


def divide(
    splits: Mapping[str, FeatureRows], wanted: str = "all"
) -> Iterator[tuple[str, FeatureRows, FeatureRows]]:
    """Yields name, training rows and test rows of the parts of `partition.parts`.

    Rows without a label or with features that are not finite are left out.

    Args:
        splits: split -> rows.
        wanted: `all`, or numbers of official splits or folds, such as `1+3`.

    Raises:
        UserError: the rows cannot be divided so, or a part has no labelled row.
    """
    for part in partition.parts(splits, wanted):
        train = splits[part.train_split].where(part.train)
        test = splits[part.test_split].where(part.test)
        for side, rows in (("training", train), ("test", test)):
            if not len(rows.known()):
                finite = int(np.isfinite(rows.features).all(axis=1).sum())
                raise UserError(
                    f"{part.name}: found no {side} clip with label and features, "
                    f"expected one at least; of {len(rows)} {side} clips, "
                    f"{int((rows.label >= 0).sum())} have a label and {finite} finite "
                    "features. Extract features of labelled clips that have this "
                    "modality, or choose other --parts"
                )
        yield part.name, train.known(), test.known()
