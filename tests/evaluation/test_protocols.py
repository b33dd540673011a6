"""Linear SVM, retrieval and clusters on made-up features, against plain loops."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from xdc_jax.errors import UserError
from xdc_jax.evaluation import protocols
from xdc_jax.evaluation.rows import FeatureRows, divide, mean_per_group


def make_rows(seed, videos=60, clips=3, classes=4, spread=2.0, prefix="v"):
    """Rows of several clips per video; a third of each feature is the class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, 12))
    video = np.repeat(np.arange(videos), clips)
    label = (np.arange(videos) % classes)[video]
    features = centres[label] + spread * rng.normal(size=(len(video), 12))
    order = rng.permutation(len(video))
    return FeatureRows(
        features=features[order].astype(np.float32),
        label=label[order],
        fold=video[order] % 3,
        video_id=np.array([f"{prefix}{i}" for i in video[order]]),
    )


def test_svm_equals_scikit_learn_at_the_c_it_chose_and_a_loop_over_videos():
    train, test = make_rows(1), make_rows(2, prefix="t")
    found = protocols.linear_svm(train, test)
    scaler = StandardScaler().fit(train.features)
    svm = LinearSVC(C=found["svm_c"], random_state=0)
    svm.fit(scaler.transform(train.features) / np.sqrt(12), train.label)
    scores = svm.decision_function(scaler.transform(test.features) / np.sqrt(12))
    assert found["svm_clip"] == np.mean(scores.argmax(1) == test.label)
    right = []
    for video in sorted(set(test.video_id)):
        mine = test.video_id == video
        right.append(scores[mine].mean(0).argmax() == test.label[mine][0])
    assert found["svm"] == np.mean(right)
    assert found["svm"] > found["svm_clip"]


def test_c_is_chosen_on_training_videos_alone():
    train = make_rows(1)
    chosen = set()
    for seed in range(5):
        test = make_rows(seed + 10, spread=0.1 + 3 * seed, prefix="t")
        chosen.add(protocols.linear_svm(train, test)["svm_c"])
    assert len(chosen) == 1


def test_two_classes_have_one_score_each():
    train, test = make_rows(1, classes=2), make_rows(2, classes=2, prefix="t")
    assert protocols.linear_svm(train, test)["svm"] > 0.8


def test_retrieval_equals_a_naive_loop():
    gallery, queries = make_rows(1), make_rows(2, prefix="t")

    def videos(rows):
        for name in sorted(set(rows.video_id)):
            mine = rows.video_id == name
            mean = rows.features[mine].astype(np.float64).mean(0)
            yield mean / np.linalg.norm(mean), rows.label[mine][0]

    found = protocols.retrieval(gallery, queries)
    for k in (1, 5, 10, 20):
        hits = []
        for vector, label in videos(queries):
            ranked = sorted(videos(gallery), key=lambda other: -(vector @ other[0]))
            hits.append(any(other == label for _, other in ranked[:k]))
        assert found[f"recall_at_{k}"] == np.mean(hits)


def test_clusters_of_separate_classes_are_pure():
    rows = make_rows(1, spread=0.01)
    assert protocols.clusters(rows) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}


def test_means_per_video():
    values = np.array([[1.0], [2.0], [5.0]])
    found = mean_per_group(values, np.array([1, 0, 1]))
    np.testing.assert_array_equal(found, [[2.0], [3.0]])


def test_folds_are_test_sets_in_turn_and_never_share_a_video():
    rows = make_rows(1)
    parts = list(divide({"train": rows}))
    assert [name for name, _, _ in parts] == ["fold 0", "fold 1", "fold 2"]
    for _, train, test in parts:
        assert len(train) + len(test) == len(rows)
        assert not set(train.video_id) & set(test.video_id)
        assert len(np.unique(test.fold)) == 1


def test_rows_without_label_or_features_are_left_out():
    train, test = make_rows(1), make_rows(2, prefix="t")
    train.label[:5] = -1
    train.features[5:8] = np.nan
    ((_, found, _),) = divide({"train": train, "test": test})
    assert len(found) == len(train) - 8


def test_bad_divisions():
    rows = make_rows(1)
    with pytest.raises(UserError, match="60 videos are in both training and test"):
        list(divide({"train": rows, "test": rows}))
    rows.fold[:] = -1
    with pytest.raises(UserError, match="found splits train and no folds"):
        list(divide({"train": rows}))
    unlabelled = make_rows(2, prefix="t")
    unlabelled.label[:] = -1
    with pytest.raises(UserError, match="no test clip with label and features"):
        list(divide({"train": rows, "test": unlabelled}))
    rows.label[:] = 1
    with pytest.raises(UserError, match="found 1 class in training"):
        protocols.linear_svm(rows, rows)
