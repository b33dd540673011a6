"""What `xdc prepare` can prepare: a manifest, a folder, a known data set."""

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines import datasets, workers
from data_pipelines.manifest import Manifest, read_manifest, scan_folder
from xdc_jax.errors import UserError


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
    """A data set by name.

    Args:
      name: one of `datasets.MADE` or `datasets.FOUND`.
      data_dir: where its files lie.
      num_train: training clips to make; None takes the data set's own number.
      num_test: test clips to make; None takes the data set's own number.
      seed: of what is drawn at random.
      num_workers: processes that make clips; None is one per core.

    Raises:
      UserError: no such data set, or options that are not its own; for one that is
        found, whatever is wrong with its files.
    """
    if name in datasets.FOUND:
        if num_train is not None or num_test is not None:
            raise UserError(
                f"--num_train and --num_test are for data sets that are made; {name} "
                "has fixed splits. Leave them out."
            )
        return _found_source(name, data_dir, seed)
    if name not in datasets.MADE:
        known = ", ".join(sorted(datasets.MADE | datasets.FOUND))
        raise UserError(f"Found data set {name!r}, expected one of {known}.")
    options = {"num_train": num_train, "num_test": num_test, "seed": seed}
    data_dir = data_dir and str(Path(data_dir).expanduser().resolve())

    def manifest(media_dir: Path) -> Manifest:
        return datasets.MADE[name](
            media_dir,
            data_dir=data_dir,
            num_workers=num_workers or workers.available_cores(),
            **options,
        )

    return Source({"dataset": name, "data_dir": data_dir, **options}, manifest)


def _found_source(name: str, data_dir: str | None, seed: int) -> Source:
    if data_dir is None:
        raise UserError(
            f"{name}: give --data_dir, the folder that holds its files as their owners "
            f"distribute them."
        )
    manifest = datasets.FOUND[name](Path(data_dir).expanduser(), seed)
    identity = {"dataset": name, "rows": digest(manifest)}
    if name in datasets.SEEDED:
        identity["seed"] = seed
    return Source(identity, lambda media_dir: manifest)


def digest(manifest: Manifest) -> str:
    """Hex digest of the rows of a manifest and the sizes of their files."""
    result = hashlib.blake2b(digest_size=16)
    for row in manifest.rows:
        fields = {**vars(row), "location": None, "size": _size(row.location)}
        if not row.partitions:  # Rows without have the digest they had before.
            del fields["partitions"]
        result.update(json.dumps(fields).encode())
    return result.hexdigest()


def _size(location: str) -> int | None:
    """Bytes of a local file; None where it is none."""
    try:
        status = os.stat(location)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _rows_source(manifest: Manifest) -> Source:
    return Source({"rows": digest(manifest)}, lambda media_dir: manifest)
