r"""XDC with different numbers of clusters, of both modalities and of each.

Example:
  python -m benchmarks.num_clusters --config=configs/grid_words.py \
      --data=runs/data/grid_words --out=runs/num_clusters/grid_words --jobs=2

Each run has a workdir of its own in --out; started again, finished runs are not done
again and an interrupted one goes on. Prints a table of the probes, and draws them into
num_clusters.png, with results.json beside it.
"""

import concurrent.futures
import itertools
from pathlib import Path

from absl import app, flags

from benchmarks import runs

EQUAL = (8, 16, 32, 64, 128, 256)
# Of video and of audio. The authors' Kinetics gallery has 64 and 128.
SPLIT = ((16, 64), (32, 128), (64, 16), (128, 32))

CONFIG = flags.DEFINE_string("config", None, "Config file, without arguments.")
DATA = flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
OUT = flags.DEFINE_string("out", None, "Folder of the workdirs.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds 0 to SEEDS - 1.", lower_bound=1)
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time, each on its share of cores.")


def draw(rows: list[dict], file: Path) -> None:
    """Draws the probes against the number of clusters of both modalities."""
    import numpy as np
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for axis, modality in zip(axes, ("video", "audio"), strict=True):
        key = f"{modality}_probe"
        found = {k: [r[key] for r in rows if r["k"] == f"{k}"] for k in EQUAL}
        found = {k: values for k, values in found.items() if values}
        spread = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in found.values()]
        means = [np.mean(values) for values in found.values()]
        axis.errorbar([*found], means, spread, marker="o", label="k of both")
        for video, audio in SPLIT:
            values = [r[key] for r in rows if r["k"] == f"{video} / {audio}"]
            if values:
                # An encoder learns to tell the clusters of the other modality.
                learned = audio if modality == "video" else video
                point = (learned, np.mean(values))
                axis.plot(*point, "s", color="tab:orange")
                axis.annotate(
                    f"{video} / {audio}", point, (6, 0), textcoords="offset points"
                )
        axis.plot([], [], "s", color="tab:orange", label="k of video / audio")
        axis.set_xscale("log", base=2)
        axis.set_xticks(EQUAL, map(str, EQUAL))
        axis.set(title=f"{modality} probe accuracy", xlabel="clusters to be told apart")
        axis.grid(alpha=0.3)
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(_) -> None:
    """Runs everything and prints the table."""
    from xdc_jax import results

    out = Path(OUT.value)
    numbers = [(k, k) for k in EQUAL] + list(SPLIT)
    rows = {}
    with runs.pinned_pool(JOBS.value) as workers:
        futures = {}
        for seed, (video, audio) in itertools.product(range(SEEDS.value), numbers):
            arg = f"clustering.k_video={video},clustering.k_audio={audio},seed={seed}"
            workdir = str(out / f"video{video}_audio{audio}_{seed}")
            future = workers.submit(
                runs.pretrain, CONFIG.value, arg, DATA.value, workdir
            )
            name = f"{video}" if video == audio else f"{video} / {audio}"
            futures[future] = (numbers.index((video, audio)), seed, name)
        for future in concurrent.futures.as_completed(futures):
            place, seed, name = futures[future]
            rows[place, seed] = {**future.result(), "k": name}
            print(rows[place, seed], flush=True)
            results.write(out / "results.json", [rows[key] for key in sorted(rows)])
    ordered = [rows[key] for key in sorted(rows)]
    draw(ordered, out / "num_clusters.png")
    print(f"\n{results.table(ordered, group_by=('data', 'k'))}")
    print(f"\n{out / 'num_clusters.png'} is written.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "data", "out"])
    app.run(main)
