"""What `xdc prepare` can prepare: a manifest, a folder, a known data set."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines import datasets, workers
from data_pipelines.manifest import Manifest, read_manifest, scan_folder


@dataclasses.dataclass(frozen=True)
class Source:
    """What is prepared.

    Attributes:
      identity: JSON values; equal for equal content.
      manifest: makes the manifest, given a folder for media files to build.
    """

    identity: dict[str, Any]
    manifest: Callable[[Path], Manifest]


def manifest_source(manifest_path: str | Path) -> Source:
    """The files that a CSV manifest lists."""
    return _rows_source(read_manifest(manifest_path))


def folder_source(folder: str | Path, folder_labels: bool) -> Source:
    """The media files of a folder."""
    return _rows_source(scan_folder(folder, folder_labels))


def dataset_source(
    name: str,
    *,
    data_dir: str | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    num_workers: int | None = None,
) -> Source:
    """A data set by name; None takes its own sizes."""
    options = {"num_train": num_train, "num_test": num_test, "seed": seed}
    data_dir = data_dir and str(Path(data_dir).expanduser().resolve())

    def manifest(media_dir: Path) -> Manifest:
        return datasets.BUILDERS[name](
            media_dir,
            data_dir=data_dir,
            num_workers=num_workers or workers.available_cores(),
            **options,
        )

    return Source({"dataset": name, "data_dir": data_dir, **options}, manifest)


def digest(manifest: Manifest) -> str:
    """Hex digest of the rows of a manifest and the sizes of their files."""
    result = hashlib.blake2b(digest_size=16)
    for row in manifest.rows:
        is_file = os.path.isfile(row.location)
        size = os.path.getsize(row.location) if is_file else None
        fields = {**dataclasses.asdict(row), "location": None, "size": size}
        result.update(json.dumps(fields).encode())
    return result.hexdigest()


def _rows_source(manifest: Manifest) -> Source:
    return Source({"rows": digest(manifest)}, lambda media_dir: manifest)
