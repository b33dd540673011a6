"""The paper's tables: its numbers, ours beside them, and the commands that make ours.

Example:
  xdc tables --runs=runs --out=tables

--runs is a folder: every results.json below it that `xdc finetune` or `xdc evaluate`
wrote counts, hidden folders aside. A result belongs to a cell by the name of its
pretraining (`config.name`; see configs/paper), data set (`ucf101`, `hmdb51`, `esc50`,
`dcase2014`: the name of the folder with the data), protocol, clip size and number of
clusters; those that belong to none follow as "Other runs". Of two results with the same
settings, seed and part, the newer file counts, and a note says so. An empty folder
gives the tables of the paper, with nothing beside its numbers.

The paper's numbers carry a mark unless they were read in a source of the authors.
Prints Markdown; with --out, also writes tables.md, tables.csv and tables.tex there.
"""

from absl import flags

from xdc_jax.files import local, write_atomically
from xdc_jax.paper import render
from xdc_jax.paper.comparison import compare
from xdc_jax.paper.measured import collect


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("runs", None, "Folder with results.", required=True)
    flags.DEFINE_string("out", None, "Folder for tables.md, tables.csv, tables.tex.")


def main() -> None:
    """Runs the verb."""
    found, notes = collect(local(flags.FLAGS.runs, "runs"))
    tables, others = compare(found)
    text = render.markdown(tables, others, notes)
    print(text, end="")
    if flags.FLAGS.out:
        out = local(flags.FLAGS.out, "out")
        files = {
            "tables.md": text,
            "tables.csv": render.comma_separated(tables, others),
            "tables.tex": render.latex(tables, others),
        }
        for name, content in files.items():
            write_atomically(out / name, content.encode())
        print(f"\n{', '.join(str(out / name) for name in files)} are written.")
