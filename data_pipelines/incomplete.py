"""A directory that takes its name when it is finished, so no half of one is used."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from xdc_jax.errors import UserError

_LOCK_FILE = ".lock"


@contextlib.contextmanager
def incomplete_dir(out_dir: Path) -> Iterator[Path]:
    """A locked folder beside `out_dir`; becomes `out_dir` if the block ends well."""
    work_dir = out_dir.with_name(out_dir.name + ".incomplete")
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{work_dir}: another `xdc prepare` is writing it. Wait for it, or "
                "choose another --out."
            ) from error
        yield work_dir
        (work_dir / _LOCK_FILE).unlink()
        work_dir.rename(out_dir)


def clear(work_dir: Path) -> None:
    """Removes what an interrupted preparation left."""
    for path in work_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK_FILE:
            path.unlink()
