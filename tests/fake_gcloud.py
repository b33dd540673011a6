"""A stand-in for gcloud, and for the slices that it creates; see test_launch.py.

$FAKE_CLOUD is its folder. plan.json there says what shall happen, calls.jsonl gets the
arguments of every call. worker_N is the home folder of a worker, in which commands run
by `bash -c`, as sshd would run them, but with this file in place of `python3 -m pip`,
`uv` and `xdc`; jobs.jsonl gets the arguments of every job that was started.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
PLAN = json.loads((CLOUD / "plan.json").read_text())
REQUEST = CLOUD / "request"  # there is a queued resource; holds the number of looks
LOST = CLOUD / "lost"  # the slice was preempted; holds how


def append(name, row):
    with (CLOUD / name).open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows(name):
    path = CLOUD / name
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def slice_number():
    """How many slices were created."""
    return int((CLOUD / "slices").read_text()) if (CLOUD / "slices").exists() else 0


def scenario():
    """What the job on this slice does; the last one in the plan repeats."""
    jobs = PLAN.get("jobs", [{}])
    return jobs[min(slice_number(), len(jobs)) - 1]


def fail(text, status=1):
    print(text, file=sys.stderr)
    sys.exit(status)


# -- the service --


def create(name):
    if "create_error" in PLAN:
        fail(PLAN["create_error"])
    (CLOUD / "name").write_text(name)
    (CLOUD / "slices").write_text(str(slice_number() + 1))
    LOST.unlink(missing_ok=True)
    for worker in range(PLAN.get("workers", 1)):
        home = CLOUD / f"worker_{worker}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
    REQUEST.write_text("0")


def delete():
    if not REQUEST.exists():
        fail("ERROR: NOT_FOUND")
    REQUEST.unlink()
    for pid in rows("pids.jsonl"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def list_requests():
    if "list_error" in PLAN:
        fail(PLAN["list_error"])
    if not REQUEST.exists():
        return []
    looks = int(REQUEST.read_text())
    REQUEST.write_text(str(looks + 1))
    states = PLAN.get("states", ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    state = {"state": states[min(looks, len(states) - 1)]}
    if state["state"] == "FAILED":
        state["failedData"] = {"error": {"message": "no more 'capacity' in the zone"}}
    if LOST.exists() and LOST.read_text() == "SUSPENDED":
        state = {"state": "SUSPENDED"}
    name = (CLOUD / "name").read_text()
    return [
        {"name": "projects/p/locations/z/queuedResources/other-" + name},
        {"name": "projects/p/locations/z/queuedResources/" + name, "state": state},
    ]


def list_nodes():
    if not REQUEST.exists() or (LOST.exists() and LOST.read_text() == "gone"):
        return []
    state = (
        "PREEMPTED" if LOST.exists() and LOST.read_text() != "SUSPENDED" else "READY"
    )
    endpoints = [{"ipAddress": "10.0.0.1"}] * PLAN.get("workers", 1)
    name = "projects/p/locations/z/nodes/" + (CLOUD / "name").read_text()
    return [{"name": name, "state": state, "networkEndpoints": endpoints}]


# -- the workers --


def scp(source):
    for home in CLOUD.glob("worker_*"):
        shutil.copy(source, home / Path(source).name)


def run_remotely(worker, command):
    home = CLOUD / f"worker_{worker}"
    stubs = CLOUD / "stubs"
    env = {**os.environ, "HOME": str(home), "WORKER": str(worker)}
    env["PATH"] = f"{stubs}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", "-c", command], cwd=home, env=env, stdin=subprocess.DEVNULL
    )


def ssh(worker, command):
    if LOST.exists():
        fail("ERROR: this TPU has terminal state")
    if worker == "all":
        if "install_error" in PLAN:
            fail(PLAN["install_error"])
        names = range(PLAN.get("workers", 1))
        sys.exit(max(run_remotely(n, command).wait() for n in names))
    process = run_remotely(worker, command)
    first = not (CLOUD / "worker_0" / "lost_once").exists()
    while process.poll() is None:
        time.sleep(0.02)
        if not (CLOUD / f"worker_{worker}" / "job_ran").exists():
            continue
        if "preempt" in scenario():
            time.sleep(0.1)
            process.kill()
            LOST.write_text(scenario()["preempt"])
            fail("Connection closed by remote host", 255)
        if "lose_ssh" in scenario() and first:
            time.sleep(0.5)  # the first line of the log is here
            (CLOUD / "worker_0" / "lost_once").touch()
            process.kill()
            fail("Connection closed by remote host", 255)
    sys.exit(process.returncode)


def stub_uv(arguments):
    if arguments[0] == "venv":
        bin_dir = Path(arguments[-1]) / "bin"
        bin_dir.mkdir(parents=True)
        write_stub(bin_dir / "xdc", "xdc")
    append("installs.jsonl", arguments)
    path = next((a for a in arguments if a.startswith("--requirement=")), None)
    if path and not Path(path.removeprefix("--requirement=")).exists():
        fail("no requirements.txt")


def stub_xdc(arguments):
    worker = int(os.environ["WORKER"])
    config = next((a for a in arguments if a.startswith("--config=")), "=:")
    path = config.removeprefix("--config=").split(":")[0]
    row = {"worker": worker, "argv": arguments, "config_found": Path(path).is_file()}
    append("pids.jsonl", os.getpid())
    append("jobs.jsonl", row)
    print(f"first line of worker {worker}", flush=True)
    (CLOUD / f"worker_{worker}" / "job_ran").touch()
    if "hang" in scenario() or "preempt" in scenario():
        time.sleep(60)
    if "lose_ssh" in scenario():
        deadline = time.monotonic() + 20
        while not (CLOUD / "worker_0" / "lost_once").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
    print(f"last line of worker {worker}", end="", flush=True)
    if worker == scenario().get("only_worker", worker):
        sys.exit(scenario().get("exit", 0))


def stub_python(arguments):
    if arguments[:2] != ["-m", "pip"]:
        os.execv(sys.executable, [sys.executable, *arguments])
    target = next(a for a in arguments if a.startswith("--target="))
    bin_dir = Path(target.removeprefix("--target=")) / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    write_stub(bin_dir / "uv", "uv")


def write_stub(path, name):
    """Writes a program that is this file, under another name."""
    python, here = sys.executable, Path(__file__).resolve()
    path.write_text(f'#!/bin/sh\nexec {python} -S {here} {name} "$@"\n')
    path.chmod(0o755)


def gcloud(arguments):
    append("calls.jsonl", ["gcloud", *arguments])
    options = dict(
        a.split("=", 1) for a in arguments if a.startswith("--") and "=" in a
    )
    what = tuple(arguments[2:4])
    if what == ("queued-resources", "create"):
        time.sleep(PLAN.get("create_s", 0))
        create(arguments[4])
    elif what == ("queued-resources", "delete"):
        time.sleep(PLAN.get("delete_s", 0))
        delete()
    elif what == ("queued-resources", "list"):
        print(json.dumps(list_requests()))
    elif what == ("tpu-vm", "list"):
        print(json.dumps(list_nodes()))
    elif what == ("tpu-vm", "scp"):
        scp(arguments[4])
    elif what == ("tpu-vm", "ssh"):
        ssh(options["--worker"], options["--command"])
    else:
        fail(f"ERROR: (gcloud) Invalid choice: {arguments}", 2)


if __name__ == "__main__":
    programs = {"uv": stub_uv, "xdc": stub_xdc, "python3": stub_python}
    programs["gcloud"] = gcloud
    programs[sys.argv[1]](sys.argv[2:])
