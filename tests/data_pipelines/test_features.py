"""Feature data sets as arrays: of this format, of the one before, and windows."""

import numpy as np
import pytest

from data_pipelines import features
from tests.feature_sets import make_set
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import divide

REQUEST = {"data": "x", "views": {"stride_s": 0.5}}


def columns(videos, clips=3, dim=4, seed=0):
    count = len(videos) * clips
    start = np.tile(np.arange(clips) * 0.5, len(videos))
    rng = np.random.default_rng(seed)
    return {
        "video_id": np.repeat(np.array(videos, object), clips),
        "start_s": np.float32(start),
        "end_s": np.float32(start + 1),
        "label": np.arange(count) % 2,
        "fold": np.arange(count) % 5,
        "partitions": np.array(["train/test", ""] * count, object)[:count],
        "video_feature": rng.normal(size=(count, dim)).astype(np.float32),
    }


def test_fields_are_read_back(tmp_path):
    rows = columns(["a.mp4", "\udcff.mp4"])
    make_set(tmp_path, {"all": rows, "train": columns(["c.mp4"])}, ["x", "y"])
    found = features.read(tmp_path)["video"]["all"]
    np.testing.assert_array_equal(found.features, rows["video_feature"])
    for name in ("label", "fold", "video_id", "partitions"):
        assert getattr(found, name).tolist() == rows[name].tolist()
    assert features.class_names(tmp_path) == ("x", "y")


def test_without_class_names(tmp_path):
    make_set(tmp_path, {"train": columns(["a.mp4"])}, [])
    assert features.class_names(tmp_path) == ()


def test_a_set_of_before_there_were_partitions(tmp_path):
    rows = columns(["a.mp4", "b.mp4"])
    del rows["partitions"]
    make_set(tmp_path, {"train": rows}, ["x", "y"], without=("partitions",))
    found = features.read(tmp_path)["video"]["train"]
    assert found.partitions.tolist() == [""] * 6
    np.testing.assert_array_equal(found.features, rows["video_feature"])


def test_clips_without_a_source_are_sources_of_their_own(tmp_path):
    splits = {"train": columns(["a.mp4"]), "test": columns(["b.mp4"], seed=1)}
    for rows in splits.values():
        del rows["video_id"]
    make_set(tmp_path, splits, ["x", "y"], without=("video_id",))
    ((name, train, test),) = divide(features.read(tmp_path)["video"])
    assert (name, len(train.videos()[0]), len(test.videos()[0])) == ("test", 3, 3)


def test_windows_are_of_each_video_in_order_of_time(tmp_path):
    val, test = columns(["b.mp4", "a.mp4"]), columns(["c.mp4"], seed=1)
    order = np.random.default_rng(0).permutation(6)
    shuffled = {name: values[order] for name, values in val.items()}
    features.claim(tmp_path, REQUEST, {})
    make_set(tmp_path, {"val": shuffled, "test": test}, [])
    found = features.read_windows(tmp_path)
    assert found.keys() == {"a.mp4", "b.mp4", "c.mp4"}
    for name, windows in found.items():
        of = test if name == "c.mp4" else val
        mine = of["video_id"] == name
        np.testing.assert_array_equal(windows.start_s, of["start_s"][mine])
        np.testing.assert_array_equal(windows.end_s, of["end_s"][mine])
        np.testing.assert_array_equal(windows.features, of["video_feature"][mine])


@pytest.mark.parametrize("request_", [None, {"views": {"stride_s": None}}])
def test_no_windows(tmp_path, request_):
    if request_ is not None:
        features.claim(tmp_path, request_, {})
    make_set(tmp_path, {"val": columns(["a.mp4"])}, [])
    with pytest.raises(UserError, match=r"found no windows, expected .* --stride_s"):
        features.read_windows(tmp_path)


def test_windows_of_sound_or_of_a_video_in_two_splits(tmp_path):
    rows = columns(["a.mp4"])
    features.claim(tmp_path / "two", REQUEST, {})
    make_set(tmp_path / "two", {"val": rows, "test": rows}, [])
    with pytest.raises(UserError, match=r"a\.mp4 is in split .* and in another"):
        features.read_windows(tmp_path / "two")
    rows["audio_feature"] = rows.pop("video_feature")
    features.claim(tmp_path / "sound", REQUEST, {})
    make_set(tmp_path / "sound", {"val": rows}, [])
    with pytest.raises(UserError, match="found no video_feature"):
        features.read_windows(tmp_path / "sound")


def test_a_request_that_is_no_json(tmp_path):
    (tmp_path / "request.json").write_text("[1")
    assert features.read_request(tmp_path) == {}
    with pytest.raises(UserError, match="holds other features"):
        features.claim(tmp_path, REQUEST, {})
