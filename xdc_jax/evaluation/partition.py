"""Which rows train and which test: official splits, folds, or separate splits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from xdc_jax.errors import UserError

# Of data in separate splits: training and test, the first pair whose test rows have
# labels. Kinetics has no test labels; detectors of THUMOS14 are trained on val.
_PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))


@dataclasses.dataclass(frozen=True)
class Part:
    """One division of the data into training and test rows.

    Attributes:
        name: `split 1`, `fold 3`, or the name of the test split.
        train_split: the split that the training rows are in.
        train: which of its rows.
        test_split: the split that the test rows are in.
        test: which of its rows.
    """

    name: str
    train_split: str
    train: Bool[np.ndarray, " n"]
    test_split: str
    test: Bool[np.ndarray, " m"]


def parts(splits: Mapping[str, Any], wanted: str = "all") -> list[Part]:
    """Returns the divisions that the data have.

    One split with official partitions has the parts `split 1`, `split 2` and so on; one
    with folds has `fold N`, each the test set in turn. Separate splits are one part,
    named by the test split: train and test, train and val, or val and test.

    Args:
        splits: split -> columns by row: `label`, `video_id`, `fold`, and `partitions`
            (such as `train/test/-`, or empty), which may be None.
        wanted: `all`, or numbers of official splits or folds, such as `1+3`, or the
            split to test on.

    Raises:
        UserError: the data cannot be divided so, or a video is in both parts.
    """
    found = _all(splits, wanted)
    if [part.name for part in found] != [wanted]:
        found = _choose(found, wanted)
    for part in found:
        videos = [
            set(splits[split].video_id[mask])
            for split, mask in (
                (part.train_split, part.train),
                (part.test_split, part.test),
            )
        ]
        for split in {part.train_split, part.test_split}:
            _check_labels(splits[split])
        if shared := videos[0] & videos[1]:
            raise UserError(
                f"{part.name}: {len(shared)} videos are in both training and test, "
                f"such as {min(shared)}; divide by video"
            )
    return found


def _check_labels(columns: Any) -> None:
    """Raises UserError if rows of one video have different labels."""
    labelled = columns.label >= 0
    label, videos = columns.label[labelled], columns.video_id[labelled]
    _, first, video = np.unique(videos, return_index=True, return_inverse=True)
    differ = label != label[first][video]
    if differ.any():
        name = videos[np.flatnonzero(differ)[0]]
        raise UserError(
            f"{name}: found clips of {len(set(label[videos == name]))} classes, "
            "expected one: scores are averaged over the clips of a video; cut the "
            "intervals out as files of their own"
        )


def _all(splits: Mapping[str, Any], wanted: str) -> list[Part]:
    pairs = [pair for pair in _PAIRS if splits.keys() >= set(pair)]
    pairs = [pair for pair in pairs if pair[1] == wanted] or pairs
    if pairs:
        labelled = [pair for pair in pairs if (splits[pair[1]].label >= 0).any()]
        train, test = (labelled or pairs)[0]
        every = [np.ones(len(splits[split].label), bool) for split in (train, test)]
        return [Part(test, train, every[0], test, every[1])]
    if len(splits) == 1:
        ((split, columns),) = splits.items()
        if columns.partitions is not None and any(columns.partitions):
            return _official(split, columns)
        folds = np.unique(columns.fold[columns.fold >= 0])
        if len(folds) >= 2:
            train = [(columns.fold >= 0) & (columns.fold != fold) for fold in folds]
            return [
                Part(f"fold {fold}", split, others, split, columns.fold == fold)
                for fold, others in zip(folds, train, strict=True)
            ]
    raise UserError(
        f"found splits {', '.join(sorted(splits))} and no folds, expected splits train "
        "and test (or val), or one split with official partitions or with two folds or "
        "more; add a column `split`, `partitions` or `fold` to the manifest"
    )


def _official(split: str, columns: Any) -> list[Part]:
    """Returns the parts of rows with official partitions."""
    partitions, videos = columns.partitions, columns.video_id
    _, first, video = np.unique(videos, return_index=True, return_inverse=True)
    differ = partitions != partitions[first][video]
    if differ.any():
        i = int(np.flatnonzero(differ)[0])
        pair = sorted({str(partitions[i]), str(partitions[first[video[i]]])})
        raise UserError(
            f"{videos[i]}: found clips with partitions {' and '.join(pair)}, expected "
            "the same for all clips of a video; correct the manifest"
        )
    # A video without partitions is in none of them.
    names, number = np.unique(partitions.astype(str), return_inverse=True)
    counts = {name.count("/") + 1 for name in names if name}
    if len(counts) > 1:
        raise UserError(
            f"found partitions of {' and of '.join(map(str, sorted(counts)))} splits, "
            "expected as many in every row; correct the manifest"
        )
    result = []
    for i in range(counts.pop()):
        marks = np.array([name.split("/")[i] if name else "-" for name in names])
        mark = marks[number]
        result.append(
            Part(f"split {i + 1}", split, mark == "train", split, mark == "test")
        )
    return result


def _choose(found: Sequence[Part], wanted: str) -> list[Part]:
    if wanted == "all":
        return list(found)
    numbered = {p.name.rpartition(" ")[2]: p for p in found if " " in p.name}
    numbers = wanted.split("+")
    unknown = [number for number in numbers if number not in numbered]
    if unknown:
        some = f" or some of {'+'.join(numbered)}" if numbered else ""
        raise UserError(f"--parts: found {wanted!r}, expected `all`{some}")
    return [part for number, part in numbered.items() if number in numbers]
