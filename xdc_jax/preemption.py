"""Notice that this machine is taken away: SIGTERM, as Cloud TPU sends it.

Verbs that can go on where they stopped watch for it: they ask between their steps, save
what they have, and end with `EXIT_STATUS`. All others die of it, as usual.
"""

import signal
import threading

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again

_noticed = threading.Event()


class PreemptedError(Exception):
    """What was done so far is saved; start again to go on."""


def watch() -> None:
    """Takes note of SIGTERM from now on; a second one ends the process at once."""

    def note(number, frame):
        del frame
        _noticed.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, note)


def noticed() -> bool:
    """Whether there was a notice."""
    return _noticed.is_set()


def check() -> None:
    """Raises PreemptedError after a notice; for places where nothing is to be saved."""
    if noticed():
        raise PreemptedError("preempted; start the same command again to go on")
