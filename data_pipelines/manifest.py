"""A CSV manifest or a folder of media files -> checked, sorted rows."""

import csv
import dataclasses
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from xdc_jax.errors import UserError

COLUMNS = ("path", "label", "split", "start_s", "end_s", "fold", "partitions")
_PARTS = re.compile(r"(train|test|val|-)(/(train|test|val|-))*")

# Containers that FFmpeg opens and that people keep video or sound in.
# fmt: off
MEDIA_SUFFIXES = frozenset((
    ".3gp", ".aac", ".ac3", ".asf", ".avi", ".dv", ".f4v", ".flac", ".flv", ".gif",
    ".m2ts", ".m4a", ".m4v", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".oga", ".ogg", ".ogv", ".opus", ".ts", ".vob", ".wav", ".webm", ".wma",
    ".wmv",
))
# fmt: on


@dataclasses.dataclass(frozen=True)
class Row:
    """One source, or an interval of one.

    Attributes:
      path: as the manifest has it; becomes the `video_id` of the records.
      location: where to open it: an absolute path or a URL such as gs://...
      label: class name; empty where unlabelled.
      split: the split that the records go to.
      start_s: start of the interval in the source, seconds.
      end_s: end of the interval, seconds; None is the end of the source.
      fold: cross-validation fold, -1 where none.
      partitions: the part that the source has in each of several official partitions
        of the data set, such as `train/test/-` for split files 1, 2 and 3, where `-`
        is neither; empty where there are none.
    """

    path: str
    location: str
    label: str = ""
    split: str = "train"
    start_s: float = 0.0
    end_s: float | None = None
    fold: int = -1
    partitions: str = ""

    @property
    def order(self) -> tuple[str, float, float]:
        """What rows are sorted by; no two rows of a manifest share it."""
        return self.path, self.start_s, math.inf if self.end_s is None else self.end_s


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Checked rows.

    Attributes:
      rows: sorted by path, then start; every order of the same rows in a file gives
        the same manifest.
      class_names: sorted; the label of a record is an index into it.
      missing: sorted paths, as expected, of files that the data set lists and that
        are not there.
      problems: what is wrong with a list, `FILE, line N: found ..., expected ...`.
    """

    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        *,
        class_names: Iterable[str] = (),
        missing: Iterable[str] = (),
        problems: Iterable[str] = (),
    ) -> "Manifest":
        """Sorts rows and collects their class names.

        Args:
          rows: in any order.
          class_names: classes of the data set, whether or not a row has them: ids then
            do not depend on which files are there.
          missing: in any order.
          problems: in the order to report them in.
        """
        rows = tuple(sorted(rows, key=lambda row: row.order))
        names = {row.label for row in rows if row.label}.union(class_names)
        return cls(rows, tuple(sorted(names)), tuple(sorted(missing)), tuple(problems))

    @property
    def splits(self) -> tuple[str, ...]:
        """Sorted names of the splits."""
        return tuple(sorted({row.split for row in self.rows}))

    def class_id(self, row: Row) -> int:
        """The label of a row as a class id, -1 where it has none."""
        return self.class_names.index(row.label) if row.label else -1


def read_manifest(manifest_path: str | Path) -> Manifest:
    """Reads a CSV manifest; whether the listed files exist is not looked at.

    Columns (the header is required): `path`, and optionally `label`, `split`
    (default `train`), `start_s`, `end_s` (seconds), `fold`, `partitions`.

    Raises:
      UserError: no such file, unknown or missing column, no rows, a row without a
        path, two rows for the same interval of a file, or a value out of range.
    """
    manifest_path = Path(manifest_path)
    try:
        file = manifest_path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{manifest_path}: cannot open the manifest ({error.strerror}). Give "
            "--manifest a CSV file with a header line and a `path` column."
        ) from error
    with file:
        try:
            reader = csv.DictReader(file, strict=True)
            _check_header(manifest_path, reader.fieldnames)
            numbered = [
                (reader.line_num, _parse_row(manifest_path, reader.line_num, cells))
                for cells in reader
            ]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"{manifest_path}: not a CSV file in UTF-8 ({error})."
            ) from error
    if not numbered:
        raise UserError(
            f"{manifest_path}: the manifest has a header but no rows; expected one "
            "row per file."
        )
    _check_partitions(manifest_path, numbered)
    seen: dict[tuple[str, float, float], int] = {}
    for line, row in numbered:
        first = seen.setdefault(row.order, line)
        if first != line:
            raise UserError(
                f"{manifest_path}, line {line}: repeats line {first} ({row.path!r} "
                f"from {row.start_s:g} s). Keep one row per file, or give the rows "
                "different start_s."
            )
    return Manifest.of(row for _, row in numbered)


def scan_folder(folder: str | Path, folder_labels: bool) -> Manifest:
    """Every media file below a folder, known by its suffix, as split `train`.

    Hidden files and folders are passed over.

    Args:
      folder: where to look.
      folder_labels: whether the name of the first sub-folder is the label of a file;
        a file directly in `folder` has none.

    Raises:
      UserError: no such folder, or no media file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(
            f"{folder}: expected a folder of media files, found {found}. Give "
            "--folder an existing folder."
        )
    rows = []
    num_others = 0
    for parent, child_folders, names in os.walk(folder, followlinks=True):
        child_folders[:] = [name for name in child_folders if name[0] != "."]
        for name in names:
            path = Path(parent, name).relative_to(folder)
            if name[0] == "." or path.suffix.lower() not in MEDIA_SUFFIXES:
                num_others += 1
                continue
            label = path.parts[0] if folder_labels and len(path.parts) > 1 else ""
            rows.append(
                Row(path.as_posix(), os.path.abspath(folder / path), label=label)
            )
    if not rows:
        raise UserError(
            f"{folder}: found no media file among {num_others} other files. Expected "
            f"files that end in {' '.join(sorted(MEDIA_SUFFIXES))}; list files with "
            "other names in a --manifest."
        )
    return Manifest.of(rows)


def write_manifest(manifest_path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Writes a CSV manifest that `read_manifest` reads; the keys are `COLUMNS`."""
    with manifest_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _check_header(manifest_path: Path, header: Iterable[str] | None) -> None:
    header = list(header or ())
    unknown = [name for name in header if name not in COLUMNS]
    if "path" not in header or unknown or len(set(header)) < len(header):
        raise UserError(
            f"{manifest_path}: found the columns {header or 'none'}, expected `path` "
            f"and any of {', '.join(COLUMNS[1:])}, each once. Rename, add or remove "
            f"columns{f': unknown are {unknown}' if unknown else ''}."
        )


def _check_partitions(manifest_path: Path, numbered: list[tuple[int, Row]]) -> None:
    """Checks that all rows tell of as many partitions."""
    given = [(line, row.partitions) for line, row in numbered if row.partitions]
    for line, partitions in given:
        first_line, first = given[0]
        if partitions.count("/") != first.count("/"):
            raise UserError(
                f"{manifest_path}, line {line}: partitions is {partitions!r}, expected "
                f"as many parts as in line {first_line} ({first!r}). Correct the row."
            )


def _parse_row(manifest_path: Path, line: int, cells: dict[str, str | None]) -> Row:
    def fail(column: str, expected: str) -> UserError:
        return UserError(
            f"{manifest_path}, line {line}: {column} is {cells.get(column)!r}, "
            f"expected {expected}. Correct the row."
        )

    if None in cells or None in cells.values():
        raise UserError(
            f"{manifest_path}, line {line}: found a different number of cells than "
            "the header has. Quote cells that contain commas."
        )
    cell = {name: (value or "").strip() for name, value in cells.items()}
    if not cell["path"]:
        raise fail("path", "the path of a media file")
    split = cell.get("split") or "train"
    # TFDS takes the name `all` for all splits together.
    if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":
        expected = "letters, digits and underscores, such as train or test_1, not all"
        raise fail("split", expected)
    start_s = parse_seconds(cell.get("start_s") or "0")
    if start_s is None:
        raise fail("start_s", "seconds, 0 or more")
    end_s = parse_seconds(cell["end_s"]) if cell.get("end_s") else None
    if cell.get("end_s") and (end_s is None or end_s <= start_s):
        raise fail("end_s", f"seconds, more than start_s ({start_s:g})")
    fold = cell.get("fold") or "-1"
    if not re.fullmatch(r"\d+|-1", fold):
        raise fail("fold", "a whole number, 0 or more, or -1 for none")
    partitions = cell.get("partitions", "")
    if partitions and not _PARTS.fullmatch(partitions):
        raise fail("partitions", "train, test, val or -, joined by /: train/test/-")
    return Row(
        path=cell["path"],
        location=_locate(manifest_path, cell["path"]),
        label=cell.get("label", ""),
        split=split,
        start_s=start_s,
        end_s=end_s,
        fold=int(fold),
        partitions=partitions,
    )


def parse_seconds(text: str) -> float | None:
    """A time from 0 on; None where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _locate(manifest_path: Path, path: str) -> str:
    if "://" in path:
        return path
    return os.path.abspath(manifest_path.parent / path)
