"""The folder of a data set: its files, its lists, and the rows they come to."""

import csv
import os
import posixpath
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_pipelines.manifest import MEDIA_SUFFIXES, Manifest, Row
from xdc_jax.errors import UserError

Key = TypeVar("Key", bound=Hashable)

# fmt: off
_SOUND_SUFFIXES = frozenset((
    ".aac", ".ac3", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma",
))
# fmt: on


class Line(NamedTuple):
    """A line of a list: the file, the number from 1 on, and the text, stripped."""

    path: Path
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


class Collection:
    """The files below a folder, listed once, and the rows gathered from them.

    Hidden files and folders are passed over. Bytes that are not UTF-8 become the same
    characters in names and in lists.

    Attributes:
      root: the folder, absolute.
      files: paths relative to `root`, sorted.
      media: those of media files, by suffix; all that have pictures come before mere
        sound, so that a sound track next to its video is second choice.
    """

    def __init__(self, data_dir: Path, expected: str):
        """Lists the files.

        Args:
          data_dir: the folder.
          expected: what should lie in it, for messages.

        Raises:
          UserError: it is no folder, or a folder in it cannot be read.
        """
        self.root = Path(os.path.abspath(data_dir))
        self._expected = expected
        self.files = tuple(sorted(self._walk()))
        self.media = tuple(
            sorted(
                (path for path in self.files if _suffix(path) in MEDIA_SUFFIXES),
                key=lambda path: _suffix(path) in _SOUND_SUFFIXES,
            )
        )
        self._rows: dict[tuple[str, float, float], tuple[Line | None, Row]] = {}
        self._missing: list[str] = []
        self._problems: list[str] = []

    def lists(
        self, pattern: str, key: Callable[[re.Match[str]], Key]
    ) -> dict[Key, Path]:
        """Finds lists by their names, wherever they lie.

        Args:
          pattern: regular expression of the whole name, in any case.
          key: what a match stands for.

        Raises:
          UserError: two files stand for the same.
        """
        found: dict[Key, str] = {}
        compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        for path in self.files:
            if match := compiled.fullmatch(posixpath.basename(path)):
                first = found.setdefault(key(match), path)
                if first != path:
                    raise UserError(
                        f"{self.root}: found both {first} and {path}, expected one of "
                        "them. Remove the other, or give --data_dir a folder with one."
                    )
        return {key: self.root / path for key, path in found.items()}

    def lacks(self, what: str) -> UserError:
        """The error for something that must be there and is not."""
        return UserError(
            f"{self.root}: found no {what}; expected {self._expected}. Give --data_dir "
            "the folder of the data set."
        )

    def cells(
        self, list_path: Path, count: int, columns: str
    ) -> Iterator[tuple[Line, list[str]]]:
        """The cells of a CSV list without a header; lines with # in front are skipped.

        A line that has another count of cells becomes a problem, with `columns` as what
        is expected.
        """
        for line in read_lines(list_path):
            if line.text.startswith("#"):
                continue
            if (cells := _split(line.text)) is not None and len(cells) == count:
                yield line, cells
            else:
                self.problem(line, repr(line.text), columns)

    def table(
        self, list_path: Path, *columns: str
    ) -> Iterator[tuple[Line, dict[str, str]]]:
        """The rows of a CSV list by the names of its columns, in small letters.

        A line that has another count of cells than the header becomes a problem.

        Raises:
          UserError: the header lacks one of `columns`.
        """
        header: list[str] | None = None
        for line in read_lines(list_path):
            cells = _split(line.text)
            if header is None:
                header = [cell.lower() for cell in cells or ()]
                if not set(columns) <= set(header):
                    raise UserError(
                        f"{line}: found the header {line.text!r}, expected the columns "
                        f"{', '.join(columns)}. Fetch the list again from its owner."
                    )
            elif cells is not None and len(cells) == len(header):
                yield line, dict(zip(header, cells, strict=True))
            else:
                self.problem(line, repr(line.text), f"{len(header)} cells")

    def add(self, path: str, line: Line | None = None, **fields: Any) -> None:
        """Adds a row for a file.

        Args:
          path: relative to `root`.
          line: the line that lists it; None where there is no list.
          **fields: those of `Row`, all but `path` and `location`.
        """
        row = Row(path=path, location=os.path.join(self.root, path), **fields)
        where = line and line._replace(text="")  # Millions need not be kept.
        first, kept = self._rows.setdefault(row.order, (where, row))
        if kept is not row:
            self.problem(line or self.root, f"{path} as in {first}", "each file once")

    def add_listed(
        self, line: Line, path: str | None, name: str, **fields: Any
    ) -> None:
        """Adds a row for a file that a list names, or notes that it is missing.

        Args:
          line: the line that lists it.
          path: relative to `root`; None where it is missing.
          name: the path that a missing file should have had.
          **fields: those of `Row`, all but `path` and `location`.
        """
        if path is None:
            self._missing.append(name)
        else:
            self.add(path, line, **fields)

    def problem(self, line: Line | Path, found: str, expected: str) -> None:
        """Notes what is wrong with a line, or with a whole file or folder."""
        self._problems.append(f"{line}: found {found}, expected {expected}")

    def manifest(self, class_names: Iterable[str] = ()) -> Manifest:
        """What was added, with all the classes of the data set.

        Raises:
          UserError: no file was there.
        """
        if not self._rows:
            examples = [
                f"{len(found)} {what}, the first {found[0]}"
                for found, what in (
                    (self._missing, "missing files"),
                    (self._problems, "problems"),
                )
                if found
            ]
            raise self.lacks(f"file of the data set ({'; '.join(examples) or 'none'})")
        return Manifest.of(
            (row for _, row in self._rows.values()),
            class_names=class_names,
            missing=self._missing,
            problems=self._problems,
        )

    def _walk(self) -> Iterator[str]:
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing"
            raise UserError(
                f"{self.root}: expected a folder with {self._expected}, found {found}. "
                "Give --data_dir the folder of the data set."
            )

        def fail(error: OSError) -> None:
            raise UserError(
                f"{error.filename}: cannot list the folder ({error.strerror}). Make it "
                "readable, or move it elsewhere."
            ) from error

        for parent, folders, names in os.walk(
            self.root, onerror=fail, followlinks=True
        ):
            folders[:] = [name for name in folders if name[0] != "."]
            prefix = os.path.relpath(parent, self.root).replace(os.sep, "/") + "/"
            prefix = "" if prefix == "./" else prefix
            yield from (prefix + name for name in names if name[0] != ".")


def index(paths: Iterable[str], key: Callable[[str], Key | None]) -> dict[Key, str]:
    """The first of `paths` for every key that is not None."""
    found: dict[Key, str] = {}
    for path in paths:
        if (name := key(path)) is not None:
            found.setdefault(name, path)
    return found


def stem(path: str) -> str:
    """The name of a file without folders and without its last suffix."""
    return posixpath.splitext(posixpath.basename(path))[0]


def read_lines(list_path: Path) -> Iterator[Line]:
    """The lines of a text file that are not blank.

    Raises:
      UserError: it cannot be read, or there is no such line.
    """
    line = None
    try:
        with list_path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, text in enumerate(file, 1):
                if text := text.strip():
                    line = Line(list_path, number, text)
                    yield line
    except OSError as error:
        raise UserError(
            f"{list_path}: cannot read the list ({error.strerror}). Make it readable."
        ) from error
    if line is None:
        raise UserError(
            f"{list_path}: found an empty list, expected lines. Fetch it again from "
            "its owner."
        )


def whole_number(text: str) -> int | None:
    """A number of seconds or the like, such as `12` or `12.0`; None for others."""
    return int(match[1]) if (match := re.fullmatch(r"(\d+)(\.0*)?", text)) else None


def _split(text: str) -> list[str] | None:
    """The cells of one line of a CSV file; None where its quotes are wrong."""
    try:
        (cells,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error:
        return None
    return [cell.strip() for cell in cells]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()
