r"""Measures what frozen features are worth: linear SVM, retrieval, clusters.

Examples:
  xdc evaluate --features=features/ucf101 --parts=1
  xdc evaluate --features=features/esc50 --label_fraction=0.1 --seed=3 --out=few
  xdc evaluate --features=features/kinetics --clusters=128
  xdc evaluate --features=features/thumos14 --gtad_out=gtad/data/thumos_feature/xdc \
      --gtad_annotations=gtad/data/thumos_annotations

--features is a feature data set that `xdc extract` wrote, or any TFDS data set with the
fields `label` and `video_feature` or `audio_feature` (and `video_id`, `fold` and
`partitions`, where a source has several clips, or the data set folds or official
splits). One split with official partitions is evaluated on each, as parts `split 1`,
`split 2`, ...; one split with folds on each fold; splits train and test, train and val,
or val and test are one part, of which the second is the test set.

SVM: one-vs-all linear SVMs on standardised features; C is chosen by cross-validation
on training clips; scores are averaged over the clips of a video. R@K: test videos that
have one of their class among the K nearest training videos, by the cosine of their mean
features. NMI, ARI, purity: k-means of the test videos, k being the number of classes.
Prints a table, means and standard deviations over the parts, and writes results.json
into --out. With --label_fraction, SVM and retrieval see only that share of the training
videos of each class.

--clusters=K also clusters the labelled videos (of split train where there is one, else
all), prints the purest and the least pure clusters, with their labels and with the
words of class names that are frequent there, and writes clusters.csv (all clusters) and
cluster_videos.csv (the cluster of each video) beside results.json.

The paper's audio protocol, 2-second clips, ten of each recording of ESC-50 and sixty of
DCASE (a record must hold a whole recording, hence --segment_s; --feature_map, in place
of the pooled feature, takes the last map):
  xdc prepare --dataset=esc50 --data_dir=ESC-50 --out=data/esc50
  xdc extract --workdir=runs/xdc --modality=audio --data=data/esc50 --clips=10 \
      --per_clip --window_s=2 --feature_map --out=features/esc50
  xdc evaluate --features=features/esc50
  xdc prepare --dataset=dcase2014 --data_dir=DCASE --segment_s=60 --out=data/dcase2014
  xdc extract --workdir=runs/xdc --modality=audio --data=data/dcase2014 --clips=60 \
      --per_clip --window_s=2 --feature_map --out=features/dcase2014
  xdc evaluate --features=features/dcase2014

--gtad_out, instead of all this, writes windows of THUMOS14 (`xdc extract --stride_s`)
as G-TAD reads them, one row per frame; run it with --feat_dim=512 and --feature_path.
Windows of about half a second every 5 frames suit its --skip_videoframes=5:
  xdc extract --weights=r2plus1d_18_xdc_audioset --data=data/thumos14 --window_s=0.5 \
      --stride_s=0.1666667 --out=features/thumos14
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from xdc_jax import results
from xdc_jax.errors import UserError
from xdc_jax.evaluation import cluster_table, gtad, protocols
from xdc_jax.evaluation.few_labels import few_labels
from xdc_jax.evaluation.rows import FeatureRows, divide
from xdc_jax.files import local

MEASURES = {
    "svm": "SVM",
    "svm_clip": "SVM, clips",
    **{f"recall_at_{k}": f"R@{k}" for k in protocols.RECALL_AT},
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}
# What rows say of how the clips were cut.
HOW = (
    "num_frames",
    "crop_size",
    "clips_per_record",
    "crops",
    "clip_s",
    "feature_map",
)


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("features", None, "Feature data set.", required=True)
    flags.DEFINE_string(
        "out", None, "Folder for results.json; default: that of the features."
    )
    flags.DEFINE_string("parts", "all", "Or some official splits or folds: 1+3.")
    flags.DEFINE_float(
        "label_fraction", 1.0, "Share of the training videos of each class."
    )
    flags.DEFINE_integer("seed", 0, "Of that share, of the SVMs and of k-means.", 0)
    flags.DEFINE_integer("clusters", 0, "Describe so many clusters; 0: none.", 0)
    flags.DEFINE_string("gtad_out", None, "Folder for the files of G-TAD.")
    flags.DEFINE_string("gtad_annotations", None, "G-TAD's data/thumos_annotations.")


def main() -> None:
    """Runs the verb."""
    from data_pipelines import features

    args = flags.FLAGS
    folder = local(args.features, "features")
    if (args.gtad_out is None) != (args.gtad_annotations is None):
        raise UserError("give both --gtad_out and --gtad_annotations, or neither")
    if args.gtad_out is not None:
        _write_gtad(folder, args.gtad_annotations, args.gtad_out)
        return
    out = local(args.out, "out") if args.out else folder
    about = features.read_request(folder).get("about", {})
    data = about.get("data") or folder.absolute().name
    how = {key: about.get(key) for key in HOW}
    rows, clusterings = [], {}
    for modality, splits in features.read(folder).items():
        try:
            found = evaluate(
                splits,
                data,
                modality,
                pretraining=about.get("pretraining", {}).get(modality, {}),
                parts=args.parts,
                label_fraction=args.label_fraction,
                seed=args.seed,
            )
            rows += [{**how, **row} for row in found]
            if args.clusters:
                names = features.class_names(folder)
                clusterings[modality] = cluster_table.cluster_videos(
                    splits, args.clusters, names, args.seed
                )
        except UserError as error:
            raise UserError(f"{folder}, {modality} features: {error}") from error
    results.write(out / "results.json", rows)
    print(results.table(rows, MEASURES, ("data", "modality"), "part"))
    print(f"\n{out / 'results.json'} is written.")
    if clusterings:
        cluster_table.write(out, clusterings)
        for modality, clustering in clusterings.items():
            print(f"\n{cluster_table.table(clustering, modality)}")
        files = f"{cluster_table.CLUSTERS_FILE} and {cluster_table.VIDEOS_FILE}"
        print(f"\n{files} are written into {out}.")


def _write_gtad(folder: Path, annotations: str, out: str) -> None:
    from data_pipelines import features

    counts, missing = gtad.write(
        features.read_windows(folder),
        Path(annotations).expanduser(),
        Path(out).expanduser(),
    )
    print(f"{out}: {counts['val']} videos of val, {counts['test']} of test")
    if missing:
        print(
            f"{len(missing)} annotated videos have no features, such as {missing[0]}: "
            "G-TAD stops at these until their lines are out of its lists"
        )


def evaluate(
    splits: Mapping[str, FeatureRows],
    data: str,
    modality: str,
    *,
    pretraining: Mapping[str, Any] | None = None,
    parts: str = "all",
    label_fraction: float = 1.0,
    seed: int = 0,
) -> list[results.Row]:
    """Returns one row of measures for each part.

    Args:
        splits: split -> rows.
        data: name of the data set.
        modality: name of the kind of features.
        pretraining: `SavedEncoder.pretraining`, as far as it is known.
        parts: `all`, or numbers of official splits or folds, such as `1+3`.
        label_fraction: share of the training videos of each class that the SVMs and
            retrieval see.
        seed: of that share, of the SVMs and of k-means.

    Raises:
        UserError: the rows cannot be divided into training and test, or lack labels.
    """
    pretraining = pretraining or {}
    rows = []
    for part, train, test in divide(splits, parts):
        train = train.where(
            few_labels(train.label, train.video_id, label_fraction, seed)
        )
        rows.append(
            {
                "verb": "evaluate",
                "data": data,
                "part": part,
                "modality": modality,
                "pretraining": pretraining.get("name"),
                "k_video": pretraining.get("k_video"),
                "k_audio": pretraining.get("k_audio"),
                "pretraining_seed": pretraining.get("seed"),
                "seed": seed,
                "label_fraction": label_fraction,
                "train_clips": len(train),
                "test_clips": len(test),
                **protocols.linear_svm(train, test, seed),
                **protocols.retrieval(train, test),
                **protocols.clusters(test, seed),
            }
        )
    return rows
