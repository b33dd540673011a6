"""Writing files that a killed process leaves either old or new, never in part."""

import os
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes to a temporary file beside `path`, syncs it, and renames it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
