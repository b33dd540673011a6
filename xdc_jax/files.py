"""Paths on disks and in buckets; writing files that a killed process leaves whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from xdc_jax.errors import UserError

# Packages whose exceptions say that a bucket is not to be reached.
_CLOUD_PACKAGES = ("aiohttp", "gcsfs", "google", "requests", "tensorflow")


def cache_dir(name: str) -> Path:
    """Returns this project's folder of that name in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "xdc_jax" / name


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is of this machine, not a URL such as gs://..."""
    return "://" not in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path that does not depend on the current folder; gs://... as it is.

    Raises:
        UserError: it is another URL.
    """
    if not is_local(path):
        if not os.fspath(path).startswith("gs://"):
            raise UserError(f"found {path}, expected a local path or gs://...")
        return epath.Path(path)
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def local(path: epath.PathLike, flag: str) -> Path:
    """Returns the local path of a flag.

    Raises:
        UserError: it is a URL.
    """
    if not is_local(path):
        raise UserError(
            f"--{flag}: found {path}, expected a path on this machine; copy it from or "
            "to the bucket (gcloud storage cp --recursive)"
        )
    return Path(path).expanduser()


@contextlib.contextmanager
def reaching(path: epath.PathLike) -> Iterator[None]:
    """Explains the errors of a bucket that cannot be read or written.

    Raises:
        UserError: no credentials, no permission, no such bucket or no network.
    """
    try:
        yield
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        known = isinstance(error, OSError) or package in _CLOUD_PACKAGES
        if is_local(path) or not known:
            raise
        raise UserError(
            f"{path}: the bucket cannot be read or written "
            f"({' '.join(str(error).split()) or repr(error)}); is there such a bucket, "
            "and may this account use it (gcloud auth application-default login)?"
        ) from error


def write_atomically(path: epath.PathLike, data: bytes) -> None:
    """Writes a file that is either old or new, whenever the process is killed.

    A local file is written beside `path`, synced and renamed; an object in a bucket is
    there when all of it is.

    Args:
        path: local, or a URL such as gs://...
        data: the content.
    """
    path = epath.Path(path)
    if not is_local(path):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
