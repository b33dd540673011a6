import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import shards
from tests import clip_records
from xdc_jax.errors import UserError


def jpeg(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), level, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def records(count):
    """Clips of different lengths; one without pictures, one without sound."""
    rng = np.random.default_rng(0)
    for i in range(count):
        num_frames = 0 if i == 1 else 2 + i % 3
        yield shards.Record(
            video_id=f"a/{i}, ü.mp4",
            start_s=i / 7,
            fps=12.5 if num_frames else 0.0,
            frames=[jpeg(10 * i + k) for k in range(num_frames)],
            audio=rng.integers(-32768, 32768, 0 if i == 2 else 100 + i, np.int16),
            label=i % 3 - 1,
            fold=i % 2,
        )


def write(out_dir, count=7, records_per_shard=3):
    counts = {"test": 2, "train": count, "unused": 0}
    splits = {split: records(number) for split, number in counts.items()}
    clip_records.write(out_dir, splits, ["cat", "dog"], records_per_shard)
    return out_dir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards") / "data")


def test_tfds_reads_number_order_and_content(data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(data_dir))
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == {
        "test": 2,
        "train": 7,
    }
    assert builder.info.splits["train"].shard_lengths == [3, 3, 1]
    assert builder.info.features["label"].names == ["cat", "dog"]
    dataset = tfds.as_numpy(builder.as_dataset(split="train"))
    for i, (found, record) in enumerate(zip(dataset, records(7), strict=True)):
        assert found["clip_id"] == i
        assert found["video_id"].decode() == record.video_id
        assert found["start_s"] == np.float32(record.start_s)
        assert found["fps"] == np.float32(record.fps)
        assert (found["label"], found["fold"]) == (record.label, record.fold)
        assert found["audio"].dtype == np.int16
        np.testing.assert_array_equal(found["audio"], record.audio)
        assert len(found["frames"]) == len(record.frames)
        for k, picture in enumerate(found["frames"]):
            assert picture.shape == (8, 12, 3)
            np.testing.assert_allclose(picture, 10 * i + k, atol=2)


def test_parse_reads_what_was_written(data_dir):
    import tensorflow as tf

    files = list(shards.open_prepared(data_dir).splits["train"].files)
    dataset = tf.data.TFRecordDataset(files).map(shards.parse)
    for i, (found, record) in enumerate(zip(dataset, records(7), strict=True)):
        assert found["clip_id"].numpy() == i
        assert found["video_id"].numpy().decode() == record.video_id
        assert found["frames"].numpy().tolist() == record.frames
        assert found["audio"].dtype == tf.int16
        np.testing.assert_array_equal(found["audio"].numpy(), record.audio)
        for key in ("start_s", "fps", "label", "fold"):
            assert found[key].numpy() == np.float32(getattr(record, key))


def test_the_index_says_what_the_records_hold(data_dir):
    prepared = shards.open_prepared(data_dir)
    assert prepared.class_names == ("cat", "dog")
    assert set(prepared.splits) == {"test", "train"}
    index = prepared.splits["train"]
    assert len(index) == 7
    expected = list(records(7))
    assert index.video_id.tolist() == [r.video_id for r in expected]
    assert index.num_frames.tolist() == [len(r.frames) for r in expected]
    assert index.num_samples.tolist() == [len(r.audio) for r in expected]
    assert index.label.tolist() == [r.label for r in expected]
    assert index.fold.tolist() == [r.fold for r in expected]
    durations = [
        len(r.frames) / 12.5 if r.frames else len(r.audio) / 16_000 for r in expected
    ]
    np.testing.assert_allclose(index.duration_s, durations, atol=1e-6)
    np.testing.assert_allclose(index.start_s, [r.start_s for r in expected], atol=1e-6)


def test_the_fingerprint_follows_the_content(data_dir, tmp_path):
    fingerprint = shards.open_prepared(data_dir).fingerprint
    same = shards.open_prepared(write(tmp_path / "same"))
    assert same.fingerprint == fingerprint
    shorter = shards.open_prepared(write(tmp_path / "shorter", count=6))
    assert shorter.fingerprint != fingerprint


def test_unlabelled_data_is_readable(tmp_path):
    import tensorflow_datasets as tfds

    (record,) = records(1)
    clip_records.write(tmp_path, {"train": [dataclasses.replace(record, label=-1)]})
    dataset = tfds.builder_from_directory(str(tmp_path)).as_dataset(split="train")
    assert [example["label"].numpy() for example in dataset] == [-1]


def test_what_is_no_prepared_directory_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no prepared\.json"):
        shards.open_prepared(tmp_path / "none")
    with pytest.raises(UserError, match=r"no prepared\.json"):
        shards.open_prepared(tmp_path)
    (tmp_path / "prepared.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        shards.open_prepared(tmp_path)
    (tmp_path / "prepared.json").write_text('{"format_version": 99}')
    with pytest.raises(UserError, match="format_version is 99, expected 2"):
        shards.open_prepared(tmp_path)


def test_missing_and_changed_files_are_named(tmp_path):
    data_dir = write(tmp_path / "data")
    index_path = data_dir / "clips_train.csv"
    lines = index_path.read_text().splitlines()
    index_path.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    with pytest.raises(UserError, match=r"clips_train\.csv: clip_id is not 0 to 6"):
        shards.open_prepared(data_dir)
    name = json.loads((data_dir / "prepared.json").read_text())["splits"]["test"][0]
    (data_dir / name).unlink()
    with pytest.raises(UserError, match=f"{name}: listed"):
        shards.open_prepared(data_dir)


def test_the_index_opens_without_tensorflow(data_dir):
    code = (
        "import sys; from data_pipelines import shards, prepare;"
        f"shards.open_prepared({str(data_dir)!r});"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_absent_files_are_counted_where_there_is_a_report(tmp_path):
    assert shards.num_absent(tmp_path) == 0
    report = tmp_path / shards.REPORT_FILE
    report.write_text('{"missing": 3, "rejected": 4, "clips": 9}')
    assert shards.num_absent(tmp_path) == 7
    report.write_text("{")
    assert shards.num_absent(tmp_path) == 0
