r"""What pretraining is worth: finetuning, classifier, SVM, retrieval; few labels.

Example (after benchmarks.methods with the same --seeds):
  python -m benchmarks.protocols --config=configs/finetune_grid_words.py \
      --data=runs/data/grid_words --runs=runs/grid_words --seeds=3 --jobs=2 \
      --out=runs/protocols/grid_words

--runs holds the workdirs METHOD_SEED of `benchmarks.methods`; `random` ones are the
random weights that "scratch" starts from. For each of them, each modality and each
share of the labels: training of all weights (full), of a linear classifier on the
frozen encoder (fc), a linear SVM on features of centre clips, and retrieval of test
clips among the labelled ones (R@1). Started again, what is finished is not done again.
Prints a table for each modality and writes results.json, which `xdc tables` reads.
"""

import concurrent.futures
import importlib
import itertools
import json
from pathlib import Path

from absl import app, flags

from benchmarks import runs

METHODS = ("random", "supervised", "sdc", "mdc", "cdc", "xdc")
METHODS_SHOWN = {name: number for number, name in enumerate(("scratch", *METHODS[1:]))}
# Share of the labels -> clips of each record per epoch, so that few labels are seen
# often enough.
FRACTIONS = {1.0: 1, 0.1: 4, 0.01: 20}
# A classifier alone needs a high rate, since features of frozen encoders are small.
RATES = {"full": "", "fc_only": "optimizer.lr_head=16,"}

CONFIG = flags.DEFINE_string("config", None, "Finetuning config file.")
DATA = flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
RUNS = flags.DEFINE_string("runs", None, "Folder of the pretraining runs.")
OUT = flags.DEFINE_string("out", None, "Folder of everything that is written.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds 0 to SEEDS - 1.", lower_bound=1)
METHOD = flags.DEFINE_multi_enum("methods", METHODS, METHODS, "Which.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, each on its share of cores.")


def run(config_name: str, data: str, workdir: str, method: str, out: str) -> list[dict]:
    """Does everything for one pretraining run; returns its rows of results."""
    from xdc_jax import finetune, parallel
    from xdc_jax.weights import encoder_dir

    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    get_config = importlib.import_module(config_name).get_config
    rows = []
    for modality in ("video", "audio"):
        saved = encoder_dir.of_run(workdir, modality)
        seed = saved.pretraining["seed"]
        for fraction, train in itertools.product(FRACTIONS, ("full", "fc_only")):
            config = get_config(
                f"modality={modality},train={train},seed={seed},{RATES[train]}"
                f"label_fraction={fraction},clips_per_record={FRACTIONS[fraction]}"
            )
            rows += finetune.finetune(
                config,
                finetune.open_clips(config, data),
                None if method == "random" else saved,
                Path(out) / f"{modality}_{train}_{fraction}",
            )
        rows += frozen(saved, get_config(f"modality={modality}"), data, Path(out))
    return rows


def frozen(saved, config, data: str, out: Path) -> list[dict]:
    """Returns rows of the linear SVM and of retrieval on centre clips."""
    from data_pipelines import features
    from data_pipelines.extraction import PreparedSource
    from data_pipelines.views import Views
    from xdc_jax import evaluate, finetune
    from xdc_jax.extract import Job, extract
    from xdc_jax.weights import starting

    folder = out / f"{config.modality}_features"
    source = PreparedSource(finetune.open_clips(config, data), Views())
    name = Path(data).name
    extract(Job(source, {config.modality: saved}, False, False, 16, folder, name))
    splits = features.read(folder)[config.modality]
    pretraining, seed = saved.pretraining, saved.pretraining["seed"]
    if pretraining["name"] == "random":
        pretraining = {"name": starting.SCRATCH}
    rows = []
    for fraction in FRACTIONS:
        rows += evaluate.evaluate(
            splits,
            name,
            config.modality,
            pretraining=pretraining,
            label_fraction=fraction,
            seed=seed,
        )
    return rows


def table(rows: list[dict], modality: str) -> str:
    """Returns the table of one modality: a line per method, a column per figure."""
    from xdc_jax import results

    merged: dict[tuple, dict] = {}
    for row in rows:
        if row["modality"] != modality:
            continue
        line = merged.setdefault(
            (row["pretraining"], row["seed"]),
            {"pretraining": row["pretraining"], "seed": row["seed"]},
        )
        share = f"{100 * row['label_fraction']:g} %"
        if row["verb"] == "finetune":
            protocol = "full" if row["train"] == "full" else "fc"
            line[f"{protocol} {share}"] = row["video_top1"]
        else:
            line[f"SVM {share}"] = row["svm"]
            line[f"R@1 {share}"] = row["recall_at_1"]
    columns = [
        f"{protocol} {100 * fraction:g} %"
        for protocol in ("full", "fc", "SVM", "R@1")
        for fraction in FRACTIONS
    ]
    lines = sorted(
        merged.values(), key=lambda line: METHODS_SHOWN.get(line["pretraining"], 99)
    )
    measures = dict(zip(columns, columns, strict=True))
    return results.table(lines, measures, ("pretraining",), "seed")


def main(_) -> None:
    """Runs what is asked for and prints the tables."""
    from xdc_jax import results

    name = str(Path(CONFIG.value).with_suffix("")).replace("/", ".")
    rows = []
    with runs.pinned_pool(JOBS.value) as workers:
        futures = []
        for seed, method in itertools.product(range(SEEDS.value), METHOD.value):
            workdir = str(Path(RUNS.value) / f"{method}_{seed}")
            out = str(Path(OUT.value) / f"{method}_{seed}")
            futures.append(workers.submit(run, name, DATA.value, workdir, method, out))
        for future in concurrent.futures.as_completed(futures):
            rows += future.result()
            results.write(Path(OUT.value) / "results.json", rows)
            print(json.dumps(rows[-1]), flush=True)
    for modality in ("video", "audio"):
        print(f"\n{modality}\n\n{table(rows, modality)}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "data", "runs", "out"])
    app.run(main)
