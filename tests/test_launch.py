"""xdc launch, against a stand-in gcloud that runs what is sent to the workers."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
FAKE = Path(__file__).with_name("fake_gcloud.py")
CONFIG = "configs/odd 'name' $HOME.py"
# As `python -m xdc_jax launch`, but where the tests run, signals may be ignored.
MAIN = """
import signal, sys
import xdc_jax.__main__ as program
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
program.VERBS["launch"] = ("xdc_jax.launch", "")
sys.exit(program.main(["launch", *sys.argv[1:]]))
"""


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A checkout with a config of an odd name."""
    root = tmp_path_factory.mktemp("check out")
    for name in ("xdc_jax", "configs"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / name, root / name, ignore=skip)
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(REPO / name, root)
    shutil.copy(root / "configs/xdc_kinetics.py", root / CONFIG)
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / "runs").mkdir()
    (root / "runs/tracked").touch()
    subprocess.run(["git", "-C", root, "add", "."], check=True)
    (root / "untracked").touch()
    return root


class Cloud:
    """A folder for the stand-in, and the verb run against it."""

    def __init__(self, folder, tree):
        self.folder, self.tree = folder, tree
        (folder / "bin").mkdir()
        (folder / "stubs").mkdir()
        for path in ("bin/gcloud", "stubs/python3"):
            name = Path(path).name
            (folder / path).write_text(
                f'#!/bin/sh\nexec {sys.executable} -S {FAKE} {name} "$@"\n'
            )
            (folder / path).chmod(0o755)
        self.logs = folder / "my logs"
        self.env = {
            **os.environ,
            "FAKE_CLOUD": str(folder),
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(tree),
        }

    def command(self, *extra, **changes):
        args = {
            "config": CONFIG + ":k=256",
            "data": "gs://bucket/data",
            "workdir": "gs://bucket/run",
            "tpu": "v5litepod-16",
            "zone": "us-west4-a",
            "name": "xdc-1",
            "logs": self.logs,
            "poll_s": 0.1,
            **changes,
        }
        given = [f"--{key}={value}" for key, value in args.items() if value is not None]
        return [sys.executable, "-c", MAIN, *given, *map(str, extra)]

    def plan(self, **plan):
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def run(self, *extra, env=None, **changes):
        return subprocess.run(
            self.command(*extra, **changes),
            cwd=self.tree,
            env=env or self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *extra, **changes):
        return subprocess.Popen(
            self.command(*extra, **changes),
            cwd=self.tree,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def rows(self, name):
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def steps(self):
        """What was called, without the looks at states."""
        calls = [" ".join(call[3:5]) for call in self.rows("calls")]
        return [call.split(" --")[0] for call in calls if " list" not in call]

    def lists(self):
        return len(self.rows("calls")) - len(self.steps())

    def is_empty(self):
        return not (self.folder / "request").exists()

    def wait_for(self, found):
        deadline = time.monotonic() + 30
        while not found():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path, tree):
    found = Cloud(tmp_path, tree)
    found.plan()
    yield found
    for pid in found.rows("pids"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


ATTEMPT = ["queued-resources create", "tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh"]
DELETE = ["queued-resources delete"]


def test_a_job_from_creation_to_deletion(cloud):
    cloud.plan(workers=2)
    done = cloud.run("--spot", project="my-project")
    assert done.returncode == 0, done.stderr
    assert cloud.steps() == [*ATTEMPT, "tpu-vm ssh", *DELETE]
    assert cloud.is_empty()
    calls = cloud.rows("calls")
    where = ["--zone=us-west4-a", "--project=my-project", "--quiet"]
    assert all(call[-3:] == where for call in calls)
    assert [call[3:5] for call in calls].index(["queued-resources", "create"]) == 1
    assert calls[1][5:-3] == [
        "xdc-1",
        "--node-id=xdc-1",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
    ]
    archive = str(cloud.logs / "xdc_source.tar.gz")
    copies = [call[5:-3] for call in calls if call[4] == "scp"]
    assert copies == [[archive, "xdc-1:xdc_source.tar.gz", "--worker=all"]]
    assert [call[5:] for call in calls if call[4] == "delete"] == [
        ["xdc-1", "--force", *where]
    ]
    first, *workers = [call[6] for call in calls if call[4] == "ssh"]
    assert first == "--worker=all"
    assert sorted(workers) == ["--worker=0", "--worker=1"]  # at the same time

    for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"):
        assert f"xdc-1: {state} after" in done.stderr
    assert "first line of worker 0\nlast line of worker 0" in done.stdout
    assert "worker 1" not in done.stdout
    log = (cloud.logs / "attempt_1" / "worker_1.log").read_text()
    assert log.startswith("first line of worker 1\nlast line of worker 1\n")


def test_the_source_is_what_git_tracks(cloud):
    cloud.plan(workers=2)
    assert cloud.run().returncode == 0
    for worker in range(2):
        home = cloud.folder / f"worker_{worker}" / "xdc_job"
        assert (home / "xdc_jax/launch.py").is_file()
        assert not (home / "runs").exists()
        assert not (home / "untracked").exists()
    installs = cloud.rows("installs")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [call[0] for call in installs] == ["venv", "pip"] * 2
    assert f"--python={python}" in installs[0]
    assert "--requirement=xdc_job/requirements.txt" in installs[1]
    assert "--editable=xdc_job[tpu]" in installs[1]


def test_names_with_spaces_and_quotes_survive(cloud):
    odd = 'gs://bucket/it\'s "my"  $data; `rm` *\\n#é'
    note = "--config.name=two words\nand $(a) 'line'"
    done = cloud.run(f"--arg={note}", "--arg=-x y", data=odd, workdir=odd + "/run")
    assert done.returncode == 0, done.stderr
    (job,) = cloud.rows("jobs")
    assert job["argv"] == [
        "pretrain",
        f"--config={CONFIG}:k=256",
        f"--data={odd}",
        f"--workdir={odd}/run",
        note,
        "-x y",
    ]
    assert job["config_found"]


@pytest.mark.parametrize("how", ["SUSPENDED", "PREEMPTED", "gone"])
def test_goes_on_after_preemption(cloud, how):
    cloud.plan(jobs=[{"preempt": how}, {"exit": 0}])
    done = cloud.run()
    assert done.returncode == 0, done.stderr
    first, second = cloud.rows("jobs")
    assert first == second
    assert cloud.steps() == [*ATTEMPT, *DELETE, *ATTEMPT, *DELETE]
    starts = [call for call in cloud.rows("calls") if "--worker=0" in call]
    assert starts[0] == starts[1]
    assert "preempted: " in done.stderr
    assert (cloud.logs / "attempt_2" / "worker_0.log").exists()


def test_status_75_restarts(cloud):
    cloud.plan(workers=2, jobs=[{"exit": 75, "only_worker": 1}, {"exit": 0}])
    done = cloud.run()
    assert done.returncode == 0, done.stderr
    assert "worker 0 0, worker 1 75" in done.stderr
    assert len(cloud.rows("jobs")) == 4
    assert cloud.is_empty()


def test_max_restarts(cloud):
    cloud.plan(jobs=[{"exit": 75}])
    done = cloud.run(max_restarts=1)
    assert done.returncode == 75
    assert "--max_restarts=1 are used up" in done.stderr
    assert cloud.steps() == [*ATTEMPT, *DELETE, *ATTEMPT, *DELETE]
    assert cloud.is_empty()


def test_a_job_that_fails_is_not_restarted(cloud):
    cloud.plan(workers=2, jobs=[{"exit": 3, "only_worker": 1}])
    done = cloud.run()
    assert done.returncode == 1
    assert "worker 0 0, worker 1 3" in done.stderr
    assert str(cloud.logs / "attempt_1" / "worker_1.log") in done.stderr
    assert "last line of worker 1" in done.stderr
    assert len(cloud.rows("jobs")) == 2
    assert cloud.is_empty()


def test_a_lost_connection_leaves_the_job_alone(cloud):
    cloud.plan(jobs=[{"lose_ssh": True}])
    done = cloud.run()
    assert done.returncode == 0, done.stderr
    assert len(cloud.rows("jobs")) == 1
    assert cloud.steps() == [*ATTEMPT, "tpu-vm ssh", *DELETE]
    assert "connection lost" in done.stderr
    log = (cloud.logs / "attempt_1" / "worker_0.log").read_text()
    assert log.startswith("first line of worker 0\nlast line of worker 0\n")
    assert log.count("first line") == 1
    assert done.stdout == log


def test_an_error_of_creation_is_shown(cloud):
    cloud.plan(create_error="ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota 'X' exceeded")
    done = cloud.run()
    assert done.returncode == 2
    assert "RESOURCE_EXHAUSTED: Quota 'X' exceeded" in done.stderr
    assert cloud.steps() == ["queued-resources create"]
    assert "Traceback" not in done.stderr
    assert cloud.is_empty()


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_request_that_fails(cloud, state):
    cloud.plan(states=["ACCEPTED", "WAITING_FOR_RESOURCES", state])
    done = cloud.run()
    assert done.returncode == 2
    assert f'"state": "{state}"' in done.stderr
    assert state == "SUSPENDED" or "no more 'capacity' in the zone" in done.stderr
    assert cloud.steps() == ["queued-resources create", *DELETE]
    assert cloud.is_empty()


def test_an_installation_that_fails(cloud):
    cloud.plan(install_error="no matching distribution")
    done = cloud.run()
    assert done.returncode == 2
    assert "no matching distribution" in done.stderr
    assert str(cloud.logs / "attempt_1" / "install.log") in done.stderr
    assert cloud.is_empty()


def test_an_error_of_authentication_is_shown(cloud):
    text = "ERROR: (gcloud.auth) You do not currently have an active account selected."
    cloud.plan(list_error=text)
    for extra in ([], ["--stop"]):
        done = cloud.run(*extra)
        assert done.returncode == 2
        assert text in done.stderr
    assert cloud.steps() == []


def test_the_slice_of_another_job_is_left_alone(cloud):
    (cloud.folder / "name").write_text("xdc-1")
    (cloud.folder / "request").write_text("9")
    done = cloud.run()
    assert done.returncode == 2
    assert "xdc launch --stop --name=xdc-1 --zone=us-west4-a" in done.stderr
    assert cloud.steps() == []
    assert not cloud.is_empty()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_waiting(cloud, number):
    cloud.plan(states=["WAITING_FOR_RESOURCES"])
    process = cloud.start()
    cloud.wait_for(lambda: cloud.lists() > 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert cloud.steps() == ["queued-resources create", *DELETE]
    assert cloud.is_empty()


def test_a_second_interrupt_does_not_stop_the_deletion(cloud):
    cloud.plan(states=["WAITING_FOR_RESOURCES"], delete_s=0.5)
    process = cloud.start()
    cloud.wait_for(lambda: cloud.lists() > 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    cloud.wait_for(lambda: "queued-resources delete" in cloud.steps())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert cloud.is_empty()


def test_interrupted_while_creating(cloud):
    cloud.plan(create_s=0.5)
    process = cloud.start()
    cloud.wait_for(lambda: cloud.steps())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert cloud.steps() == ["queued-resources create", *DELETE]
    assert cloud.is_empty()


def test_interrupted_while_the_job_runs(cloud):
    cloud.plan(workers=2, jobs=[{"hang": True}])
    process = cloud.start()
    cloud.wait_for(lambda: len(cloud.rows("jobs")) == 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert cloud.steps() == [*ATTEMPT, "tpu-vm ssh", *DELETE]
    assert cloud.is_empty()


def test_keep(cloud):
    done = cloud.run("--keep")
    assert done.returncode == 0, done.stderr
    assert not cloud.is_empty()
    (command,) = [c for c in done.stderr.split("\n") if "costs money until: " in c]
    cloud_delete = shlex.split(command.split("until: ")[1])
    assert cloud_delete[4:7] == ["delete", "xdc-1", "--force"]


def printed_commands(text):
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [shlex.split(line) for line in lines]


def test_dry_run_prints_what_a_run_does(cloud):
    odd = ["--spot", "--arg=--config.name=it's  odd"]
    done = cloud.run("--dry_run", *odd, data="gs://a b/'c'")
    assert done.returncode == 0, done.stderr
    assert cloud.rows("calls") == []
    assert not cloud.logs.exists()
    printed = [c for c in printed_commands(done.stdout) if c[0] == "gcloud"]

    assert cloud.run(*odd, data="gs://a b/'c'").returncode == 0
    called = []
    for call in cloud.rows("calls"):
        if call not in called:
            called.append(call)
    assert sorted(printed) == sorted(called)
    order = [call for call in called if "list" not in call]
    assert [call for call in printed if "list" not in call] == order


def test_dry_run_packs_the_same(cloud):
    lines = cloud.run("--dry_run").stdout.splitlines()
    for line in lines[1:3]:
        subprocess.run(["bash", "-c", line], cwd=cloud.tree, check=True)
    archive = cloud.logs / "xdc_source.tar.gz"
    names = subprocess.run(
        ["tar", "-tzf", archive], check=True, capture_output=True, text=True
    ).stdout
    assert "xdc_jax/launch.py" in names.splitlines()
    assert "runs/" not in names


def test_stop(cloud):
    (cloud.folder / "name").write_text("xdc-1")
    (cloud.folder / "request").write_text("9")
    only = {"config": None, "data": None, "workdir": None, "tpu": None}
    dry = cloud.run("--stop", "--dry_run", **only)
    assert dry.returncode == 0
    assert cloud.rows("calls") == []
    done = cloud.run("--stop", **only)
    assert done.returncode == 0, done.stderr
    assert cloud.rows("calls")[-1] == shlex.split(dry.stdout)
    assert cloud.is_empty()
    again = cloud.run("--stop", **only)
    assert again.returncode == 2
    assert "no queued resource xdc-1 in us-west4-a" in again.stderr


def test_without_gcloud(cloud):
    (cloud.folder / "bin/gcloud").unlink()
    for name in ("git", "tar"):
        (cloud.folder / "bin" / name).symlink_to(shutil.which(name))
    env = {**cloud.env, "PATH": str(cloud.folder / "bin")}
    done = cloud.run(env=env)
    assert done.returncode == 2
    assert "https://cloud.google.com/sdk/docs/install" in done.stderr


@pytest.mark.parametrize("name", ["Xdc", "1a", "a-", "a b", "a;b", "a_b", "é", "a\n"])
def test_bad_name(cloud, name):
    done = cloud.run(name=name)
    assert done.returncode == 2
    assert "--name: found" in done.stderr
    assert cloud.rows("calls") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tpu": None}, "--tpu is missing"),
        ({"tpu": "v9-8"}, "found 'v9-8'"),
        ({"data": None}, "--data is missing"),
        ({"verb": "finetune"}, "--arg=--weights=... is missing"),
        ({"config": "configs/none.py"}, "there is no file configs/none.py"),
        ({"config": str(REPO / "configs/xdc_kinetics.py")}, "that git tracks"),
        ({"config": "untracked"}, "that git tracks"),
        ({"config": CONFIG + ":kk=3"}, "kk"),
    ],
)
def test_bad_arguments(cloud, changes, message):
    done = cloud.run(**changes)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert cloud.rows("calls") == []


def test_local_paths_are_warned_of(cloud):
    done = cloud.run("--dry_run", workdir="runs/x")
    assert done.returncode == 0
    assert "--workdir=runs/x is a path on the disk of each worker" in done.stderr
    assert "--data" not in done.stderr


def test_the_verb_imports_nothing_slow():
    code = "import sys, xdc_jax.launch; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"jax", "tensorflow", "numpy"} & set(done.stdout.split())
