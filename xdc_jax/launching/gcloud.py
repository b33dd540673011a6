"""Runs gcloud, and the job on one worker through it."""

import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xdc_jax.errors import UserError
from xdc_jax.launching import commands, on_worker

log = logging.getLogger(__name__)

MAX_BROKEN = 10  # connections to a worker of a healthy slice, each of 10 by gcloud


class GcloudError(UserError):
    """Gcloud failed; the message is what it says."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts Ctrl-C and the like off to the end of this context."""
    came = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, lambda *_: came.append(True))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def popen(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """Starts a command that the Ctrl-C of the terminal does not reach."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, **options
    )


def end(process: subprocess.Popen) -> None:
    """Ends a process that `popen` started, with its children (gcloud has some)."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)


def call(command: Sequence[str]) -> str:
    """Runs a command and returns its output; GcloudError with its own words."""
    process = popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate()
    finally:
        end(process)
    if process.returncode:
        raise GcloudError(
            f"{(errors or out).strip()}\n(exit status {process.returncode} of: "
            f"{shlex.join(command)})"
        )
    return out


def find(command: Sequence[str], name: str) -> dict[str, Any] | None:
    """Runs a command that lists resources and returns that of this name, if any."""
    rows = json.loads(call(command) or "[]")
    return next((row for row in rows if row["name"].split("/")[-1] == name), None)


def last_lines(path: Path, count: int = 20) -> str:
    """Returns the end of a text file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1000 * count))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-count:])


class Worker:
    """The job on one worker, seen through a connection that may break.

    Attributes:
        status: exit status of the job there; None as long as it is not known.
    """

    def __init__(
        self, tpu: commands.Slice, job: Sequence[str], number: int, logs: Path
    ):
        self.tpu, self.job, self.number = tpu, job, number
        self.log = logs / f"worker_{number}.log"
        self.ssh_log = logs / f"worker_{number}.ssh.log"
        self.status: int | None = None
        self.broken = 0  # connections in a row that brought nothing
        self.connect()

    def connect(self) -> None:
        """Starts the job, or follows what runs there already."""
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        command = self.tpu.ssh(commands.start(self.job, self.offset), self.number)
        with self.log.open("ab") as out, self.ssh_log.open("ab") as errors:
            self.process = popen(command, stdout=out, stderr=errors)

    def look(self) -> bool:
        """Reads the status if the job has ended; whether there is a connection."""
        if self.status is not None or self.process.poll() is None:
            return True
        line = last_lines(self.log, 1)
        if line.startswith(on_worker.END):
            self.status = int(line.removeprefix(on_worker.END))
        return self.status is not None

    def connect_again(self) -> None:
        """Follows again after a broken connection; GcloudError if that never works."""
        grew = self.log.stat().st_size > self.offset
        self.broken = 0 if grew else self.broken + 1
        if self.broken == MAX_BROKEN:
            raise GcloudError(
                f"worker {self.number} cannot be reached although the slice is "
                f"there:\n{last_lines(self.ssh_log)}"
            )
        log.info("worker %d: connection lost; connecting again", self.number)
        self.connect()
