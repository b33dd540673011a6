"""Linear SVM, nearest-neighbour retrieval and clusters on frozen features."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, normalize
from sklearn.svm import LinearSVC

from xdc_jax.clustering import quality
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import FeatureRows, mean_per_group

SVM_C = tuple(10.0**power for power in range(-3, 2))  # for features of length 1
RECALL_AT = (1, 5, 10, 20)
_CV_FOLDS = 3
_QUERIES_AT_ONCE = 256  # bounds the table of similarities


def linear_svm(
    train: FeatureRows, test: FeatureRows, seed: int = 0
) -> dict[str, float]:
    """Trains one-vs-all linear SVMs on standardised features of the training clips.

    The features are divided by the root of their number, so that clips have length 1
    on average and one range of C suits every encoder. C is chosen from `SVM_C` by
    cross-validation on training clips alone, in which all clips of a video are on one
    side. The scores of a test video are the means of those of its clips.

    Returns:
        `svm` and `svm_clip`: share of test videos and of clips that are right; `svm_c`.

    Raises:
        UserError: the training clips have fewer than two classes.
    """
    classes = np.unique(train.label)
    if len(classes) < 2:
        raise UserError(f"found {len(classes)} class in training, expected at least 2")
    svm = make_pipeline(
        StandardScaler(),
        FunctionTransformer(_scaled_by_dimension),
        LinearSVC(C=1.0, random_state=seed),
    )
    first, groups = train.videos()
    per_class = np.unique(train.label[first], return_counts=True)[1].min()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if per_class >= 2:
            folds = StratifiedGroupKFold(
                min(_CV_FOLDS, per_class), shuffle=True, random_state=seed
            )
            search = GridSearchCV(svm, {"linearsvc__C": SVM_C}, cv=folds, n_jobs=-1)
            search.fit(train.features, train.label, groups=groups)
            svm = search.best_estimator_
        else:  # one video of a class: nothing to choose C by
            svm.fit(train.features, train.label)
    scores = svm.decision_function(test.features)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    first, number = test.videos()
    per_video = mean_per_group(scores, number)
    return {
        "svm": _accuracy(classes, per_video, test.label[first]),
        "svm_clip": _accuracy(classes, scores, test.label),
        "svm_c": svm.named_steps["linearsvc"].C,
    }


def _scaled_by_dimension(features: np.ndarray) -> np.ndarray:
    return features / np.sqrt(features.shape[1])


def _accuracy(classes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(classes[scores.argmax(axis=1)] == labels))


def retrieval(
    gallery: FeatureRows, queries: FeatureRows, at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """Looks for test videos among training videos, by cosine of mean features.

    Returns:
        `recall_at_K`: share of test videos that have one of their class among the K
        nearest training videos.
    """
    vectors, labels = [], []
    for rows in (gallery, queries):
        first, number = rows.videos()
        vectors.append(normalize(mean_per_group(rows.features, number)))
        labels.append(rows.label[first])
    nearest = []
    for start in range(0, len(vectors[1]), _QUERIES_AT_ONCE):
        some = vectors[1][start : start + _QUERIES_AT_ONCE]
        order = np.argsort(-some @ vectors[0].T, axis=1, kind="stable")
        nearest.append(order[:, : max(at)])
    right = labels[0][np.concatenate(nearest)] == labels[1][:, np.newaxis]
    return {f"recall_at_{k}": float(right[:, :k].any(axis=1).mean()) for k in at}


def clusters(rows: FeatureRows, seed: int = 0) -> dict[str, float]:
    """Clusters the L2-normalised mean features of videos, k being the classes.

    Returns:
        `nmi`, `ari` and `purity` of the clusters against the labels.
    """
    first, number = rows.videos()
    labels = rows.label[first]
    k = len(np.unique(labels))
    vectors = normalize(mean_per_group(rows.features, number))
    found = KMeans(k, n_init=10, random_state=seed).fit_predict(vectors)
    return {
        "nmi": quality.nmi(found, labels),
        "ari": quality.ari(found, labels),
        "purity": quality.purity(found, labels),
    }
