"""Features as arrays with one row per clip, and how a protocol divides them."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from xdc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Clips with one kind of features.

    Attributes:
        features: one row per clip; a clip without this modality has NaN.
        label: class of each clip, -1 where unlabelled.
        fold: cross-validation fold of each clip, -1 where none.
        video_id: the source of each clip; clips of one source have one label.
    """

    features: Float[np.ndarray, "n d"]
    label: Int[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    video_id: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def where(self, mask: Bool[np.ndarray, " n"]) -> "FeatureRows":
        """Returns the rows for which `mask` is True."""
        return FeatureRows(
            self.features[mask], self.label[mask], self.fold[mask], self.video_id[mask]
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
    splits: dict[str, FeatureRows],
) -> Iterator[tuple[str, FeatureRows, FeatureRows]]:
    """Yields (name, training rows, test rows): train and test splits, or each fold.

    Raises:
        UserError: there is neither a test split nor a fold, a part has no labelled row,
            or a video is in both parts.
    """
    if {"train", "test"} <= splits.keys():
        parts = [("test", splits["train"], splits["test"])]
    else:
        (rows,) = splits.values() if len(splits) == 1 else (None,)
        if rows is None or len(np.unique(rows.fold[rows.fold >= 0])) < 2:
            raise UserError(
                f"found splits {', '.join(sorted(splits))} and no folds, expected "
                "splits train and test, or one split with two folds or more; add a "
                "column `split` or `fold` to the manifest"
            )
        parts = [
            (
                f"fold {fold}",
                rows.where((rows.fold >= 0) & (rows.fold != fold)),
                rows.where(rows.fold == fold),
            )
            for fold in np.unique(rows.fold[rows.fold >= 0])
        ]
    for name, train, test in parts:
        train, test = train.known(), test.known()
        for part, rows in (("training", train), ("test", test)):
            if not len(rows):
                raise UserError(f"{name}: found no {part} clip with label and features")
        shared = set(train.video_id) & set(test.video_id)
        if shared:
            raise UserError(
                f"{name}: {len(shared)} videos are in both training and test, such as "
                f"{sorted(shared)[0]}; divide by video"
            )
        yield name, train, test
