"""GRID words: one spoken word per clip, the mouth of one speaker (18 words)."""

import csv
from pathlib import Path

from data_pipelines.manifest import Manifest, Row
from xdc_jax.errors import UserError


def build(
    media_dir: Path,
    *,
    data_dir: str | None,
    num_train: int | None,
    num_test: int | None,
    seed: int,
    num_workers: int,
) -> Manifest:
    """The clips as they are; `manifest.csv` names file, label and split.

    Raises:
      UserError: no data_dir, not the folder of the data set, or a size is given.
    """
    del media_dir, seed, num_workers  # The clips exist and are all taken.
    if num_train is not None or num_test is not None:
        raise UserError(
            "--num_train and --num_test are for data sets that are made; grid_words "
            "has fixed splits. Leave them out."
        )
    if data_dir is None:
        raise UserError("grid_words: give --data_dir, the folder with manifest.csv.")
    manifest_path = Path(data_dir) / "manifest.csv"
    if not manifest_path.is_file():
        raise UserError(
            f"{manifest_path}: not found; expected --data_dir to be the folder of GRID "
            "words with manifest.csv and clips/."
        )
    with manifest_path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"file", "label", "split"} - set(reader.fieldnames or ())
        if missing:
            raise UserError(
                f"{manifest_path}: has no column {', '.join(sorted(missing))}; "
                "expected the manifest that comes with GRID words."
            )
        return Manifest.of(
            Row(
                path=cells["file"],
                location=str(Path(data_dir) / cells["file"]),
                label=cells["label"],
                split=cells["split"],
            )
            for cells in reader
        )
