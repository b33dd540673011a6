"""Shows XDC work, in minutes, on a small audio-visual set that it makes itself.

Example:
  xdc demo --out=runs/demo

Makes `digits_tones` (moving handwritten digits with telephone-keypad tones), runs
random encoders, single-modality clustering (SDC) and cross-modal clustering (XDC), and
probes their features. Writes results.json, progress.png and clusters.png into --out. A
second start goes on where the first one stopped.
"""

from pathlib import Path

import numpy as np
from absl import flags

from configs import digits_tones
from xdc_jax import figures, parallel, results
from xdc_jax.clustering import assignments
from xdc_jax.pretrain import pretrain

RUNS = {
    "random": "method=xdc,iterations=0",
    "sdc": "method=sdc",
    "xdc": "method=xdc",
}


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("out", "runs/demo", "Folder of everything the demo writes.")


def main() -> None:
    """Runs the verb."""
    from data_pipelines import clips as clips_lib
    from data_pipelines import prepare, shards

    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    out = Path(flags.FLAGS.out)
    data_dir = out / "digits_tones"
    prepare.prepare_dataset("digits_tones", data_dir)
    prepared = shards.open_prepared(data_dir)
    rows, workdirs = [], {}
    for name, arg in RUNS.items():
        print(f"\n{name}: {digits_tones.__name__}:{arg}", flush=True)
        config = digits_tones.get_config(arg)
        clips = clips_lib.ClipData(
            prepared, clips_lib.ClipSpec(**config.clip), config.seed
        )
        workdirs[name] = out / name
        rows.append(pretrain(config, clips, workdirs[name]))
    results.write(out / "results.json", rows)
    figures.by_iteration(
        {name: workdirs[name] for name in ("sdc", "xdc")}, out / "progress.png"
    )
    _draw_clusters(clips, workdirs["xdc"], config.iterations, out / "clusters.png")
    print(f"\n{results.table(rows)}\n")
    print(f"{out}/results.json, progress.png and clusters.png are written.")


def _draw_clusters(clips, workdir: Path, iteration: int, file: Path) -> None:
    """Draws the clips nearest to the centroids of the largest audio clusters."""
    found = assignments.load(assignments.path(workdir, iteration))
    nearest = figures.nearest_clips(
        found.distances["audio"], found.labels["audio"], num_clusters=8, num_clips=10
    )
    ids = np.concatenate(nearest)
    pictures = {}
    for batch in clips.eval_batches("train", batch_size=len(ids), clip_ids=ids):
        middle = batch["video"].shape[1] // 2
        pictures.update(zip(batch["clip_id"], batch["video"][:, middle], strict=True))
    figures.centroids_grid(
        [np.stack([pictures[i] for i in members]) for members in nearest],
        "Clips nearest to 8 audio centroids of XDC: they sound alike; they look alike",
        file,
    )
