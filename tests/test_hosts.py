"""Jobs of several processes over loopback, on real clips; some of them killed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from xdc_jax import preemption
from xdc_jax.training import checkpoint

CONFIG = """
from configs import av_digits

def get_config(arg=None):
    config = av_digits.get_config(arg)
    config.update(iterations=2, epochs=1, batch_size=16, sync_bn=True)
    config.update(checkpoint_every_steps=3, log_every_steps=1, held_out=0.1)
    config.optimizer.update(lr_video=0.1, lr_audio=0.1)
    config.clustering.update(k_video=8, k_audio=8, whiten_dim=4)
    for model in (config.video_model, config.audio_model):
        model.update(width=4, stage_sizes=(1,))
    return config
"""
FINETUNE = """
from configs import finetune_av_digits

def get_config(arg=None):
    config = finetune_av_digits.get_config(arg)
    config.update(epochs=1, batch_size=16, test_clips=2, clips_per_record=1)
    config.video_model.update(width=4, stage_sizes=(1,))
    return config
"""
# Seconds that a process may take; far more than it does.
PATIENCE_S = 900


@pytest.fixture(scope="module")
def files(tmp_path_factory, real_data):
    """A folder with prepared clips, config files, and a compilation cache."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "config.py").write_text(CONFIG)
    (folder / "finetune.py").write_text(FINETUNE)
    subprocess.run(
        [
            *(sys.executable, "-m", "xdc_jax", "prepare", "--dataset=av_digits"),
            *(f"--data_dir={real_data / 'digits'}", f"--out={folder / 'data'}"),
            *("--num_train=150", "--num_test=60", "--short_side=32"),
            "--num_workers=2",
        ],
        check=True,
        capture_output=True,
    )
    return folder


def start(files, num_processes, num_devices, arguments, of_last=(), meet=False):
    """Starts the processes of a job with so many devices each.

    Several meet; one does on demand.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} "
        "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(files / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    job = []
    for i in range(num_processes):
        command = [sys.executable, "-m", "xdc_jax", *arguments]
        if num_processes > 1 or meet:
            command += [f"--coordinator_address={address}", f"--process_id={i}"]
            command += [f"--num_processes={num_processes}"]
        if i == num_processes - 1:
            command += of_last
        job.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return job


def pretraining(files, workdir):
    return [
        "pretrain",
        f"--config={files / 'config.py'}",
        f"--data={files / 'data'}",
        f"--workdir={workdir}",
    ]


def statuses(job):
    """Waits for the processes; returns exit statuses and what they printed."""
    try:
        outputs = [process.communicate(timeout=PATIENCE_S) for process in job]
    finally:
        for process in job:
            process.kill()
    return [process.returncode for process in job], outputs


def run(files, num_processes, num_devices, arguments):
    """Runs a job to its end; returns what its processes printed."""
    found, outputs = statuses(start(files, num_processes, num_devices, arguments))
    assert found == [0] * num_processes, outputs
    return outputs


def clusters(workdir, iteration):
    with np.load(workdir / "clusters" / f"iteration_{iteration}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files if key.startswith("labels")}


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def row(workdir):
    (found,) = json.loads((workdir / "results.json").read_text())["rows"]
    return found


def assert_same_run(workdir, other, tolerance):
    """The clusters, what was logged, and the parameters."""
    for iteration in range(3):
        ours, theirs = clusters(workdir, iteration), clusters(other, iteration)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    ours, theirs = metrics(workdir), metrics(other)
    assert [sorted(line) for line in ours] == [sorted(line) for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        losses = [key for key in expected if "loss" in key]
        for key in ("step", *losses):
            np.testing.assert_allclose(line[key], expected[key], atol=tolerance)
    assert newest(workdir)[0] == newest(other)[0]


def newest(workdir):
    """The step of the newest checkpoint and its state, one long vector."""
    step, state = checkpoint.read_newest(workdir)
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(state)]
    return step, np.concatenate(leaves)


@pytest.fixture(scope="module")
def two(files):
    """The workdir of an undisturbed run by two processes with two devices each."""
    outputs = run(files, 2, 2, pretraining(files, files / "two"))
    assert "video_probe" in outputs[0][0]  # process 0 prints the result,
    assert "video_probe" not in outputs[1][0]  # and no other does
    return files / "two"


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_do_what_one_does_with_as_many_devices(files, two, num_processes):
    many = two
    if num_processes == 4:
        many = files / "four"
        run(files, 4, 2, pretraining(files, many))
    one = files / f"one_as_{num_processes}"
    run(files, 1, 2 * num_processes, pretraining(files, one))
    assert_same_run(many, one, 1e-4)
    assert row(many)["video_probe"] == row(one)["video_probe"]
    assert len(list((many / "tensorboard").iterdir())) == 1


def test_a_notice_to_one_process_stops_all_and_others_go_on(files, two, tmp_path):
    workdir = tmp_path / "run"
    job = start(files, 2, 2, pretraining(files, workdir))
    wait_for_lines(workdir, 3, job)
    # JAX looks for the signal once a second, and the run may be over by then.
    job[0].send_signal(signal.SIGSTOP)
    job[1].send_signal(signal.SIGTERM)
    time.sleep(2)
    job[0].send_signal(signal.SIGCONT)
    found, outputs = statuses(job)
    assert found == [preemption.EXIT_STATUS] * 2, outputs
    assert "is saved" in outputs[0][1] + outputs[1][1]
    steps = newest(two)[0]
    assert 0 < newest(workdir)[0] < steps
    for processes, devices in ((1, 4), (4, 1)):
        copy = tmp_path / f"on_{processes}"
        subprocess.run(["cp", "-r", workdir, copy], check=True)
        run(files, processes, devices, pretraining(files, copy))
        assert_same_run(copy, two, 1e-4)


def test_a_process_alone_that_jax_watches_sees_a_notice(files, tmp_path):
    """As on one host of Cloud TPU, where JAX takes note of SIGTERM in our place."""
    workdir = tmp_path / "run"
    job = start(files, 1, 2, pretraining(files, workdir), meet=True)
    wait_for_lines(workdir, 1, job)
    job[0].send_signal(signal.SIGTERM)
    found, outputs = statuses(job)
    assert found == [preemption.EXIT_STATUS], outputs
    assert newest(workdir)[0] > 0


def wait_for_lines(workdir, count, job):
    """Waits until so many lines are logged; fails if the job ends before."""
    file = workdir / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        for process in job:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)


# XDC_KILLS=20 python -m pytest tests/test_hosts.py -k killed
@pytest.mark.parametrize("number", range(int(os.environ.get("XDC_KILLS", 2))))
def test_killed_at_a_random_moment_it_ends_with_the_same_bits(
    files, two, tmp_path, number
):
    rng = random.Random(number)
    kind = (signal.SIGKILL, signal.SIGTERM)[number % 2]
    victims = rng.choice([[0], [1], [0, 1]])
    lines = rng.randrange(len(metrics(two)))
    workdir = tmp_path / "run"
    job = start(files, 2, 2, pretraining(files, workdir))
    wait_for_lines(workdir, lines, job)
    time.sleep(rng.uniform(0, 0.5))
    for victim in victims:
        job[victim].send_signal(kind)
    found, outputs = statuses(job)
    if kind == signal.SIGTERM:
        # It may have been too late.
        assert found in ([preemption.EXIT_STATUS] * 2, [0, 0]), outputs
    else:
        assert 0 not in found or found == [0, 0], outputs
        assert -signal.SIGKILL in found or found == [0, 0]
    run(files, 2, 2, pretraining(files, workdir))
    np.testing.assert_array_equal(newest(workdir)[1], newest(two)[1])
    assert metrics(workdir) == metrics(two)


def test_finetuning_and_features_of_two_processes_are_those_of_one(files, tmp_path):
    rows, features = [], []
    for processes, devices in ((2, 1), (1, 2)):
        workdir = tmp_path / f"labels_{processes}"
        run(
            files,
            processes,
            devices,
            [
                *("finetune", f"--config={files / 'finetune.py'}", "--weights=scratch"),
                *(f"--data={files / 'data'}", f"--workdir={workdir}"),
            ],
        )
        rows.append({**row(workdir), "seconds": 0})
        out = tmp_path / f"features_{processes}"
        (encoder,) = workdir.glob("*/encoder")
        run(
            files,
            processes,
            devices,
            [
                *("extract", f"--weights={encoder}", f"--data={files / 'data'}"),
                f"--out={out}",
            ],
        )
        features.append(read_features(out))
    assert rows[0] == rows[1]
    for split in ("train", "test"):
        np.testing.assert_allclose(features[0][split], features[1][split], atol=1e-3)


def read_features(folder):
    from data_pipelines import features

    found = features.read(folder)["video"]
    return {split: np.asarray(found[split].features) for split in found}


def test_what_processes_do_not_agree_on_is_an_error(files, tmp_path):
    (process,) = start(
        files,
        1,
        1,
        [*pretraining(files, tmp_path / "run"), "--num_processes=2"],
    )
    found, ((_, message),) = statuses([process])
    assert found == [2]
    assert "--coordinator_address is missing" in message

    arguments = pretraining(files, tmp_path / "run")
    elsewhere = [f"--workdir={tmp_path / 'elsewhere'}"]
    job = start(files, 2, 2, arguments, of_last=elsewhere)
    job[1].wait(PATIENCE_S)
    job[0].kill()  # it would wait for the other's heartbeat, more than a minute
    found, outputs = statuses(job)
    assert found[1] == 2
    assert "which process 0 wrote; all hosts of a job need" in outputs[1][1]
