"""The comparison with the paper as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence

from xdc_jax import results
from xdc_jax.paper import commands
from xdc_jax.paper.comparison import Line
from xdc_jax.paper.measured import Setting, Summary
from xdc_jax.paper.published import SCRATCH, TABLES, Published, Row, Table

LEGEND = (
    "Accuracies are per cent: top-1 of whole videos or recordings, by the scores "
    "averaged over their clips. `published` is the paper's number. Without a mark it "
    "was read in the authors' README, or the data set's. `(secondary)`: another paper "
    "says so. `(unverified)`: remembered, compared with nothing; do not quote it as "
    "the paper's. `ours` is the mean over seeds of the mean over official splits or "
    "folds, ± the sample standard deviation over seeds. A seed is that of the "
    "pretraining with that of what came after it: for another, give `--config.seed=1` "
    "and another `NAME` and `WEIGHTS`."
)
OTHER_TITLE = "Other runs"
_HEADER = ("pretraining", "result", "published", "ours", "difference", "seeds")
_OTHER_HEADER = (
    "data",
    "modality",
    "pretraining",
    "k video / audio",
    "protocol",
    "labels",
    "clip",
    "parts",
    "seeds",
    "ours",
)
CSV_COLUMNS = (
    "table",
    "row",
    "column",
    "data",
    "modality",
    "pretraining",
    "k_video",
    "k_audio",
    "protocol",
    "label_fraction",
    "num_frames",
    "crop_size",
    "published",
    "trust",
    "ours",
    "std",
    "difference",
    "seeds",
    "parts",
    "remarks",
    "pretrain",
    "measure",
)
Lines = dict[str, list[Line]]  # by name of the table
Others = dict[Setting, Summary]


def markdown(tables: Lines, others: Others, notes: Sequence[str]) -> str:
    """Returns all tables, each with the commands that fill it."""
    blocks = ["# The paper's tables", LEGEND]
    for table in TABLES:
        lines = tables[table.name]
        blocks += [f"## {table.title}", table.about]
        cells = [[*_cells(line), _numbers_of_commands(table, line)] for line in lines]
        blocks += [results.markdown([(*_HEADER, "run"), *cells]), _how_to_run(table)]
    blocks += [
        "## Data",
        "Once, before all else. IG-Kinetics and IG-Random are not public.",
        "\n".join(f"    {command}" for command in commands.PREPARE),
    ]
    if others:
        blocks += [f"## {OTHER_TITLE}", results.markdown(_other_cells(others))]
    if notes:
        blocks += ["## Notes", "\n".join(f"* {note}" for note in notes)]
    return "\n\n".join(blocks) + "\n"


def latex(tables: Lines, others: Others) -> str:
    """Returns the tables for LaTeX's package booktabs."""
    blocks = [r"% Needs \usepackage{booktabs}."]
    for table in TABLES:
        cells = [_HEADER, *map(_cells, tables[table.name])]
        caption = (
            f"{table.title}. {table.about} Numbers marked as unverified have not been "
            "compared with the paper."
        )
        blocks.append(_latex_table(cells, caption, table.name))
    if others:
        blocks.append(_latex_table(_other_cells(others), f"{OTHER_TITLE}.", "other"))
    return "\n\n".join(blocks) + "\n"


def comma_separated(tables: Lines, others: Others) -> str:
    """Returns all cells as CSV, under `CSV_COLUMNS`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in TABLES:
        for line in tables[table.name]:
            writer.writerow(_csv_of_line(table, line))
    for setting, ours in others.items():
        described = {key: getattr(setting, key) for key in CSV_COLUMNS[3:12]}
        writer.writerow({"table": OTHER_TITLE, **described, **_csv_of_ours(ours)})
    return file.getvalue()


def _cells(line: Line) -> list[str]:
    return [
        line.row.name,
        line.column.name,
        str(line.published or ""),
        _ours(line.ours, line.remarks) if _can_run(line) else "-",
        "" if line.difference is None else f"{line.difference:+.1f}",
        str(line.ours.num_seeds) if line.ours else "",
    ]


def _ours(ours: Summary | None, remarks: Sequence[str]) -> str:
    if ours is None:
        return "not run"
    text = f"{ours.mean:.1f}"
    if ours.std is not None:
        text += f" ± {ours.std:.1f}"
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _other_cells(others: Others) -> list[Sequence[str]]:
    lines = [
        (
            setting.data,
            setting.modality,
            setting.pretraining,
            _pair(setting.k_video, "/", setting.k_audio),
            setting.protocol,
            f"{setting.label_fraction:.0%}"
            if setting.label_fraction >= 0.01
            else f"{setting.label_fraction:.2%}",
            _pair(setting.num_frames, "x", setting.crop_size),
            ours.parts,
            str(ours.num_seeds),
            _ours(ours, ours.remarks),
        )
        for setting, ours in others.items()
    ]
    return [_OTHER_HEADER, *sorted(lines)]


def _pair(first: int | None, sign: str, second: int | None) -> str:
    return "" if first is None and second is None else f"{first}{sign}{second}"


def _can_run(line: Line) -> bool:
    return commands.can_run(line.row, line.column)


def _trained_rows(table: Table) -> list[Row]:
    return [row for row in table.rows if row.pretraining]


def _numbers_of_commands(table: Table, line: Line) -> str:
    """Returns which commands below the table fill a cell: `3, b`."""
    if not _can_run(line):
        return ""
    number = _trained_rows(table).index(line.row) + 1
    return f"{number}, {_letter(table.columns.index(line.column))}"


def _letter(index: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[index]


def _how_to_run(table: Table) -> str:
    """Returns a command per pretraining and one per result, for one shell."""
    lines = ["To run, in one shell, the number and then the letter of a cell:", ""]
    for number, row in enumerate(_trained_rows(table), 1):
        name, weights = commands.name(row), commands.weights(row)
        command = _variables(name, weights)
        if trained := commands.pretrain(row):
            command += f"; {trained}"
        lines.append(f"    {number}. {command}")
        if row.released:
            lines.append(
                f"       # or, as released: {_variables(row.released, row.released)}"
            )
        if weights == SCRATCH:
            lines.append(f"       # and add {commands.SCRATCH_FLAG} to the letter's")
    for index, column in enumerate(table.columns):
        command = commands.measure(column, "${NAME}", "${WEIGHTS}")
        lines.append(f"    {_letter(index)}. {command}")
    return "\n".join(lines)


def _variables(name: str, weights: str) -> str:
    return f"NAME={name}; WEIGHTS={weights}"


def _latex_table(rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    header, *lines = [" & ".join(map(escape, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{{'l' * len(rows[0])}}}",
            r"    \toprule",
            f"    {header}",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def escape(text: str) -> str:
    """Returns a text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def _csv_of_line(table: Table, line: Line) -> dict[str, object]:
    row, column = line.row, line.column
    values = {
        "table": table.title,
        "row": row.name,
        "column": column.name,
        "data": column.data,
        "modality": column.modality,
        "pretraining": row.pretraining,
        "k_video": row.k,
        "k_audio": row.k,
        "protocol": column.protocol,
        "num_frames": column.num_frames,
        "crop_size": column.crop_size,
        **_csv_of_published(line.published),
        **_csv_of_ours(line.ours),
        "remarks": "; ".join(line.remarks),
    }
    if line.difference is not None:
        values["difference"] = f"{line.difference:.4f}"
    if _can_run(line):
        name, weights = commands.name(row), commands.weights(row)
        values["pretrain"] = commands.pretrain(row)
        values["measure"] = commands.measure(column, name, weights)
        if weights == SCRATCH:
            values["measure"] += f" {commands.SCRATCH_FLAG}"
    return values


def _csv_of_published(number: Published | None) -> dict[str, str]:
    return {"published": number.text, "trust": number.trust} if number else {}


def _csv_of_ours(ours: Summary | None) -> dict[str, object]:
    if ours is None:
        return {}
    return {
        "ours": f"{ours.mean:.4f}",
        "std": "" if ours.std is None else f"{ours.std:.4f}",
        "seeds": ours.num_seeds,
        "parts": ours.parts,
        "remarks": "; ".join(ours.remarks),
    }
