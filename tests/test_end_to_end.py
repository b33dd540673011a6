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


FINETUNE = """
from configs import digits_tones
from configs.finetune_grid_words import small
from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config

def get_config(arg=None):
    config = small(digits_tones.get_config(), finetune_config())
    config.update(epochs=1, clips_per_record=2, test_clips=3, test_crops=3)
    return parse_arg(config, arg)
"""


def test_pretrain_finetune_evaluate_and_tables(prepared, tmp_path):
    def done(*args):
        result = xdc(*args)
        assert result.returncode == 0, result.stderr
        return result.stdout

    runs, features = tmp_path / "runs", tmp_path / "features"
    done(
        "pretrain",
        "--config=configs/digits_tones.py:name=tones_xdc,iterations=1,epochs=1,k=6,"
        "batch_size=16,clustering.whiten_dim=0",
        f"--data={prepared}",
        f"--workdir={runs / 'xdc'}",
    )
    config = tmp_path / "finetune_digits.py"
    config.write_text(FINETUNE)
    jobs = {"full": ("video", runs / "xdc"), "fc_only": ("audio", "scratch")}
    for train, (modality, weights) in jobs.items():
        shown = done(
            "finetune",
            f"--config={config}:modality={modality},train={train},label_fraction=0.5",
            f"--data={prepared}",
            f"--weights={weights}",
            f"--workdir={runs / train}",
        )
        assert "video top-1" in shown
    done(
        "extract",
        f"--workdir={runs / 'xdc'}",
        "--modality=audio",
        f"--data={prepared}",
        f"--out={features}",
    )
    done("evaluate", f"--features={features}", f"--out={runs / 'svm'}")
    again = done(  # a finetuned encoder is an encoder
        "extract",
        f"--weights={runs / 'full' / 'test' / 'encoder'}",
        f"--data={prepared}",
        f"--out={tmp_path / 'finetuned'}",
    )
    assert "80 rows" in again

    shown = done("tables", f"--runs={runs}", f"--out={tmp_path / 'tables'}")
    others = shown.split("## Other runs")[1]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in others.splitlines()
        if line.startswith("| digits_tones")
    ]
    found = {tuple(line[1:6]): line[-1] for line in lines}
    assert found.keys() == {
        ("video", "tones_xdc", "6/6", "full", "50%"),
        ("audio", "scratch", "", "fc_only", "50%"),
        ("audio", "tones_xdc", "6/6", "svm", "100%"),
    }
    (row,) = json.loads((runs / "svm" / "results.json").read_text())["rows"]
    of_svm = found["audio", "tones_xdc", "6/6", "svm", "100%"]
    assert of_svm.startswith(f"{100 * row['svm']:.1f}")
    assert (tmp_path / "tables" / "tables.csv").exists()


def test_finetuning_errors_name_what_is_wrong(prepared, tmp_path):
    config = tmp_path / "finetune_digits.py"
    config.write_text(FINETUNE)
    for weights, parts, message in (
        ("nowhere", "all", "nowhere: found neither encoder.json nor config.json"),
        ("scratch", "2", "--parts: found '2', expected `all`"),
    ):
        done = xdc(
            "finetune",
            f"--config={config}",
            f"--data={prepared}",
            f"--weights={weights}",
            f"--parts={parts}",
            f"--workdir={tmp_path / 'out'}",
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
