"""How rows are divided: official splits, folds, separate splits; what goes wrong."""

import dataclasses

import numpy as np
import pytest

from tests.evaluation.rows import make_rows
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import divide, mean_per_group

PATTERNS = ("train/test/-", "test/train/val", "train/train/test", "-/train/train")


def partitioned(patterns=PATTERNS, seed=1):
    """Rows of which each video has one of the patterns, by its number."""
    rows = make_rows(seed)
    number = [int(name[1:]) for name in rows.video_id]
    marks = np.array([patterns[i // 4 % len(patterns)] for i in number], object)
    return dataclasses.replace(rows, partitions=marks)


def test_means_per_video():
    values = np.array([[1.0], [2.0], [5.0]])
    found = mean_per_group(values, np.array([1, 0, 1]))
    np.testing.assert_array_equal(found, [[2.0], [3.0]])


def test_official_splits_are_parts():
    """By a loop over rows; `val` and `-` are on neither side, folds do not matter."""
    rows = partitioned()
    parts = list(divide({"all": rows}))
    assert [name for name, _, _ in parts] == ["split 1", "split 2", "split 3"]
    for i, (_, *sides) in enumerate(parts):
        for mark, side in zip(("train", "test"), sides, strict=True):
            expected = [
                j
                for j, text in enumerate(rows.partitions)
                if text.split("/")[i] == mark
            ]
            assert expected
            np.testing.assert_array_equal(side.features, rows.features[expected])
            np.testing.assert_array_equal(side.video_id, rows.video_id[expected])
            np.testing.assert_array_equal(side.partitions, rows.partitions[expected])


def test_videos_without_partitions_are_in_none():
    rows = partitioned(("train/test", "test/train", ""))
    for _, train, test in divide({"all": rows}):
        assert all(train.partitions)
        assert all(test.partitions)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [("1", [1]), ("1+3", [1, 3]), ("3+1", [1, 3]), ("all", [1, 2, 3])],
)
def test_some_parts(parts, expected):
    found = [name for name, _, _ in divide({"all": partitioned()}, parts)]
    assert found == [f"split {i}" for i in expected]


def test_some_folds():
    found = [name for name, _, _ in divide({"train": make_rows(1)}, "0+2")]
    assert found == ["fold 0", "fold 2"]


@pytest.mark.parametrize("parts", ["4", "1,2", "", "1+", "split 1"])
def test_unknown_parts(parts):
    with pytest.raises(UserError, match=r"parts: found .* or some of 1\+2\+3"):
        list(divide({"all": partitioned()}, parts))


def test_parts_of_one_part():
    splits = {"train": make_rows(1), "test": make_rows(2, prefix="t")}
    with pytest.raises(UserError, match="parts: found '1', expected `all`$"):
        list(divide(splits, "1"))


def test_an_official_split_without_test_videos():
    rows = partitioned(("train/train", "test/train", "train/-"))
    with pytest.raises(UserError, match=r"split 2: found no test clip .* --parts"):
        list(divide({"all": rows}))
    assert len(list(divide({"all": rows}, "1"))) == 1


def test_partitions_that_differ_within_a_video():
    rows = partitioned()
    rows.partitions[np.flatnonzero(rows.video_id == "v7")[1]] = "train/-/-"
    with pytest.raises(UserError, match=r"v7: found clips with partitions .*train/-/-"):
        list(divide({"all": rows}))


def test_partitions_of_different_numbers():
    rows = partitioned(("train/test", "test/train", "train"))
    with pytest.raises(UserError, match="partitions of 1 and of 2 splits"):
        list(divide({"all": rows}))


@pytest.mark.parametrize(
    ("names", "unlabelled", "train", "test"),
    [
        (("train", "test"), (), "train", "test"),
        (("train", "val"), (), "train", "val"),  # Kinetics
        (("train", "val", "test"), ("test",), "train", "val"),  # Kinetics, all lists
        (("train", "val", "test"), (), "train", "test"),
        (("val", "test"), (), "val", "test"),  # THUMOS14
    ],
)
def test_separate_splits(names, unlabelled, train, test):
    splits = {name: make_rows(i, prefix=name) for i, name in enumerate(names)}
    for name in unlabelled:
        splits[name].label[:] = -1
    ((part, *sides),) = divide(splits)
    assert part == test
    assert sides[0].video_id[0].startswith(train)
    assert sides[1].video_id[0].startswith(test)


def test_folds_are_test_sets_in_turn_and_never_share_a_video():
    rows = make_rows(1)
    parts = list(divide({"train": rows}))
    assert [name for name, _, _ in parts] == ["fold 0", "fold 1", "fold 2"]
    for _, train, test in parts:
        assert len(train) + len(test) == len(rows)
        assert not set(train.video_id) & set(test.video_id)
        assert len(np.unique(test.fold)) == 1


def test_rows_without_label_or_features_are_left_out():
    train, test = make_rows(1), make_rows(2, prefix="t")
    train.label[:5] = -1
    train.features[5:8] = np.nan
    ((_, found, _),) = divide({"train": train, "test": test})
    assert len(found) == len(train) - 8


def test_bad_divisions():
    rows = make_rows(1)
    with pytest.raises(UserError, match="60 videos are in both training and test"):
        list(divide({"train": rows, "test": rows}))
    rows.fold[:] = -1
    with pytest.raises(UserError, match="found splits train and no folds"):
        list(divide({"train": rows}))
    with pytest.raises(UserError, match="found splits a, b and no folds"):
        list(divide({"a": rows, "b": rows}))
    unlabelled = make_rows(2, prefix="t")
    unlabelled.label[:] = -1
    with pytest.raises(UserError, match="no test clip with label and features"):
        list(divide({"train": rows, "test": unlabelled}))


def test_features_that_are_all_nan():
    train, test = make_rows(1), make_rows(2, prefix="t")
    train.features[:, 3] = np.nan
    with pytest.raises(
        UserError,
        match="no training clip .* 180 training clips, 180 have a label and 0 finite",
    ):
        list(divide({"train": train, "test": test}))
