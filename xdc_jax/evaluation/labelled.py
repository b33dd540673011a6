"""Which labelled records train and test a classifier, and whether they can."""

import logging
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from xdc_jax.errors import UserError
from xdc_jax.evaluation.few_labels import few_labels
from xdc_jax.evaluation.partition import Part

log = logging.getLogger(__name__)


def records(
    clips: Any, part: Part, modality: str, label_fraction: float, seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Returns the ids of the training and of the test records of a part.

    They have a label and the modality; of the training videos of each class, there is
    the share that `few_labels` chooses.

    Args:
        clips: see `data_pipelines.clips.ClipData`.
        part: which records train and which test.
        modality: `video` or `audio`.
        label_fraction: share of the training videos of each class.
        seed: of their choice.

    Raises:
        UserError: there are none, a label is of no class, there is one class only, or
            no training record of a class that is tested.
    """
    train, test = (
        _usable(clips, split, mask, modality, f"{part.name}, {side}")
        for split, mask, side in (
            (part.train_split, part.train, "training"),
            (part.test_split, part.test, "test"),
        )
    )
    index = clips.index(part.train_split)
    _check_classes(
        part.name,
        clips.class_names,
        index.label[train],
        clips.index(part.test_split).label[test],
    )
    chosen = few_labels(index.label[train], index.video_id[train], label_fraction, seed)
    return train[chosen], test


def _usable(
    clips: Any, split: str, mask: Bool[np.ndarray, " n"], modality: str, what: str
) -> Int[np.ndarray, " n"]:
    """Returns the ids of the records with a label and the modality."""
    has_modality = mask & clips.usable(split, (modality,))
    has_label = mask & (clips.index(split).label >= 0)
    ids = np.flatnonzero(has_modality & has_label)
    if not len(ids):
        raise UserError(
            f"{what}: found no record with a label and {modality}, expected one at "
            f"least; of {mask.sum()} records {has_label.sum()} have a label and "
            f"{has_modality.sum()} have {modality}"
        )
    if left_out := int(mask.sum()) - len(ids):
        log.warning(
            "%s: %d of %d records lack a label or %s and are left out",
            what,
            left_out,
            mask.sum(),
            modality,
        )
    return ids


def _check_classes(
    part: str,
    class_names: tuple[str, ...],
    train: Int[np.ndarray, " n"],
    test: Int[np.ndarray, " m"],
) -> None:
    """Raises UserError unless training has two classes, and all that are tested."""
    names = np.array(class_names)
    train, test = np.unique(train), np.unique(test)
    highest = max(train[-1], test[-1])
    if highest >= len(names):
        raise UserError(
            f"{part}: found the label {highest}, expected 0 to {len(names) - 1}, one "
            "for each class; prepare the data again"
        )
    if len(train) < 2:
        raise UserError(
            f"{part}: found one class in training, {names[train[0]]}, expected two at "
            "least"
        )
    if unseen := [str(name) for name in names[np.setdiff1d(test, train)]]:
        raise UserError(
            f"{part}: {len(unseen)} classes have test records and none to train on, "
            f"such as {unseen[0]}; take their test records out, or add training ones"
        )
    if len(train) < len(names):
        untrained = np.setdiff1d(np.arange(len(names)), train)
        log.warning(
            "%s: %d of %d classes have no training record, such as %s",
            part,
            len(untrained),
            len(names),
            names[untrained[0]],
        )
