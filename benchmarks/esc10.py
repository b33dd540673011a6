r"""Environmental sounds: linear SVM on features of an audio encoder, 5 folds of ESC-10.

Example:
  python benchmarks/esc10.py --data_dir=../shared/data/esc10 \
      --workdirs=$(echo runs/grid_words/{random,xdc}_{0,1,2} | tr " " ,) \
      --out=runs/esc10

--data_dir is ESC-50's layout: meta/*.csv and audio files in the same folder or audio/.
Features of each run's audio encoder, and log-mel spectrograms as they are (with the
front end of the last run), with one clip per recording and with ten: ten training
examples, and in testing the mean of their scores. Prints one table; runs of the same
method share a line, with the spread over folds and runs.
"""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
from absl import app, flags, logging

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of ESC-10 or ESC-50.")
WORKDIRS = flags.DEFINE_list("workdirs", None, "Runs of `xdc pretrain`.")
OUT = flags.DEFINE_string("out", None, "Folder of the prepared data and features.")
CLIPS = (1, 10)
SHOWN = ("svm", "svm_clip", "recall_at_1", "nmi")


def write_manifest(data_dir: Path, path: Path) -> None:
    """Writes the manifest of the recordings: their class and their fold."""
    (meta,) = (data_dir / "meta").glob("*.csv")
    files = {file.stem: file for file in data_dir.rglob("*.flac")}
    files |= {file.stem: file for file in data_dir.rglob("*.wav")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with meta.open(newline="") as source, path.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(("path", "label", "fold"))
        for row in csv.DictReader(source):
            file = files[Path(row["filename"]).stem].absolute()
            writer.writerow((file, row["category"], row["fold"]))


def log_mels(clips, views):
    """Returns the log-mel spectrograms of the views as feature rows."""
    from xdc_jax.evaluation.rows import FeatureRows

    index = clips.index("train")
    found = []
    for batch in clips.view_batches(
        "train", views, batch_size=64, clip_ids=range(len(index))
    ):
        found.append(batch["audio"][batch["mask"]])
    features = np.concatenate(found)
    record = np.repeat(np.arange(len(index)), views.clips)
    return FeatureRows(
        features.reshape(len(features), -1),
        index.label[record],
        index.fold[record],
        index.video_id[record],
    )


def main(_) -> None:
    """Runs everything and prints the table."""
    from data_pipelines import clips as clips_lib
    from data_pipelines import features, media, prepare, shards, sources
    from data_pipelines.extraction import PreparedSource
    from data_pipelines.views import Views
    from xdc_jax import evaluate, parallel, results
    from xdc_jax.extract import Job, extract
    from xdc_jax.weights import encoder_dir

    logging.set_verbosity(logging.WARNING)  # Orbax logs every file
    parallel.enable_compilation_cache()
    out = Path(OUT.value)
    manifest = out / "manifest.csv"
    write_manifest(Path(DATA_DIR.value), manifest)
    source = sources.manifest_source(manifest)
    prepare.prepare(source, out / "data", media.Settings(), num_workers=2)
    prepared = shards.open_prepared(out / "data")
    rows = []
    for workdir in map(Path, WORKDIRS.value):
        encoder = encoder_dir.of_run(workdir, "audio")
        spec = clips_lib.ClipSpec(**encoder.clip)
        clips = clips_lib.ClipData(prepared, spec, seed=0)
        (run,) = json.loads((workdir / "results.json").read_text())["rows"]
        for count in CLIPS:
            folder = out / f"{workdir.name}_{count}"
            views = Views(clips=count)
            source = PreparedSource(clips, views)
            extract(Job(source, {"audio": encoder}, True, False, 64, folder))
            splits = features.read(folder)["audio"]
            rows += evaluate.evaluate(splits, f"clips: {count}", run["method"])
    for count in CLIPS:  # with the front end of the last run
        plain = dataclasses.replace(spec, freq_mask=0, time_mask=0)
        clips = clips_lib.ClipData(prepared, plain, seed=0)
        splits = {"train": log_mels(clips, Views(clips=count))}
        rows += evaluate.evaluate(splits, f"clips: {count}", "log-mel")
    results.write(out / "results.json", rows)
    measures = {key: evaluate.MEASURES[key] for key in SHOWN}
    print(results.table(rows, measures, ("modality", "data"), "part"))


if __name__ == "__main__":
    flags.mark_flags_as_required(["data_dir", "workdirs", "out"])
    app.run(main)
