from types import SimpleNamespace

import numpy as np
import pytest

from xdc_jax.errors import UserError
from xdc_jax.evaluation import partition


def columns(label, video=None, fold=None, partitions=None):
    n = len(label)
    return SimpleNamespace(
        label=np.array(label),
        video_id=np.array([f"v{i}" for i in range(n)] if video is None else video),
        fold=np.array([-1] * n if fold is None else fold),
        partitions=np.array([""] * n if partitions is None else partitions),
    )


def test_official_splits_are_those_of_the_lists():
    table = ["train/test/-", "test/train/train", "-/-/test", "train/val/test", ""]
    found = partition.parts({"videos": columns([0, 1, 0, 1, 0], partitions=table)})
    assert [part.name for part in found] == ["split 1", "split 2", "split 3"]
    for number, part in enumerate(found):
        marks = [(row.split("/") if row else ["-"] * 3)[number] for row in table]
        assert part.train.tolist() == [mark == "train" for mark in marks]
        assert part.test.tolist() == [mark == "test" for mark in marks]
        assert part.train_split == part.test_split == "videos"


def test_each_fold_is_the_test_set_once():
    fold = [1, 2, 3, 1, 2, -1]
    found = partition.parts({"train": columns([0] * 6, fold=fold)})
    assert [part.name for part in found] == ["fold 1", "fold 2", "fold 3"]
    for number, part in zip((1, 2, 3), found, strict=True):
        assert part.test.tolist() == [f == number for f in fold]
        assert part.train.tolist() == [f not in (number, -1) for f in fold]


@pytest.mark.parametrize(
    ("splits", "pair"),
    [
        (("train", "test"), ("train", "test")),
        (("train", "val"), ("train", "val")),
        (("val", "test"), ("val", "test")),
        (("train", "val", "test"), ("train", "test")),
    ],
)
def test_separate_splits(splits, pair):
    data = {name: columns([0, 1], [f"{name}1", f"{name}2"]) for name in splits}
    (part,) = partition.parts(data)
    assert (part.train_split, part.test_split) == pair
    assert part.name == pair[1]
    assert part.train.all()
    assert part.test.all()


def test_val_stands_in_for_a_test_split_without_labels():
    data = {name: columns([0, 1], [name, name + "2"]) for name in ("train", "val")}
    data["test"] = columns([-1, -1], ["x", "y"])
    (part,) = partition.parts(data)
    assert part.test_split == "val"


def test_the_split_to_test_on_can_be_named():
    names = ("train", "val", "test")
    data = {name: columns([0, 1], [name, name + "2"]) for name in names}
    assert [p.test_split for p in partition.parts(data)] == ["test"]
    assert [p.test_split for p in partition.parts(data, "val")] == ["val"]


def test_clips_of_a_video_have_one_label():
    data = {
        "train": columns([0, 1, 0, -1], ["a", "a", "b", "b"]),
        "test": columns([0], ["c"]),
    }
    with pytest.raises(UserError, match="a: found clips of 2 classes, expected one"):
        partition.parts(data)
    data["train"].label[1] = 0
    partition.parts(data)


def test_chosen_parts():
    data = {"train": columns([0] * 3, fold=[1, 2, 3])}
    names = [part.name for part in partition.parts(data, "3+1")]
    assert names == ["fold 1", "fold 3"]
    with pytest.raises(UserError, match=r"found 'train', expected `all` or some"):
        partition.parts(data, "train")
    with pytest.raises(UserError, match=r"found '4', expected `all` or some of 1\+2"):
        partition.parts(data, "4")
    pair = {"train": columns([0], ["a"]), "test": columns([0], ["b"])}
    with pytest.raises(UserError, match="found '1', expected `all`$"):
        partition.parts(pair, "1")


def test_a_video_in_both_parts():
    data = {"train": columns([0] * 3, ["a", "b", "a"], fold=[1, 1, 2])}
    with pytest.raises(UserError, match="fold 1: 1 videos are in both .* such as a"):
        partition.parts(data)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": columns([0, 1])}, "found splits train and no folds"),
        ({"a": columns([0]), "b": columns([1])}, "found splits a, b"),
        (
            {"videos": columns([0] * 2, ["v", "v"], partitions=["train/-", "test/-"])},
            "v: found clips with partitions test/- and train/-",
        ),
        (
            {"videos": columns([0] * 2, partitions=["train/-", "test"])},
            "partitions of 1 and of 2 splits",
        ),
    ],
)
def test_data_that_cannot_be_divided(splits, message):
    with pytest.raises(UserError, match=message):
        partition.parts(splits)
