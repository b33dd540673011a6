"""Measures what frozen features are worth: linear SVM, retrieval, clusters.

Example:
  xdc evaluate --features=features/esc10

--features is a feature data set that `xdc extract` wrote, or any TFDS data set with the
fields `label` and `video_feature` or `audio_feature` (and `video_id` and `fold`, where
a source has several clips, or the data set folds). With splits train and test, the
second is the test set; with one split and folds, each fold is in turn.

SVM: one-vs-all linear SVMs on standardised features; C is chosen by cross-validation
on training clips; scores are averaged over the clips of a video. R@K: test videos that
have one of their class among the K nearest training videos, by the cosine of their mean
features. NMI, ARI, purity: k-means of the test videos, k being the number of classes.
Prints a table and writes results.json into --out.
"""

from pathlib import Path

from absl import flags

from xdc_jax import results
from xdc_jax.errors import UserError
from xdc_jax.evaluation import protocols
from xdc_jax.evaluation.rows import FeatureRows, divide

MEASURES = {
    "svm": "SVM",
    "svm_clip": "SVM, clips",
    **{f"recall_at_{k}": f"R@{k}" for k in protocols.RECALL_AT},
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("features", None, "Feature data set.", required=True)
    flags.DEFINE_string(
        "out", None, "Folder for results.json; default: that of the features."
    )


def main() -> None:
    """Runs the verb."""
    from data_pipelines import features

    folder = Path(flags.FLAGS.features).expanduser()
    rows = []
    for modality, splits in features.read(folder).items():
        try:
            rows += evaluate(splits, folder.name, modality)
        except UserError as error:
            raise UserError(f"{folder}, {modality} features: {error}") from error
    out = Path(flags.FLAGS.out).expanduser() if flags.FLAGS.out else folder
    results.write(out / "results.json", rows)
    print(results.table(rows, MEASURES, ("data", "modality"), "part"))
    print(f"\n{out / 'results.json'} is written.")


def evaluate(
    splits: dict[str, FeatureRows], data: str, modality: str
) -> list[results.Row]:
    """Returns one row of measures for the test split, or for each fold.

    Args:
        splits: split -> rows.
        data: name of the data set.
        modality: name of the kind of features.

    Raises:
        UserError: the rows cannot be divided into training and test, or lack labels.
    """
    return [
        {
            "data": data,
            "modality": modality,
            "part": part,
            "train_clips": len(train),
            "test_clips": len(test),
            **protocols.linear_svm(train, test),
            **protocols.retrieval(train, test),
            **protocols.clusters(test),
        }
        for part, train, test in divide(splits)
    ]
