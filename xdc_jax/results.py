"""Rows of results: their file and their table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xdc_jax.files import write_atomically

Row = dict[str, Any]
MEASURES = {
    "video_probe": "video probe",
    "audio_probe": "audio probe",
    "nmi_video": "NMI video",
    "nmi_audio": "NMI audio",
    "seconds": "seconds",
}


def write(path: str | Path, rows: Sequence[Row]) -> None:
    """Writes `{"rows": [...]}` as JSON."""
    text = json.dumps({"rows": list(rows)}, indent=2) + "\n"
    write_atomically(path, text.encode())


def table(
    rows: Sequence[Row],
    measures: Mapping[str, str] = MEASURES,
    group_by: Sequence[str] = ("data", "method"),
    over: str = "seed",
) -> str:
    """Returns a Markdown table, one line per group of rows, in order of rows.

    Cells are means over a group, with the sample standard deviation where there are
    several different values, and a dash where nothing was measured.

    Args:
        rows: the rows.
        measures: key -> heading of each column of figures.
        group_by: rows that agree in these keys are one line.
        over: the key that differs within a group, and is counted.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in group_by), []).append(row)
    lines = [[*group_by, f"{over}s", *measures.values()]]
    for names, group in groups.items():
        cells = [_cell(key, [row[key] for row in group]) for key in measures]
        lines.append([*names, str(len({row[over] for row in group})), *cells])
    return markdown(lines)


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; the first line is its header."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines
    )


def _cell(key: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    whole = key == "seconds" or all(isinstance(value, int) for value in known)
    digits = 0 if whole else 3
    text = f"{np.mean(known):.{digits}f}"
    if len(known) > 1 and not (whole and len(set(known)) == 1):
        text += f" ± {np.std(known, ddof=1):.{digits}f}"
    return text
