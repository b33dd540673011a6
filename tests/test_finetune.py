"""Finetuning on clips in memory: parts, PyTorch, devices, resuming, bad input."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.arrays import ArrayClips
from tests.conftest import make_tiny_config
from xdc_jax import finetune, finetune_config, parallel, preemption, pretrain
from xdc_jax.errors import UserError
from xdc_jax.training import state
from xdc_jax.weights import encoder_dir, layout, starting
from xdc_jax.weights.encoder_dir import SavedEncoder


def make_config(modality="video", **changes):
    config = finetune_config.finetune_config()
    for model in (config.video_model, config.audio_model):
        model.width, model.stage_sizes = 4, (1, 1)
    config.update(modality=modality, dtype="float32", batch_size=16, epochs=3)
    config.update(clips_per_record=1, test_clips=1, log_every_steps=1)
    config.update(changes)
    config.optimizer.update(lr_head=1.0, lr_body=0.5, warmup_epochs=0.0)
    config.optimizer.update(schedule="cosine", weight_decay=1e-3)
    return config


def random_weights(config, seed=5):
    """The encoder of a config with random weights, as if it had been saved."""
    config = ConfigDict({**config.to_dict(), "seed": seed})
    modality = config.modality
    _, encoder = state.create_encoder(
        config, config[f"{modality}_model"], modality, modality
    )
    params, stats = jax.device_get((encoder.params, encoder.batch_stats))
    return SavedEncoder(
        starting.model_spec(config),
        "kinetics",
        f"random {seed}",
        layout.Variables(params, stats),
        pretraining={"name": "xdc", "seed": seed, "k_video": 8, "k_audio": 9},
    )


@pytest.fixture
def clips():
    return ArrayClips(num_train=72, num_test=24)


class Partitioned(ArrayClips):
    """Clips in one split, divided by folds or by official partitions."""

    def __init__(self, fold=None, partitions=None):
        super().__init__(72, 24)
        self.splits = ("train",)
        self.fold, self.partitions = fold, partitions

    def index(self, split):
        found = super().index(split)
        if self.fold is not None:
            found.fold = self.fold
        if self.partitions is not None:
            found.partitions = self.partitions
        return found


def lines_of(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("train", ["full", "fc_only"])
def test_it_learns_and_says_what_it_did(modality, train, clips, one_device, tmp_path):
    config = make_config(modality, train=train, epochs=12)
    if train == "fc_only":  # features of random networks are small
        config.optimizer.lr_head = 30.0
    weights = random_weights(config)
    (row,) = finetune.finetune(config, clips, weights, tmp_path, mesh=one_device)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert written == [row]
    expected = {
        "verb": "finetune",
        "data": "arrays",
        "part": "test",
        "modality": modality,
        "train": train,
        "pretraining": "xdc",
        "pretraining_seed": 5,
        "k_video": 8,
        "k_audio": 9,
        "seed": 0,
        "label_fraction": 1.0,
        "num_frames": 8,
        "crop_size": 112,
        "test_clips": 1,
        "test_crops": 1,
        "train_videos": 72,
        "test_videos": 24,
    }
    assert expected.items() <= row.items()
    assert row["video_top1"] > 0.4  # 4 classes
    assert row["video_top1"] == row["clip_top1"]
    assert row["video_top5"] == 1


@pytest.mark.parametrize("train", ["full", "fc_only"])
def test_fc_only_leaves_the_encoder_as_it_was(train, clips, one_device, tmp_path):
    config = make_config(train=train)
    weights = random_weights(config)
    finetune.finetune(config, clips, weights, tmp_path, mesh=one_device)
    found = encoder_dir.load(tmp_path / "test" / "encoder")
    same = jax.tree.map(
        lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()),
        (weights.variables.params, weights.variables.batch_stats),
        (found.variables.params, found.variables.batch_stats),
    )
    assert set(jax.tree.leaves(same)) == {train == "fc_only"}
    assert found.variables.head["kernel"].shape == (8, 4)
    assert found.variables.head["kernel"].std() > 0.015  # before: N(0, 0.01)
    assert found.pretraining["name"] == "xdc, finetuned on arrays, test"


def test_scores_are_the_means_of_softmax_over_clips_and_crops(
    clips, one_device, tmp_path
):
    config = make_config(epochs=1, test_clips=2, test_crops=3)
    rng = np.random.default_rng(0)
    shown = []

    def view_batches(split, views, *, batch_size, clip_ids, num_batches=None):
        # Of each record two clips, each with three crops that look different.
        video = clips._arrays[split]["video"][clip_ids]
        views = np.repeat(video, views.clips * views.crops, axis=0)
        noise = rng.integers(0, 100, views.shape, dtype=np.uint8)
        shown.append(views // 2 + noise)
        ids = np.repeat(clip_ids, len(views) // len(clip_ids))
        for start in range(0, len(views), batch_size):
            rows = shown[0][start : start + batch_size]
            missing = batch_size - len(rows)
            yield {
                "video": np.pad(rows, [(0, missing)] + [(0, 0)] * 4),
                "clip_id": np.pad(ids[start : start + batch_size], (0, missing)),
                "mask": np.arange(batch_size) < len(rows),
            }

    clips.view_batches = view_batches
    finetune.finetune(config, clips, None, tmp_path, mesh=one_device)
    saved = encoder_dir.load(tmp_path / "test" / "encoder")
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]

    from xdc_jax.encoder import Encoder

    features = np.asarray(Encoder(saved)(shown[0]), np.float64)
    logits = features @ saved.variables.head["kernel"] + saved.variables.head["bias"]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = clips.labels("test")
    right_clips, right_videos = [], []
    for i, label in enumerate(labels):
        of_clips = [scores[6 * i + 3 * c : 6 * i + 3 * c + 3].mean(0) for c in (0, 1)]
        right_clips += [int(np.argmax(s)) == label for s in of_clips]
        right_videos.append(int(np.argmax(of_clips[0] + of_clips[1])) == label)
    assert row["clip_top1"] == pytest.approx(np.mean(right_clips))
    assert row["video_top1"] == pytest.approx(np.mean(right_videos))


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_ten_steps_equal_pytorch(modality, clips, one_device, tmp_path):
    torch = pytest.importorskip("torch")
    from tests.models.torch_encoders import to_torch
    from tests.weights.torch_release import AudioResNet, VideoResNet
    from xdc_jax.training import steps

    config = make_config(modality)
    weights = random_weights(config)
    config.optimizer.update(schedule="step", step_epochs=(1,), step_factor=0.5)
    part, *_ = finetune.partition.parts({s: clips.index(s) for s in clips.splits})
    job = finetune.Finetuning(config, clips, part, weights, tmp_path, one_device)
    head = jax.device_get(job.loop.state.encoders[modality].heads["label"])
    job.run()
    losses = [r[f"loss/{modality}/label"] for r in lines_of(tmp_path) if "step" in r]

    if modality == "video":
        body = VideoResNet(official=True, width=4, stage_sizes=(1, 1))
    else:
        body = AudioResNet(vmz=False, width=4, stage_sizes=(1, 1))
    named = layout.to_torch(weights.variables, weights.spec)
    body.load_state_dict({k: torch.tensor(v) for k, v in named.items()}, strict=False)
    fc = torch.nn.Linear(8, 4)
    fc.weight.data = torch.tensor(head["kernel"].T.copy())
    fc.bias.data = torch.tensor(head["bias"])
    groups = [
        {
            "params": [p for p in module.parameters() if (p.ndim > 1) == is_weight],
            "weight_decay": 1e-3 if is_weight else 0.0,
            "peak": peak * 16 / 256,
        }
        for module, peak in ((body, 0.5), (fc, 1.0))
        for is_weight in (True, False)
    ]
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    body.train()
    expected = []
    for epoch in range(3):
        batches = clips.train_batches(
            "train", batch_size=16, epoch=epoch, draws=np.ones(72, np.int32)
        )
        for batch in batches:
            inputs = batch[modality]
            if modality == "video":
                inputs = (inputs / 255 - steps.RGB_MEAN) / steps.RGB_STD
            for group in sgd.param_groups:
                group["lr"] = group["peak"] * (1.0 if epoch < 1 else 0.5)
            logits = fc(body(to_torch(inputs.astype(np.float32))))
            truth = torch.tensor(batch["label"].astype(np.int64))
            loss = torch.nn.functional.cross_entropy(logits, truth)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            expected.append(float(loss.detach()))
    assert len(expected) == 12
    found = dict(zip([r["step"] for r in lines_of(tmp_path)], losses, strict=True))
    np.testing.assert_allclose(
        [found[step] for step in range(1, 13)], expected, atol=1e-3
    )
    assert expected[0] - expected[-1] > 0.05


def test_eight_devices_train_and_test_as_one(
    clips, one_device, eight_devices, tmp_path
):
    config = make_config(sync_bn=True)
    rows, losses = [], []
    for name, mesh in (("one", one_device), ("eight", eight_devices)):
        rows += finetune.finetune(config, clips, None, tmp_path / name, mesh=mesh)
        losses.append(
            [r["loss/video/label"] for r in lines_of(tmp_path / name / "test")]
        )
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert {**rows[0], "seconds": 0} == {**rows[1], "seconds": 0}


def test_folds_are_runs_of_their_own_and_are_kept(one_device, tmp_path):
    clips = Partitioned(fold=np.arange(72) % 3 + 1)
    config = make_config(epochs=1)
    first = finetune.finetune(config, clips, None, tmp_path, "2", one_device)
    assert [row["part"] for row in first] == ["fold 2"]
    before = (tmp_path / "fold_2" / "metrics.jsonl").stat().st_mtime_ns
    finetune.finetune(config, clips, None, tmp_path, "1", one_device)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["part"] for row in written] == ["fold 1", "fold 2"]
    other = make_config(epochs=2)
    with pytest.raises(UserError, match=r"fold_1.*belongs to another config"):
        finetune.finetune(other, clips, None, tmp_path, "3", one_device)
    rows = finetune.finetune(config, clips, None, tmp_path, mesh=one_device)
    assert [row["part"] for row in rows] == ["fold 1", "fold 2", "fold 3"]
    assert rows[1] == first[0]
    assert (tmp_path / "fold_2" / "metrics.jsonl").stat().st_mtime_ns == before
    assert [(r["train_videos"], r["test_videos"]) for r in rows] == [(48, 24)] * 3
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == rows


def test_official_splits_train_and_test_on_what_the_lists_say(one_device, tmp_path):
    marks = np.array(["train/test", "test/train", "train/-"] * 24)
    clips = Partitioned(partitions=marks)
    seen = {"train": [], "test": []}
    train_batches, view_batches = clips.train_batches, clips.view_batches

    def note(kind, batches):
        for batch in batches:
            seen[kind] += batch["clip_id"][batch["mask"]].tolist()
            yield batch

    clips.train_batches = lambda *a, **k: note("train", train_batches(*a, **k))
    clips.view_batches = lambda *a, **k: note("test", view_batches(*a, **k))
    config = make_config(epochs=1, batch_size=8)
    finetune.finetune(config, clips, None, tmp_path, "1", one_device)
    assert {i % 3 for i in seen["train"]} == {0, 2}
    assert len(seen["train"]) == 48
    assert seen["test"] == [*range(1, 72, 3)]


def test_few_labels_train_and_every_test_clip_counts(clips, one_device, tmp_path):
    config = make_config(epochs=1, label_fraction=0.25, clips_per_record=4)
    (row,) = finetune.finetune(config, clips, None, tmp_path, mesh=one_device)
    assert 16 <= row["train_videos"] <= 20
    assert row["test_videos"] == 24
    assert row["label_fraction"] == 0.25


def test_a_supervised_run_of_pretrain_is_a_baseline(clips, one_device, tmp_path):
    pretraining = make_tiny_config()
    pretraining.update(method="supervised", iterations=1, epochs=1, name="labels")
    pretrain.pretrain(pretraining, clips, tmp_path / "run", one_device)
    config = make_config(epochs=1)
    config.video_model = pretraining.video_model
    weights = encoder_dir.of_run(tmp_path / "run", "video")
    (row,) = finetune.finetune(config, clips, weights, tmp_path / "f", mesh=one_device)
    assert row["pretraining"] == "labels"
    (row,) = finetune.finetune(config, clips, None, tmp_path / "s", mesh=one_device)
    assert (row["pretraining"], row["pretraining_seed"]) == ("scratch", None)


KILL = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
import tests.conftest
import jax
from tests.arrays import ArrayClips
from tests.test_finetune import make_config
from xdc_jax import finetune, parallel, preemption

calls, workdir, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
preemption.watch()
config = make_config()
config.checkpoint_every_steps = 3
original = finetune.Finetuning.__init__

def init(self, *args):
    original(self, *args)
    step = self.train_step
    def train_step(*args):
        train_step.calls += 1
        if train_step.calls == calls:
            os.kill(os.getpid(), getattr(signal, name))
        return step(*args)
    train_step.calls = 0
    self.train_step = train_step

finetune.Finetuning.__init__ = init
clips = ArrayClips(72, 24)
mesh = parallel.make_mesh(jax.devices()[:1])
try:
    finetune.finetune(config, clips, None, workdir, mesh=mesh)
except preemption.PreemptedError:
    sys.exit(preemption.EXIT_STATUS)
"""


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    def start(calls, workdir, name="SIGKILL"):
        command = [sys.executable, "-c", KILL, str(calls), str(workdir), name]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    whole = start(-1, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    noticed = start(2, tmp_path / "killed", "SIGTERM")
    assert noticed.returncode == preemption.EXIT_STATUS, noticed.stderr
    killed = start(4, tmp_path / "killed")  # steps 1 and 2 are saved: this is no. 6
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "results.json").exists()
    checkpoints = tmp_path / "killed" / "test" / "checkpoints"
    # Steps 3 and 4, the end of an epoch, were saved; the last one perhaps not whole.
    saved = {path.name for path in checkpoints.iterdir() if path.name.isdigit()}
    assert {"3"} <= saved <= {"2", "3", "4"}
    resumed = start(-1, tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    folders = [tmp_path / name / "test" for name in ("whole", "killed")]
    a, b = ((folder / "metrics.jsonl").read_bytes() for folder in folders)
    assert a == b
    a, b = (encoder_dir.load(folder / "encoder").variables for folder in folders)
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.head), (b.params, b.head))


def test_weights_that_do_not_fit(clips, one_device, tmp_path):
    config = make_config()
    weights = random_weights(config)
    config.video_model.width = 8
    with pytest.raises(
        UserError, match=r"found r2plus1d_18 of width 4 .* expected .*8"
    ):
        finetune.finetune(config, clips, weights, tmp_path, mesh=one_device)
    config.video_model.width = 4
    other = dataclasses.replace(weights, normalization="clip")
    with pytest.raises(UserError, match="trained with 'clip' normalisation"):
        finetune.finetune(config, clips, other, tmp_path, mesh=one_device)
    audio = random_weights(make_config("audio"))
    with pytest.raises(UserError, match="found audio_resnet18 .* expected r2plus1d_18"):
        finetune.finetune(config, clips, audio, tmp_path, mesh=one_device)


def test_clips_unlike_those_of_the_pretraining_are_warned_of(caplog):
    config = make_config("audio")
    weights = random_weights(config)
    clip = {**config.clip.to_dict(), "mel_frames": 57, "fps": 7.0}
    starting.check(config, dataclasses.replace(weights, clip=clip))
    assert "trained with clip.mel_frames = 57, and are given 100" in caplog.text
    assert "fps" not in caplog.text  # of pictures


def test_a_workdir_of_other_weights_is_refused(clips, one_device, tmp_path):
    config = make_config(epochs=1)
    finetune.finetune(config, clips, None, tmp_path, mesh=one_device)
    with pytest.raises(UserError, match=r"run on other weights \(before: scratch"):
        finetune.finetune(
            config, clips, random_weights(config), tmp_path, mesh=one_device
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": -1}, "test, training: found no record with a label and video"),
        ({"label": 0}, "test: found one class in training, class_0"),
        ({"unseen": 3}, "1 classes have test records .* such as class_3"),
        ({"highest": 9}, r"found the label 9, expected 0 to 3"),
    ],
)
def test_labels_that_cannot_be_learned(changes, message, clips, one_device, tmp_path):
    labels = clips.labels("train")
    if "label" in changes:
        labels[:] = changes["label"]
        clips.labels("test")[:] = 0
    elif "unseen" in changes:
        labels[labels == changes["unseen"]] = 0
    else:
        labels[0] = changes["highest"]
    with pytest.raises(UserError, match=message):
        finetune.finetune(make_config(), clips, None, tmp_path, mesh=one_device)
    assert not list(tmp_path.iterdir())


def test_a_class_without_any_record_is_only_warned_of(
    clips, one_device, tmp_path, caplog
):
    clips.class_names = (*clips.class_names, "never_seen")
    finetune.finetune(make_config(epochs=1), clips, None, tmp_path, mesh=one_device)
    assert "1 of 5 classes have no training record, such as never_seen" in caplog.text


def test_a_fold_without_usable_records(one_device, tmp_path):
    clips = Partitioned(fold=np.array([1] * 36 + [2] * 36))
    clips.labels("train")[36:] = -1
    with pytest.raises(UserError, match="fold 1, training: found no record"):
        finetune.finetune(make_config(), clips, None, tmp_path, mesh=one_device)


def test_batches_larger_than_the_labelled_clips(clips, one_device, tmp_path):
    config = make_config(label_fraction=0.05)
    with pytest.raises(UserError, match=r"batch_size is 16.*raise config\.clips_per"):
        finetune.finetune(config, clips, None, tmp_path, mesh=one_device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "text"}, "config.modality is 'text'"),
        ({"train": "head"}, "config.train is 'head'; expected one of"),
        ({"label_fraction": 0.0}, "config.label_fraction is 0.0"),
        ({"test_crops": 2}, "config.test_crops is 2"),
        ({"epochs": 0}, "config.epochs is 0; expected at least 1"),
        ({"optimizer": {"warmup_epochs": 3.0}}, "warmup_epochs is 3.0; expected less"),
        (
            {"optimizer": {"warmup_epochs": 2.0, "schedule": "step"}, "epochs": 9}
            | {"optimizer.step_epochs": (1, 4)},
            r"no more than the first of config.optimizer.step_epochs \(\(1, 4\)\)",
        ),
    ],
)
def test_config_values_that_cannot_work(changes, message, clips, one_device, tmp_path):
    config = make_config()
    config.update_from_flattened_dict(
        {key: value for key, value in changes.items() if "." in key}
    )
    config.update({key: value for key, value in changes.items() if "." not in key})
    with pytest.raises(UserError, match=message):
        finetune.finetune(config, clips, None, tmp_path, mesh=one_device)


def test_nan_keeps_the_checkpoint_before(clips, one_device, tmp_path):
    config = make_config()
    part, *_ = finetune.partition.parts({s: clips.index(s) for s in clips.splits})
    job = finetune.Finetuning(config, clips, part, None, tmp_path, one_device)
    step, calls = job.train_step, []

    def train_step(state, inputs, labels, rates):
        calls.append(1)
        if len(calls) > job.steps_per_epoch + 1:
            rates = jax.tree.map(lambda rate: rate * jnp.nan, rates)
        return step(state, inputs, labels, rates)

    job.train_step = train_step
    with pytest.raises(UserError, match=r"loss/video/label is nan at step"):
        job.run()
    again = finetune.Finetuning(config, clips, part, None, tmp_path, one_device)
    assert again.loop.step == job.steps_per_epoch
    assert np.isfinite(again.run()["video_top1"])


def test_mesh_that_cannot_share_the_batch(clips, eight_devices, tmp_path):
    config = make_config(batch_size=12)
    with pytest.raises(UserError, match=r"batch_size is 12.*multiple of 8"):
        finetune.finetune(config, clips, None, tmp_path, mesh=eight_devices)
    assert parallel.make_mesh().size == 8
