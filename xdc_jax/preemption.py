"""Notice that this machine is taken away: SIGTERM, as Cloud TPU sends it.

Verbs that can go on where they stopped watch for it: they ask between their steps, save
what they have, and end with `EXIT_STATUS`. All others die of it, as usual.

Where several processes do steps together, a notice to one of them concerns all, and all
have to stop at the same step. JAX sees to that once they have met, also a process alone
(`multihost_utils.reached_preemption_sync_point`), and takes note of SIGTERM itself.
"""

import itertools
import os
import signal
import threading
import time
import urllib.request
from http.client import HTTPException

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again

# What the metadata server of Google Cloud says when the machine is to be taken away
# (docs.cloud.google.com/compute/docs/metadata/getting-live-migration-notice, and
# .../instances/spot#detect-preemption).
_NOTICES = {
    "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE",
    "preempted": "TRUE",
}

_noticed = threading.Event()
_asked = itertools.count()


class PreemptedError(Exception):
    """What was done so far is saved; start again to go on.

    Attributes:
        together: all processes of the job stop.
    """

    def __init__(self, together: bool = True):
        super().__init__("preempted; start the same command again to go on")
        self.together = together


def watch() -> None:
    """Takes note of SIGTERM from now on; a second one ends the process at once.

    Before `hosts.connect`, which takes over where several processes meet; after it,
    where they do their work each for itself (`together=False`).
    """

    def note(number, frame):
        del frame
        _noticed.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, note)


def follow_metadata(every_s: float = 5.0) -> None:
    """Makes a notice of Google Cloud's metadata server a SIGTERM to this process.

    It comes up to a minute before the machine is shut down; SIGTERM by itself comes
    with the shutdown. A thread asks until then.
    """
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")

    def says(key: str) -> str:
        request = urllib.request.Request(
            f"http://{host}/computeMetadata/v1/instance/{key}",
            headers={"Metadata-Flavor": "Google"},
        )
        try:
            with urllib.request.urlopen(request, timeout=every_s) as answer:
                return answer.read(100).decode()
        except (OSError, HTTPException):  # it is busy, or this is no such machine
            return ""

    def follow() -> None:
        while not any(says(key) == notice for key, notice in _NOTICES.items()):
            time.sleep(every_s)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def noticed(together: bool = True) -> bool:
    """Whether there was a notice.

    Args:
        together: to any process of the job. All have to ask equally often, and get the
            same answers.
    """
    import jax  # verbs that do without start faster
    from jax.experimental import multihost_utils

    if (
        together
        and jax.distributed.is_initialized()
        and multihost_utils.reached_preemption_sync_point(next(_asked))
    ):
        _noticed.set()
    return _noticed.is_set()


def check(together: bool = True) -> None:
    """Raises PreemptedError after a notice; for places where nothing is to be saved."""
    if noticed(together):
        raise PreemptedError(together)
