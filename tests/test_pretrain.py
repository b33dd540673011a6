"""The whole loop on clips in memory: methods, resuming, devices, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.arrays import ArrayClips
from xdc_jax import preemption
from xdc_jax.clustering import assignments
from xdc_jax.errors import UserError
from xdc_jax.pretrain import Pretraining, pretrain
from xdc_jax.training.checkpoint import Checkpoints


def metrics_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", ["sdc", "mdc", "cdc", "supervised", "xdc_same"])
def test_every_method_runs_and_is_probed(
    method, tiny_config, tiny_clips, one_device, tmp_path
):
    tiny_config.method = method
    tiny_config.iterations = 1
    row = pretrain(tiny_config, tiny_clips, tmp_path, one_device)
    assert row == json.loads((tmp_path / "results.json").read_text())["rows"][0]
    assert row["video_probe"] > 0.5  # 4 classes
    assert (row["audio_probe"] is None) == (method == "xdc_same")
    lines = metrics_of(tmp_path)
    losses = {key for line in lines for key in line if key.startswith("loss/")}
    expected = {
        "sdc": {"loss/video/video", "loss/audio/audio"},
        "mdc": {
            f"loss/{a}/{b}" for a in ("video", "audio") for b in ("video", "audio")
        },
        "cdc": {"loss/video/joint", "loss/audio/joint"},
        "supervised": {"loss/video/label", "loss/audio/label"},
        "xdc_same": {"loss/video/video_2", "loss/video_2/video"},
    }
    assert losses == expected[method]
    saved = assignments.load(assignments.path(tmp_path, 1))
    for labels in saved.labels.values():
        assert labels.min() == 0
        assert labels.max() < 5


def test_random_encoders_are_measured_without_training(
    tiny_config, tiny_clips, one_device, tmp_path
):
    tiny_config.iterations = 0
    row = pretrain(tiny_config, tiny_clips, tmp_path, one_device)
    assert row["method"] == "random"
    assert row["video_probe"] is not None
    assert not any(
        key.startswith("loss") for line in metrics_of(tmp_path) for key in line
    )


def test_clusters_on_eight_devices_equal_those_on_one(
    tiny_config, tiny_clips, one_device, eight_devices, tmp_path
):
    tiny_config.sync_bn = True
    tiny_config.iterations = 1
    for name, mesh in (("one", one_device), ("eight", eight_devices)):
        pretrain(tiny_config, tiny_clips, tmp_path / name, mesh)
    one, eight = (
        assignments.load(assignments.path(tmp_path / name, 0))
        for name in ("one", "eight")
    )
    for name in ("video", "audio"):
        np.testing.assert_array_equal(one.labels[name], eight.labels[name])


def test_an_iteration_ends_on_a_plateau(tiny_config, tiny_clips, one_device, tmp_path):
    tiny_config.update(iterations=1, epochs=50, patience=2, held_out=0.2)
    tiny_config.optimizer.lr_video = tiny_config.optimizer.lr_audio = 0.0
    pretrain(tiny_config, tiny_clips, tmp_path, one_device)
    epochs = [line["epoch"] for line in metrics_of(tmp_path) if "epoch" in line]
    # Nothing is learned, only BatchNorm's running statistics settle.
    assert max(epochs) < 30


KILL = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
import tests.conftest
import jax
from tests.arrays import ArrayClips
from xdc_jax import parallel, preemption, pretrain as module
from xdc_jax.clustering import assignments
from xdc_jax.training.checkpoint import Checkpoints

phase, workdir = sys.argv[1:]
clips = ArrayClips(num_train=72, num_test=24)
preemption.watch()
notice = phase.startswith("notice_")
phase = phase.removeprefix("notice_")
config = tests.conftest.make_tiny_config()
config.checkpoint_every_steps = 3
number = signal.SIGTERM if notice else signal.SIGKILL
die = lambda: os.kill(os.getpid(), number)

def after(function, calls, kill_before=True):
    def wrapped(*args, **kwargs):
        wrapped.calls += 1
        if wrapped.calls == calls and kill_before:
            die()
        result = function(*args, **kwargs)
        if wrapped.calls == calls and not kill_before:
            die()
        return result
    wrapped.calls = 0
    return wrapped

if phase == "extract":  # in the second extraction: 5 batches before 2 epochs of 5
    clips._batch = after(clips._batch, 17)
elif phase == "cluster":  # in the second clustering, features extracted
    assignments.cluster = after(assignments.cluster, 2)
elif phase == "clustered":  # the clusters are written, nothing is trained on them
    assignments.save = after(assignments.save, 2, kill_before=False)
elif phase == "train":    # in the middle of an epoch, after a checkpoint within it
    original_init = module.Pretraining.__init__
    def init(self, *args):
        original_init(self, *args)
        self.train_step = after(self.train_step, 11)
    module.Pretraining.__init__ = init
elif phase == "held_out":  # between the last step of an epoch and its checkpoint
    module.Pretraining._held_out_loss = after(module.Pretraining._held_out_loss, 2)
elif phase == "checkpoint":  # while one is being written in the background
    Checkpoints.save = after(Checkpoints.save, 4, kill_before=False)
mesh = parallel.make_mesh(jax.devices()[:1])
try:
    module.pretrain(config, clips, workdir, mesh)
except preemption.PreemptedError:
    sys.exit(preemption.EXIT_STATUS)
"""


def start(phase, workdir, cache):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, "-c", KILL, phase, str(workdir)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a run that nothing interrupted, and the compilation cache."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = start("none", folder / "run", folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder / "run", folder / "cache"


@pytest.mark.parametrize(
    "phase",
    [
        "extract",
        "cluster",
        "clustered",
        "train",
        "checkpoint",
        "notice_extract",
        "notice_train",
        "notice_held_out",
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(phase, undisturbed, tmp_path):
    whole, cache = undisturbed
    killed = start(phase, tmp_path, cache)
    if phase.startswith("notice_"):
        assert killed.returncode == preemption.EXIT_STATUS, killed.stderr
    else:
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    if phase == "notice_train":  # step 11 was done after the notice, and saved
        assert Checkpoints(tmp_path).latest_step() == 11
    if phase == "notice_held_out":  # of the second epoch, which has four steps
        assert Checkpoints(tmp_path).latest_step() == 8
    assert not (tmp_path / "results.json").exists()
    resumed = start("none", tmp_path, cache)
    assert resumed.returncode == 0, resumed.stderr

    metrics = (whole / "metrics.jsonl").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    for iteration in range(3):
        a, b = (
            assignments.load(assignments.path(folder, iteration))
            for folder in (whole, tmp_path)
        )
        for name in a.labels:
            np.testing.assert_array_equal(a.labels[name], b.labels[name])
    a, b = (final_state(folder) for folder in (whole, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def final_state(workdir):
    folder = workdir / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute() / str(step) / "state")


def test_a_finished_run_started_again_says_the_same(undisturbed):
    whole, cache = undisturbed
    before = (whole / "metrics.jsonl").read_bytes()
    row = json.loads((whole / "results.json").read_text())["rows"][0]
    again = start("none", whole, cache)
    assert again.returncode == 0, again.stderr
    assert (whole / "metrics.jsonl").read_bytes() == before
    again_row = json.loads((whole / "results.json").read_text())["rows"][0]
    assert {**again_row, "seconds": 0} == {**row, "seconds": 0}


def build(config, clips, workdir, mesh):
    return Pretraining(config, clips, workdir, mesh)


def test_workdir_of_another_config_is_refused(
    tiny_config, tiny_clips, one_device, tmp_path
):
    build(tiny_config, tiny_clips, tmp_path, one_device).loop.close()
    tiny_config.optimizer.momentum = 0.5
    with pytest.raises(UserError, match=r"optimizer\.momentum: 0\.9 -> 0\.5"):
        build(tiny_config, tiny_clips, tmp_path, one_device)
    tiny_config.optimizer.momentum = 0.9
    with pytest.raises(UserError, match="other data"):
        build(tiny_config, ArrayClips(80, 8), tmp_path, one_device)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: not a config"):
        build(tiny_config, tiny_clips, tmp_path, one_device)


def test_more_clusters_than_clips(tiny_config, tiny_clips, one_device, tmp_path):
    tiny_config.clustering.k_audio = 73
    with pytest.raises(UserError, match="k = 73 audio clusters, but only 72 clips"):
        pretrain(tiny_config, tiny_clips, tmp_path, one_device)


def test_batch_that_devices_cannot_share(
    tiny_config, tiny_clips, eight_devices, tmp_path
):
    tiny_config.batch_size = 12
    with pytest.raises(UserError, match=r"batch_size is 12.*multiple of 8"):
        build(tiny_config, tiny_clips, tmp_path, eight_devices)
    assert not list(tmp_path.iterdir())


def test_batch_larger_than_the_data(tiny_config, tiny_clips, one_device, tmp_path):
    tiny_config.batch_size = 128
    with pytest.raises(UserError, match="batch_size is 128, more than the clips"):
        build(tiny_config, tiny_clips, tmp_path, one_device)


def test_nan_stops_the_run_and_keeps_the_checkpoint_before(
    tiny_config, tiny_clips, one_device, tmp_path
):
    run = build(tiny_config, tiny_clips, tmp_path, one_device)
    steps_done = []
    original = run.train_step

    def train_step(state, batch, labels, rates):
        steps_done.append(1)
        if len(steps_done) > run.steps_per_epoch + 1:
            batch = {**batch, "audio": batch["audio"] * np.nan}
        return original(state, batch, labels, rates)

    run.train_step = train_step
    with pytest.raises(UserError, match="loss/audio/video is nan at step 6"):
        run.run()
    assert Checkpoints(tmp_path).latest_step() == 4
    # Nothing is lost: a new start goes on from the last good checkpoint.
    row = build(tiny_config, tiny_clips, tmp_path, one_device).run()
    assert row["video_probe"] is not None


@pytest.mark.parametrize("damage", ["cut", "no_state", "no_position", "garbage"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    undisturbed, tmp_path, damage
):
    whole, cache = undisturbed
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "results.json").unlink()
    newest = workdir / "checkpoints" / "16"
    if damage == "cut":
        files = [f for f in (newest / "state" / "d").iterdir() if f.is_file()]
        for file in [*files, *(newest / "state").rglob("d/*")]:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "garbage":
        (newest / "state" / "_METADATA").write_bytes(b"\0" * 100)
    else:
        shutil.rmtree(newest / damage.removeprefix("no_"))
    resumed = start("none", workdir, cache)
    assert resumed.returncode == 0, resumed.stderr
    assert "checkpoint 16 cannot be read" in resumed.stderr
    assert (workdir / "damaged_checkpoints" / "16").is_dir()
    a, b = (final_state(folder) for folder in (whole, workdir))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (workdir / "metrics.jsonl").read_bytes() == (
        whole / "metrics.jsonl"
    ).read_bytes()


def test_checkpoints_of_which_none_can_be_read_stay(undisturbed, tmp_path):
    whole, cache = undisturbed
    shutil.copytree(whole, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    steps = sorted(path.name for path in folder.iterdir())
    for step in steps:
        shutil.rmtree(folder / step / "state")
    failed = start("none", tmp_path / "run", cache)
    assert failed.returncode != 0
    assert "none of 2 checkpoints can be read" in failed.stderr
    assert sorted(path.name for path in folder.iterdir()) == steps


def test_supervised_without_labels(tiny_config, tiny_clips, one_device, tmp_path):
    tiny_config.method = "supervised"
    tiny_clips.labels("train")[:] = -1
    with pytest.raises(UserError, match="no clip of split train has a label"):
        build(tiny_config, tiny_clips, tmp_path, one_device)
