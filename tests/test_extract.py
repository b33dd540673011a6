"""Features of prepared clips: each once, the same values however they are made."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from jax.experimental import multihost_utils

from data_pipelines import clips as clips_lib
from data_pipelines import features
from data_pipelines.clips import ClipData
from data_pipelines.extraction import PreparedSource
from data_pipelines.phases import decode, scale
from data_pipelines.views import Views
from tests.clip_records import SMALL, make_record, make_splits, write
from xdc_jax import evaluate, extract, parallel
from xdc_jax.encoder import Encoder
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import divide
from xdc_jax.extract import Done, Job
from xdc_jax.weights import layout
from xdc_jax.weights.encoder_dir import SavedEncoder


def saved_encoder(name, seed):
    """A small encoder with random weights and statistics."""
    spec = layout.ModelSpec(name, width=4, stage_sizes=(1, 1))
    _, params, stats = layout.abstract(spec)
    rng = np.random.default_rng(seed)

    def draw(tree):
        return jax.tree.map(
            lambda leaf: np.float32(rng.uniform(0.1, 0.6, leaf.shape)), tree
        )

    variables = layout.Variables(draw(params), draw(stats))
    return SavedEncoder(spec, "kinetics", f"random {seed}", variables)


ENCODERS = {
    "video": saved_encoder("r2plus1d_18", 1),
    "audio": saved_encoder("audio_resnet18", 2),
}


@pytest.fixture(scope="module")
def records():
    return make_splits()


@pytest.fixture(scope="module")
def clips(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "p"
    return ClipData(write(folder, records, ["a", "b"]), SMALL, seed=0)


def job(clips, out, views=None, **changes):
    source = PreparedSource(clips, views or Views())
    defaults = Job(source, ENCODERS, False, False, 8, out)
    return dataclasses.replace(defaults, **changes)


def read(out, split):
    builder = tfds.builder_from_directory(out)
    split = tfds.core.ReadInstruction(split)  # a string `all` is every split
    return tfds.as_numpy(builder.as_dataset(split, batch_size=-1))


def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir() if "tfrecord" in p.name}


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_every_record_has_its_row_with_the_encoders_features(
    clips, records, num_devices, tmp_path
):
    mesh = parallel.make_mesh(jax.devices()[:num_devices])
    assert extract.extract(job(clips, tmp_path), mesh) == Done(30, 0, 30)
    for split in ("train", "odd"):
        rows = read(tmp_path, split)
        names = [name.decode() for name in rows["video_id"]]
        assert names == [record.video_id for record in records[split]]
        np.testing.assert_array_equal(rows["label"], clips.labels(split))
        batches = clips.eval_batches(split, batch_size=len(names))
        (batch,) = batches
        for modality, saved in ENCODERS.items():
            expected = np.asarray(Encoder(saved)(batch[modality]))
            usable = clips.usable(split, (modality,))
            found = rows[f"{modality}_feature"]
            np.testing.assert_allclose(found[usable], expected[usable], rtol=1e-5)
            assert np.isnan(found[~usable]).all()


def test_means_rows_per_clip_and_times(clips, tmp_path):
    views = Views(clips=3)
    extract.extract(job(clips, tmp_path / "each", views=views, per_clip=True))
    extract.extract(job(clips, tmp_path / "mean", views=views))
    each, mean = read(tmp_path / "each", "train"), read(tmp_path / "mean", "train")
    assert len(each["label"]) == 3 * len(mean["label"]) == 72
    for name in ("video_feature", "audio_feature"):
        expected = each[name].reshape(24, 3, -1).mean(1)
        np.testing.assert_allclose(mean[name], expected, rtol=1e-5)
        assert np.ptp(each[name].reshape(24, 3, -1), axis=1).max() > 0
    # Records of 0.9 s, clips of 0.2 s: three that start at 1/6, 3/6, 5/6 of 0.7 s.
    starts = each["start_s"].reshape(24, 3)
    np.testing.assert_allclose(starts, [[0.7 / 6, 0.35, 3.5 / 6]] * 24, rtol=1e-5)
    np.testing.assert_allclose(each["end_s"] - each["start_s"], 0.2, rtol=1e-4)
    np.testing.assert_allclose(mean["end_s"] - mean["start_s"], 0.9, rtol=1e-5)


def test_windows(clips, tmp_path):
    views = Views(stride_s=0.1)
    extract.extract(job(clips, tmp_path, views=views, per_clip=True))
    rows = read(tmp_path, "train")
    starts = rows["start_s"].reshape(24, -1)
    np.testing.assert_allclose(starts, [np.arange(8) * 0.1] * 24, atol=1e-5)
    # The same windows, cut out one by one.
    one = dataclasses.replace(clips.spec)
    found = []
    for batch in clips.view_batches("train", views, batch_size=8, clip_ids=range(1)):
        found.append(batch["video"])
    record = next(iter(tf.data.TFRecordDataset(clips.index("train").files[0])))
    frames = clips_lib.shards.parse(record)["frames"]
    for i in range(8):
        pictures = scale(decode(one, frames[i : i + 2]), one.short_side).numpy()
        np.testing.assert_array_equal(found[0][i], pictures[:, 2:14, 4:16])


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("portrait", [(0, 2), (8, 2), (15, 2)]),
        ("landscape", [(2, 0), (2, 11), (2, 21)]),
    ],
)
def test_three_crops_lie_along_the_longer_side(clips, records, name, places):
    clip_id = [record.video_id for record in records["odd"]].index(name)
    (batch,) = clips.view_batches(
        "odd", Views(crops=3), batch_size=3, clip_ids=range(clip_id, clip_id + 1)
    )
    middle = [records["odd"][clip_id].frames[i] for i in (3, 4)]
    whole = scale(
        decode(clips.spec, tf.constant(middle)), clips.spec.short_side
    ).numpy()
    for video, (y, x) in zip(batch["video"], places, strict=True):
        np.testing.assert_array_equal(video, whole[:, y : y + 12, x : x + 12])


def test_feature_maps(clips, tmp_path):
    extract.extract(job(clips, tmp_path / "map", feature_map=True))
    extract.extract(job(clips, tmp_path / "mean"))
    maps = read(tmp_path / "map", "train")["video_feature"]
    assert maps.shape == (24, 1, 3, 3, 8)
    pooled = read(tmp_path / "mean", "train")["video_feature"]
    np.testing.assert_allclose(maps.mean((1, 2, 3)), pooled, rtol=1e-5)


def test_official_partitions_are_carried_along(tmp_path):
    rng = np.random.default_rng(1)
    partitions = ["train/test", "test/train", "-/train", "", "train/-", "test/test"]
    records = [
        dataclasses.replace(make_record(rng, f"{i}.mp4", label=i % 2), partitions=text)
        for i, text in enumerate(partitions)
    ]
    prepared = write(tmp_path / "p", {"all": records}, ["a", "b"], records_per_shard=2)
    data = ClipData(prepared, SMALL, seed=0)
    extract.extract(job(data, tmp_path / "f", views=Views(clips=3), per_clip=True))
    found = read(tmp_path / "f", "all")["partitions"]
    assert [text.decode() for text in found] == [p for p in partitions for _ in "123"]
    first, second = divide(features.read(tmp_path / "f")["video"])
    assert [first[0], second[0]] == ["split 1", "split 2"]
    sides = [sorted(set(side.video_id)) for side in (*first[1:], *second[1:])]
    assert sides == [
        ["0.mp4", "4.mp4"],
        ["1.mp4", "5.mp4"],
        ["1.mp4", "2.mp4"],
        ["0.mp4", "5.mp4"],
    ]


def test_names_are_written_down_and_change_nothing(clips, tmp_path):
    named = {
        name: dataclasses.replace(saved, pretraining={"name": "xdc", "seed": 3})
        for name, saved in ENCODERS.items()
    }
    extract.extract(job(clips, tmp_path, data="ucf101", encoders=named))
    before = contents(tmp_path)
    pretraining = {"name": "xdc", "seed": 3}
    how = {"num_frames": 2, "crop_size": 12, "clips_per_record": 1, "crops": 1}
    how |= {"clip_s": 0.2, "feature_map": False}
    assert features.read_request(tmp_path)["about"] == {
        **how,
        "data": "ucf101",
        "pretraining": {"audio": pretraining, "video": pretraining},
    }
    # Renamed since: gone on with, under the new name.
    assert extract.extract(job(clips, tmp_path, data="ucf")) == Done(30, 0, 0)
    assert contents(tmp_path) == before
    assert features.read_request(tmp_path)["about"] == {
        **how,
        "data": "ucf",
        "pretraining": {"audio": {}, "video": {}},
    }


def test_features_of_an_earlier_format_are_not_gone_on_with(clips, tmp_path):
    extract.extract(job(clips, tmp_path))
    request = features.read_request(tmp_path)
    del request["format_version"]
    (tmp_path / "request.json").write_text(json.dumps(request))
    with pytest.raises(UserError, match=r"other features \(format_version differ\)"):
        extract.extract(job(clips, tmp_path))


def test_an_interrupted_extraction_is_gone_on_with(clips, tmp_path, monkeypatch):
    extract.extract(job(clips, tmp_path / "whole"))
    original, calls = features.write_slice, []

    def write_slice(path, rows, rejected):
        calls.append(path)
        if len(calls) == 3:
            path.with_name(f".{path.name}.tmp").write_bytes(b"half of a shard")
            raise KeyboardInterrupt
        original(path, rows, rejected)

    monkeypatch.setattr(features, "write_slice", write_slice)
    with pytest.raises(KeyboardInterrupt):
        extract.extract(job(clips, tmp_path / "cut"))
    with pytest.raises(UserError, match="not a TFDS data set"):
        features.read(tmp_path / "cut")
    done = extract.extract(job(clips, tmp_path / "cut"))
    assert done == Done(30, 0, 30 - 2 * 7)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert extract.extract(job(clips, tmp_path / "cut")) == Done(30, 0, 0)


def test_several_hosts_share_the_slices(clips, tmp_path, monkeypatch):
    mesh = parallel.make_mesh(jax.devices()[:1])
    extract.extract(job(clips, tmp_path / "one"), mesh)
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: value)

    class Waits(Exception):
        """A host is done with its part and waits for the others."""

    def wait(_):
        raise Waits

    monkeypatch.setattr(multihost_utils, "sync_global_devices", wait)
    for number, num_shards in ((0, 3), (1, 5)):  # so many are there then, of five
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        with pytest.raises(Waits):
            extract.extract(job(clips, tmp_path / "two"), mesh)
        assert len(contents(tmp_path / "two")) == 2 * num_shards  # and their reports

    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda _: None)
    assert extract.extract(job(clips, tmp_path / "two"), mesh) == Done(30, 0, 0)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_host_that_does_not_see_the_folder(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: value)
    with pytest.raises(UserError, match="--out: process 1 does not find .*/mine"):
        extract.extract(
            job(clips, tmp_path / "mine"), parallel.make_mesh(jax.devices())
        )


def test_folders_of_something_else(clips, tmp_path):
    extract.extract(job(clips, tmp_path / "a"))
    with pytest.raises(UserError, match=r"holds other features \(views differ\)"):
        extract.extract(job(clips, tmp_path / "a", views=Views(clips=2)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and holds no features"):
        extract.extract(job(clips, tmp_path / "b"))
    with pytest.raises(UserError, match="not a TFDS data set"):
        features.read(tmp_path / "b")


def test_features_are_evaluated(clips, tmp_path):
    """What is written is what `xdc evaluate` reads, folds and video ids included."""
    extract.extract(job(clips, tmp_path))
    found = features.read(tmp_path)
    assert found.keys() == {"video", "audio"}
    rows = found["video"]["train"]
    assert rows.features.shape == (24, 8)
    half = np.arange(24) < 12
    splits = {"train": rows.where(half), "test": rows.where(~half)}
    (row,) = evaluate.evaluate(splits, "clips", "video")
    assert row.keys() >= evaluate.MEASURES.keys()
    assert json.dumps(row)


@pytest.mark.parametrize("bad", [{"clips": 0}, {"crops": 2}, {"stride_s": 0.0}])
def test_bad_views(bad):
    with pytest.raises(UserError, match=f"{next(iter(bad))}: found"):
        Views(**bad)
