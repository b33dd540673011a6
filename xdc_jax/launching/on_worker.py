"""Runs on a worker of the slice: starts the job once, follows its log, and says how it
ended: `python on_worker.py OFFSET COMMAND...`.

The job is a process of its own, because gcloud runs a command again when its connection
breaks, and a job must neither end with a connection nor start twice. Standard library
only, and any Python 3: it is run as a file.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LOG = Path("job.log")
LOCK = Path("job.lock")  # locked as long as the job runs: a reboot frees it, too
STATUS = Path("job.status")
POLL_S = 0.2

# The last line of the log, before the status. gcloud's own exit status will not do: 1
# is its answer to a job that ended with 1, and to a slice that is gone.
END = "xdc launch: the job on this worker ended with status"
# Nobody saw the job end, as after a reboot: it may go on from its checkpoint.
VANISHED = os.EX_TEMPFAIL


def start(command: list[str]) -> None:
    """Starts the job in the background, unless it was started before."""
    lock = os.open(LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    with contextlib.suppress(BlockingIOError):  # it runs
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not LOG.exists():
            with LOG.open("xb") as log:
                subprocess.Popen(
                    [sys.executable, __file__, "run", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[lock],  # locked until this one ends, too
                )
    os.close(lock)


def run(command: list[str]) -> None:
    """Runs the job and writes its exit status."""
    # A machine that shuts down asks all processes to end. The job writes a checkpoint
    # then, and its exit status is to be seen. (Ignored signals would be inherited.)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        status = subprocess.call(command)
    except OSError as error:
        print(error, flush=True)
        status = 127  # what a shell says
    partial = STATUS.with_suffix(".tmp")
    partial.write_text(str(status if status >= 0 else 128 - status))
    partial.replace(STATUS)


def is_running() -> bool:
    """Whether the job still runs."""
    with LOCK.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def follow(offset: int) -> None:
    """Copies the log from byte `offset` on to the output until the job ends."""
    with LOG.open("rb") as log:
        log.seek(offset)
        running = True
        while running:
            running = is_running()  # first, so that the rest of the log is read after
            sys.stdout.buffer.write(log.read())
            sys.stdout.buffer.flush()
            if running:
                time.sleep(POLL_S)
    status = STATUS.read_text() if STATUS.exists() else VANISHED
    print(f"\n{END} {status}", flush=True)


def main() -> None:
    """Starts, and follows; or, called by itself, runs the job."""
    what, *command = sys.argv[1:]
    if what == "run":
        run(command)
        return
    start(command)
    follow(int(what))


if __name__ == "__main__":
    main()
