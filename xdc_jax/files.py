"""Writing files that a killed process leaves either old or new; the cache folder."""

import contextlib
import io
import os
from pathlib import Path

from etils import epath


def cache_dir(name: str) -> Path:
    """Returns this project's folder of that name in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "xdc_jax" / name


def write_atomically(path: epath.PathLike, data: bytes) -> None:
    """Writes to a temporary file beside `path`, syncs it, and renames it.

    Args:
        path: local, or a URL such as gs://...
        data: the content.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            os.fsync(file.fileno())  # what is no local file has no descriptor
    temporary.replace(path)
