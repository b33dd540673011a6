"""From media files to a results table with the commands a user gives."""

import json
import os
import subprocess
import sys

import pytest


def xdc(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "xdc_jax", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "digits_tones"
    done = xdc(
        "prepare",
        "--dataset=digits_tones",
        f"--out={out}",
        "--num_train=60",
        "--num_test=20",
        "--num_workers=1",
    )
    assert done.returncode == 0, done.stderr
    return out


def test_prepare_then_pretrain(prepared, tmp_path):
    settings = "iterations=1,epochs=1,k=6,batch_size=16,clustering.whiten_dim=0"
    done = xdc(
        "pretrain",
        f"--config=configs/digits_tones.py:{settings}",
        "--config.seed=3",
        f"--data={prepared}",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["data"] == "digits_tones"
    assert row["seed"] == 3
    assert 0 <= row["video_probe"] <= 1
    assert "iteration 0, epoch 0" in done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "clusters",
        "results.json",
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["config"]["clustering"]["k_video"] == 6

    refused = xdc(
        "pretrain",
        f"--config=configs/digits_tones.py:{settings}",
        f"--data={prepared}",
        f"--workdir={tmp_path}",
    )
    assert refused.returncode == 2
    assert "seed: 3 -> 0" in refused.stderr
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == [row]


def test_more_clusters_than_clips(prepared, tmp_path):
    done = xdc(
        "pretrain",
        "--config=configs/digits_tones.py:k=61",
        f"--data={prepared}",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 2
    assert "k = 61 video clusters, but only 60 clips" in done.stderr
    assert "Traceback" not in done.stderr
