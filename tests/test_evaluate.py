"""`xdc evaluate`: from a feature data set to results.json, tables and files."""

import csv
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from data_pipelines import features
from tests.evaluation.rows import make_rows
from tests.evaluation.test_gtad import TEST, VAL, annotate
from tests.feature_sets import make_set
from xdc_jax import evaluate
from xdc_jax.errors import UserError
from xdc_jax.evaluation import protocols
from xdc_jax.evaluation.few_labels import few_labels

NAMES = ("PlayingGuitar", "PlayingViolin", "IceDancing", "JumpingJack")
PRETRAINING = {"name": "xdc", "seed": 7, "k_video": 64, "k_audio": 128}
MEASURES = {
    "train_clips", "test_clips", "svm", "svm_clip", "svm_c", "recall_at_1",
    "recall_at_5", "recall_at_10", "recall_at_20", "nmi", "ari", "purity",
}  # fmt: skip


def make_columns(partitions=("train/test", "test/train", "-/-")):
    rows = make_rows(1)
    number = [int(name[1:]) for name in rows.video_id]
    return {
        "video_id": rows.video_id.astype(object),
        "start_s": np.zeros(len(rows), np.float32),
        "end_s": np.ones(len(rows), np.float32),
        "label": rows.label,
        "fold": np.full(len(rows), -1),
        "partitions": np.array([partitions[i // 4 % 3] for i in number], object),
        "video_feature": rows.features,
    }


def run(*args):
    command = [sys.executable, "-m", "xdc_jax", "evaluate", *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_all_of_it(tmp_path):
    folder = tmp_path / "of_xdc"
    how = {"num_frames": 8, "crop_size": 112, "clips_per_record": 10, "crops": 1}
    how |= {"clip_s": 2.0, "feature_map": True}
    about = {**how, "data": "ucf101", "pretraining": {"video": PRETRAINING}}
    features.claim(folder, {"views": {"stride_s": None}}, about)
    make_set(folder, {"all": make_columns()}, NAMES)
    done = run(f"--features={folder}", f"--out={tmp_path / 'out'}", "--clusters=6")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    contract = {
        **how,
        "verb": "evaluate",
        "data": "ucf101",
        "modality": "video",
        "pretraining": "xdc",
        "k_video": 64,
        "k_audio": 128,
        "pretraining_seed": 7,
        "seed": 0,
        "label_fraction": 1.0,
    }
    assert [row["part"] for row in rows] == ["split 1", "split 2"]
    for row in rows:
        assert row.keys() == {*contract, "part", *MEASURES}
        assert {key: row[key] for key in contract} == contract
    (line,) = [line for line in done.stdout.splitlines() if "ucf101" in line]
    svm = [row["svm"] for row in rows]
    assert f"| 2     | {np.mean(svm):.3f} ± {np.std(svm, ddof=1):.3f} |" in line
    assert "60 labelled videos of split all, 6 clusters" in done.stdout
    with (tmp_path / "out" / "clusters.csv").open() as file:
        sizes = [int(row["size"]) for row in csv.DictReader(file)]
    assert (len(sizes), sum(sizes)) == (6, 60)
    assert (tmp_path / "out" / "cluster_videos.csv").exists()


def test_features_of_another_program_have_no_pretraining(tmp_path):
    folder = tmp_path / "theirs"
    make_set(folder, {"all": make_columns()}, NAMES)
    done = run(f"--features={folder}", "--parts=2", "--label_fraction=0.2", "--seed=3")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((folder / "results.json").read_text())["rows"]
    assert row["data"] == "theirs"
    assert row["part"] == "split 2"
    for key in ("pretraining", "k_video", "pretraining_seed", "clips_per_record"):
        assert row[key] is None
    assert (row["seed"], row["label_fraction"]) == (3, 0.2)
    # 20 training videos, 5 of each of 4 classes, of which a fifth: 1 each, 3 clips.
    assert row["train_clips"] == 12
    assert row["test_clips"] == 60
    assert not (folder / "clusters.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clusters=100"], "found 60 labelled videos"),
        (["--parts=3"], "video features: --parts: found '3', expected"),
        (["--gtad_out=x"], "give both --gtad_out and --gtad_annotations"),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    make_set(tmp_path / "f", {"all": make_columns()}, NAMES)
    done = run(f"--features={tmp_path / 'f'}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "f" / "results.json").exists()


def test_windows_for_gtad(tmp_path):
    features.claim(tmp_path / "f", {"views": {"stride_s": 0.2}}, {})
    start = np.float32(np.arange(20) * 0.2)
    splits = {}
    for split, name in (("val", VAL), ("test", TEST)):
        splits[split] = {
            "video_id": np.array([f"{name}.mp4"] * 20, object),
            "start_s": start,
            "end_s": start + np.float32(0.5),
            "label": np.full(20, -1),
            "fold": np.full(20, -1),
            "partitions": np.array([""] * 20, object),
            "video_feature": np.float32(np.random.default_rng(0).normal(size=(20, 5))),
        }
    make_set(tmp_path / "f", splits, [])
    lists, out = annotate(tmp_path / "a"), tmp_path / "out"
    done = run(
        f"--features={tmp_path / 'f'}",
        f"--gtad_out={out}",
        f"--gtad_annotations={lists}",
    )
    assert done.returncode == 0, done.stderr
    assert "1 videos of val, 1 of test" in done.stdout
    with h5py.File(out / "rgb_test.h5", "r") as file:
        rows = file[TEST][()]
    assert rows.shape == (round(4.3 * 30), 5)
    np.testing.assert_array_equal(rows[0], splits["test"]["video_feature"][0])
    np.testing.assert_array_equal(rows[-1], splits["test"]["video_feature"][-1])
    assert not (tmp_path / "f" / "results.json").exists()


def test_few_labels_are_of_training_alone(monkeypatch):
    """SVM and gallery get the chosen videos, test rows stay; the seed matters."""
    splits = {"train": make_rows(1), "test": make_rows(2, prefix="t")}
    seen = []
    svm, retrieval = protocols.linear_svm, protocols.retrieval

    def spy(name, function):
        def called(train, test, *args):
            seen.append((name, set(train.video_id), len(train), len(test)))
            return function(train, test, *args)

        return called

    monkeypatch.setattr(protocols, "linear_svm", spy("svm", svm))
    monkeypatch.setattr(protocols, "retrieval", spy("retrieval", retrieval))
    evaluate.evaluate(splits, "d", "video", label_fraction=0.4, seed=5)
    train = splits["train"]
    chosen = few_labels(train.label, train.video_id, 0.4, 5)
    videos = set(train.video_id[chosen])
    assert len(videos) == 4 * 6
    assert seen == [(name, videos, 72, 180) for name in ("svm", "retrieval")]
    seen.clear()
    evaluate.evaluate(splits, "d", "video", label_fraction=0.4, seed=6)
    assert seen[0][1] != videos
    seen.clear()
    evaluate.evaluate(splits, "d", "video")
    assert seen[0][2:] == (180, 180)
    with pytest.raises(UserError, match="label fraction: found 0"):
        evaluate.evaluate(splits, "d", "video", label_fraction=0.0)
