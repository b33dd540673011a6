"""A folder that one process at a time works in."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from etils import epath

from xdc_jax.errors import UserError
from xdc_jax.files import is_local

_LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(folder: epath.Path) -> Iterator[None]:
    """Holds a lock on a local folder, which goes with the process; none on a URL.

    Raises:
      UserError: another process holds it.
    """
    if not is_local(folder):
        yield
        return
    path = os.path.join(folder, _LOCK_FILE)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another `xdc prepare` is writing it. Wait for it, or "
                "choose another --out."
            ) from error
        yield
        os.unlink(path)
