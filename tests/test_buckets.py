"""Runs, encoders and data in buckets: on a stand-in of Cloud Storage, over sockets."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from data_pipelines import shards
from data_pipelines.clips import ClipData
from tests import bucket_server, clip_records
from tests.arrays import ArrayClips
from tests.conftest import make_tiny_config
from xdc_jax import convert, parallel
from xdc_jax.errors import UserError
from xdc_jax.pretrain import pretrain
from xdc_jax.training import checkpoint
from xdc_jax.weights import encoder_dir, layout

BUCKET = "a-bucket"

KILL = """
import os, signal, sys
import jax
from tests import test_buckets
from xdc_jax.training.checkpoint import Checkpoints

original_save = Checkpoints.save
def save(self, step, *args):
    if step == 8:  # its lines of metrics are published, and those of checkpoint 6
        self._manager.wait_until_finished()
        os.kill(os.getpid(), signal.SIGKILL)
    original_save(self, step, *args)
Checkpoints.save = save
test_buckets.run(sys.argv[1])
"""


# etils chooses once: in a process of its own.
WITH_GCSFS = """
import sys
import jax
from tests import test_buckets

test_buckets.run(sys.argv[1])
assert "gcsfs" in sys.modules
"""


def config():
    found = make_tiny_config()
    found.update(iterations=1, checkpoint_every_steps=3)
    return found


def run(workdir):
    clips = ArrayClips(num_train=72, num_test=24)
    return pretrain(config(), clips, workdir, parallel.make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Keeps what is compiled: runs of the same config compile the same programs."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    names = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield {name.upper(): str(value) for name, value in names.items()}
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The stand-in, which everything in this process is sent to."""
    for package in ("tensorflow", "google.cloud.storage", "trustme"):
        pytest.importorskip(package, reason=f"the stand-in is tested with {package}")
    folder = tmp_path_factory.mktemp("authority")
    with (
        bucket_server.serve(folder, BUCKET) as (service, variables),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield service


@pytest.fixture(scope="module")
def local(tmp_path_factory, cache):
    """The workdir of a run on this disk."""
    folder = tmp_path_factory.mktemp("local")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def resumed(service, cache):
    """The workdir of the same run in the bucket, killed and started again."""
    path = f"gs://{BUCKET}/resumed"
    killed = subprocess.run(
        [sys.executable, "-c", KILL, path],
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.Checkpoints(path).latest_step() == 6
    run(path)
    return path


def content(service, path):
    return service.buckets[BUCKET][path][0]


def assert_same_run(service, name, local):
    for file in ("metrics.jsonl", "config.json"):
        assert content(service, f"{name}/{file}") == (local / file).read_bytes()
    found = checkpoint.read_newest(f"gs://{BUCKET}/{name}")
    expected = checkpoint.read_newest(local)
    assert found[0] == expected[0] == 8
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])
    rows = json.loads(content(service, f"{name}/results.json"))["rows"]
    local_rows = json.loads((local / "results.json").read_text())["rows"]
    assert [{**row, "seconds": 0} for row in rows] == [
        {**row, "seconds": 0} for row in local_rows
    ]


def test_a_run_without_tensorflow_equals_a_local_one(service, local, cache):
    done = subprocess.run(
        [sys.executable, "-c", WITH_GCSFS, f"gs://{BUCKET}/run"],
        env={**os.environ, **cache, "EPATH_USE_TF": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(service, "run", local)
    wanted = {
        str(file.relative_to(local))
        for pattern in ("*.json*", "clusters/*", "checkpoints/8/*/_*")
        for file in local.glob(pattern)
    }
    assert {"timing.jsonl", "clusters/iteration_1.npz"} < wanted
    for name in wanted:
        assert content(service, f"run/{name}")
    (events,) = [name for name in service.buckets[BUCKET] if "run/tensorboard" in name]
    assert content(service, events)
    assert not os.path.exists("gs:")  # what pathlib would make of it


def test_a_killed_run_goes_on_to_the_same_end(service, local, resumed):
    assert_same_run(service, "resumed", local)
    timings = content(service, "resumed/timing.jsonl").splitlines()
    assert [json.loads(line)["step"] for line in timings] == [4, 8, 8]
    names = [name for name in service.buckets[BUCKET] if "resumed/tensorb" in name]
    assert len(names) == 2


def test_a_damaged_checkpoint_falls_back_to_the_one_before(service, local, resumed):
    objects = service.buckets[BUCKET]
    for name in [name for name in objects if name.startswith("resumed/")]:
        if not name.endswith("results.json"):
            copy = name.replace("resumed/", "damaged/")
            service.put(BUCKET, copy, content(service, name))
    newest = [name for name in objects if name.startswith("damaged/checkpoints/8/")]
    for name in newest:
        if "/d/" in name:
            service.put(BUCKET, name, content(service, name)[:20])
    run(f"gs://{BUCKET}/damaged")
    assert_same_run(service, "damaged", local)
    moved = {name.replace("/checkpoints/", "/damaged_checkpoints/") for name in newest}
    assert moved <= set(objects)


def test_encoders_are_read_and_written(service, local, resumed):
    found, expected = convert.load(resumed, "video"), convert.load(local, "video")
    assert layout.digest(found.variables) == layout.digest(expected.variables)
    path = f"gs://{BUCKET}/encoder"
    encoder_dir.save(path, found)
    again = convert.load(path)
    assert layout.digest(again.variables) == layout.digest(expected.variables)
    assert again.clip == expected.clip
    with pytest.raises(UserError, match=f"{path}: exists already and is not empty"):
        encoder_dir.save(path, found)
    with pytest.raises(UserError, match=f"gs://{BUCKET}/none: found neither"):
        convert.load(f"gs://{BUCKET}/none")


def test_prepared_clips_are_read(service, tmp_path):
    expected = clip_records.write(tmp_path / "data", clip_records.make_splits())
    for file in (tmp_path / "data").iterdir():
        if file.is_file():
            service.put(BUCKET, f"data/{file.name}", file.read_bytes())
    found = shards.open_prepared(f"gs://{BUCKET}/data")
    assert found.fingerprint == expected.fingerprint
    epochs = [
        clip_records.one_epoch(ClipData(data, clip_records.SMALL, 0))
        for data in (found, expected)
    ]
    clip_records.assert_same(*epochs)


CANNOT = """
import os, sys
import jax
from data_pipelines import shards
from tests import bucket_server, test_buckets
from xdc_jax import __main__ as program
from xdc_jax import convert
from xdc_jax.errors import UserError

def expect_an_error(path, action, *args):
    try:
        action(*args)
    except UserError as error:
        assert str(error).startswith(path + ": the bucket cannot be read or"), error
        assert "\\n" not in str(error)
    else:
        raise AssertionError(f"{action} succeeded")

if os.environ["EPATH_USE_TF"] == "true":
    token = os.environ.pop("GOOGLE_AUTH_TOKEN_FOR_TESTING")
    path = f"gs://{test_buckets.BUCKET}/some"
    expect_an_error(path, test_buckets.run, path)
    os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] = token
for bucket in ("no-such-bucket", bucket_server.FORBIDDEN):
    path = f"gs://{bucket}/some"
    expect_an_error(path, test_buckets.run, path)
    if bucket == bucket_server.FORBIDDEN:
        expect_an_error(path, shards.open_prepared, path)
        expect_an_error(path, convert.load, path)
sys.exit(program.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("use_tensorflow", ["true", "false"])
def test_a_bucket_that_cannot_be_used_is_an_error(service, use_tensorflow):
    """In a process of its own.

    TensorFlow tries what it failed to write once more when the file is garbage, and
    then holds the lock that the stand-in would need to answer in the same process.
    """
    data = f"gs://{bucket_server.FORBIDDEN}/data"
    done = subprocess.run(
        [
            *(sys.executable, "-c", CANNOT, "pretrain"),
            "--config=configs/digits_tones.py",
            f"--data={data}",
            f"--workdir=gs://{BUCKET}/none",
        ],
        env={**os.environ, "EPATH_USE_TF": use_tensorflow},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert line.startswith(f"xdc pretrain: error: {data}: ")
    assert {"true": "403", "false": "Forbidden"}[use_tensorflow] in line


def test_files_of_pytorch_are_not_written_into_a_bucket():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "xdc_jax", "convert", "--weights=none"),
            *("--to=torch", f"--out=gs://{BUCKET}/audio.pth"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"--out: found gs://{BUCKET}/audio.pth, expected a path on" in done.stderr
