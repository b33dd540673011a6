r"""Pretrains with every method and seed, and prints mean and spread of the probes.

Example:
  python -m benchmarks.methods --config=configs/av_digits.py \
      --data=runs/data/av_digits --out=runs/av_digits --seeds=3

Each run has a workdir of its own in --out; started again, finished runs are not done
again and an interrupted one goes on. Writes results.json into --out.
"""

import concurrent.futures
import itertools
from pathlib import Path

from absl import app, flags

from benchmarks import runs

METHODS = {
    "random": "method=xdc,iterations=0",
    "sdc": "method=sdc",
    "mdc": "method=mdc",
    "cdc": "method=cdc",
    "xdc": "method=xdc",
    "xdc_same_video": "method=xdc_same,same_modality=video",
    "xdc_same_audio": "method=xdc_same,same_modality=audio",
    "supervised": "method=supervised",
}

CONFIG = flags.DEFINE_string("config", None, "Config file, without arguments.")
ARG = flags.DEFINE_string("arg", "", "Config argument of every run: key=value,...")
DATA = flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
OUT = flags.DEFINE_string("out", None, "Folder of the workdirs.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds 0 to SEEDS - 1.", lower_bound=1)
RUN = flags.DEFINE_multi_enum("methods", list(METHODS), list(METHODS), "Which.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, each on its share of cores.")


def main(_) -> None:
    """Runs what is asked for and prints the table."""
    from xdc_jax import results

    rows = {}
    with runs.pinned_pool(JOBS.value) as workers:
        futures = {}
        for seed, method in itertools.product(range(SEEDS.value), RUN.value):
            arg = ",".join(filter(None, (METHODS[method], f"seed={seed}", ARG.value)))
            workdir = str(Path(OUT.value) / f"{method}_{seed}")
            future = workers.submit(
                runs.pretrain, CONFIG.value, arg, DATA.value, workdir
            )
            futures[future] = (RUN.value.index(method), seed)
        for future in concurrent.futures.as_completed(futures):
            rows[futures[future]] = row = future.result()
            print(row, flush=True)
            ordered = [rows[key] for key in sorted(rows)]
            results.write(Path(OUT.value) / "results.json", ordered)
    print(f"\n{results.table(ordered)}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "data", "out"])
    app.run(main)
