"""A job on a slice: creation, installation, the job itself, and all that once more
after a preemption, until it is done.
"""

import dataclasses
import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from xdc_jax import preemption
from xdc_jax.errors import UserError
from xdc_jax.launching import commands
from xdc_jax.launching.gcloud import (
    GcloudError,
    Worker,
    call,
    end,
    find,
    last_lines,
    popen,
    uninterrupted,
)

log = logging.getLogger(__name__)

# States of `QueuedResourceState` and `Node` in the TPU API v2
# (docs.cloud.google.com/tpu/docs/reference/rest/v2): those that never get better.
LOST_REQUEST = {"FAILED", "DELETING", "SUSPENDING", "SUSPENDED"}
LOST_NODE = {"PREEMPTED", "TERMINATED", "DELETING", "STOPPING", "STOPPED", "HIDDEN"}

# A worker that vanishes makes the others fail, up to the 100 s of JAX's heartbeat
# later, and maybe before the service says that it is gone: so many --poll_s are waited.
SETTLE_POLLS = 4
UNKNOWN = "unknown"
PATIENCE = 10  # attempts to delete a slice
STATE_LOG_S = 300.0  # the state of a request is logged when it changes, and so often


class Preempted(Exception):
    """The slice is gone, or the job was asked to end; it can go on from its workdir."""


class JobFailed(Exception):
    """The job ended by itself with an exit status that is neither 0 nor 75."""


@dataclasses.dataclass
class Launch:
    """One job and the slices that it runs on, one after the other.

    Attributes:
        tpu: the slice.
        create: the command that asks for it.
        archive: of the source.
        job: the arguments of `xdc`.
        logs: folder; each slice gets a folder attempt_N in it.
        poll_s: seconds between looks at the state.
    """

    tpu: commands.Slice
    create: list[str]
    archive: Path
    job: list[str]
    logs: Path
    poll_s: float

    def run(self, max_restarts: int) -> int:
        """Runs the job to its end and returns an exit status."""
        for restarts in range(max_restarts + 1):
            try:
                self.attempt(is_first=not restarts)
            except Preempted as reason:
                log.warning("preempted: %s", reason)
                if restarts < max_restarts:
                    log.info("restart %d of %d", restarts + 1, max_restarts)
                    self.delete()
            except JobFailed as reason:
                log.error("%s", reason)
                return 1
            else:
                return 0
        log.error(
            "--max_restarts=%d are used up; the same command goes on from here",
            max_restarts,
        )
        return preemption.EXIT_STATUS

    def attempt(self, is_first: bool) -> None:
        """Takes a slice and runs the job on it; Preempted if it is lost on the way."""
        number = 1 + len(list(self.logs.glob("attempt_*")))
        logs = self.logs / f"attempt_{number}"
        logs.mkdir(parents=True)
        log.info("logs: %s", logs)
        try:
            with uninterrupted():  # so that it is known whether it was created
                call(self.create)
            self.wait_until_active()
            self._on_all_workers(self.tpu.copy(self.archive), logs / "copy.log")
            install = self.tpu.ssh(commands.install(), "all")
            self._on_all_workers(install, logs / "install.log")
        except GcloudError as error:
            if is_first:
                raise
            # It worked before: a lack of machines, or a bad moment of the network.
            time.sleep(self.poll_s)
            raise Preempted(str(error)) from error
        self.run_job(logs)

    def wait_until_active(self) -> None:
        """Waits for the slice, for as long as it takes; GcloudError if none comes."""
        began, shown, before = time.monotonic(), 0.0, None
        while True:
            try:
                state = self.request_state()
            except Preempted as reason:
                raise GcloudError(f"no slice: {reason}") from reason
            waited = time.monotonic() - began
            if state != before or waited - shown > STATE_LOG_S:
                log.info("%s: %s after %.0f s", self.tpu.name, state, waited)
                shown, before = waited, state
            if state == "ACTIVE":
                return
            time.sleep(self.poll_s)

    def request_state(self) -> str:
        """Returns the state of the queued resource; Preempted if it is a final one."""
        try:
            request = find(self.tpu.requests(), self.tpu.name)
        except GcloudError as error:  # such as no network: the slice does not mind
            log.warning("%s", error)
            return UNKNOWN
        if request is None:
            raise Preempted(f"queued resource {self.tpu.name} is gone")
        state = request.get("state", {})
        if state.get("state") in LOST_REQUEST:
            raise Preempted(f"queued resource {self.tpu.name}: {json.dumps(state)}")
        return state.get("state", UNKNOWN)

    def check(self) -> dict[str, Any] | None:
        """Looks whether the slice is still there.

        Returns:
            The node; None if gcloud did not answer.

        Raises:
            Preempted: it is not there.
        """
        if self.request_state() == UNKNOWN:
            return None
        try:
            node = find(self.tpu.nodes(), self.tpu.name)
        except GcloudError as error:
            log.warning("%s", error)
            return None
        if node is None:
            raise Preempted(f"node {self.tpu.name} is gone")
        if node.get("state") in LOST_NODE:
            text = node.get("healthDescription", "")
            raise Preempted(f"node {self.tpu.name}: {node['state']} {text}".strip())
        return node

    def _on_all_workers(self, command: list[str], path: Path) -> None:
        log.info("%s", path.stem)
        with path.open("wb") as file:
            process = popen(command, stdout=file, stderr=file)
            try:
                process.wait()
            finally:
                end(process)
        if process.returncode:
            self.check()
            raise GcloudError(
                f"{path.stem} failed with exit status {process.returncode}; the end "
                f"of {path}:\n{last_lines(path)}"
            )

    def run_job(self, logs: Path) -> None:
        """Runs the job on the workers of a slice that has it installed."""
        while (node := self.check()) is None:
            time.sleep(self.poll_s)
        # A worker has an endpoint for each of its networks; gcloud counts like this.
        networks = max(1, len(node.get("networkConfigs", [])))
        count = len(node["networkEndpoints"]) // networks
        log.info("starting on %d workers: %s", count, shlex.join(self.job))
        workers = [Worker(self.tpu, self.job, i, logs) for i in range(count)]
        try:
            self._follow(workers)
        finally:
            for worker in workers:
                end(worker.process)
        statuses = {worker.number: worker.status for worker in workers}
        if not any(statuses.values()) and None not in statuses.values():
            log.info("the job is done")
            return
        self.check()
        text = ", ".join(
            f"worker {i} {'did not end' if status is None else status}"
            for i, status in statuses.items()
        )
        # The documented status of a job that wrote a checkpoint, asked to end.
        if preemption.EXIT_STATUS in statuses.values():
            raise Preempted(f"exit statuses: {text}")
        failed = next(worker for worker in workers if worker.status)
        raise JobFailed(
            f"the job failed; exit statuses: {text}. The end of {failed.log}:\n"
            f"{last_lines(failed.log)}"
        )

    def _follow(self, workers: list[Worker]) -> None:
        """Shows worker 0 until all end, or one has failed and some time has passed."""
        looked, failed_at = time.monotonic(), None
        with workers[0].log.open("rb") as shown:
            while True:
                now = time.monotonic()
                lost = [worker for worker in workers if not worker.look()]
                sys.stdout.buffer.write(shown.read())
                sys.stdout.buffer.flush()
                if all(worker.status is not None for worker in workers):
                    return
                if failed_at is None and any(worker.status for worker in workers):
                    failed_at = now
                if failed_at is not None and (
                    now - failed_at > SETTLE_POLLS * self.poll_s
                ):
                    return
                if now - looked > self.poll_s:
                    looked = now
                    if self.check() is not None:
                        for worker in lost:
                            worker.connect_again()
                time.sleep(min(self.poll_s, 1.0))

    def delete(self) -> None:
        """Deletes the slice, if there is one, as often as it takes."""
        command = self.tpu.delete()
        with uninterrupted():
            for _ in range(PATIENCE):
                try:
                    if find(self.tpu.requests(), self.tpu.name) is None:
                        return
                    log.info("deleting %s", self.tpu.name)
                    call(command)
                    return
                except GcloudError as error:
                    log.warning("%s", error)
                time.sleep(self.poll_s)
        raise UserError(
            f"{self.tpu.name} may still be there and cost money; look with `"
            f"{shlex.join(self.tpu.requests())}`, delete with `{shlex.join(command)}`"
        )
