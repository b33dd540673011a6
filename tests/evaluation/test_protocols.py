"""Linear SVM, retrieval and clusters on made-up features, against plain loops."""

import dataclasses

import joblib
import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tests.evaluation.rows import make_rows
from xdc_jax.errors import UserError
from xdc_jax.evaluation import protocols


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


def test_one_class():
    rows = make_rows(1)
    rows.label[:] = 1
    with pytest.raises(UserError, match="found 1 class in training"):
        protocols.linear_svm(rows, rows)


def test_no_fit_sees_a_test_row(monkeypatch):
    """Every fit, those of the search for C included, is of training rows alone."""
    train, test = make_rows(1), make_rows(2, prefix="t")
    fits = []
    fit = LinearSVC.fit

    def spy(self, features, label):
        fits.append((self.C, np.array(features), np.array(label)))
        return fit(self, features, label)

    scalings = []
    scale = StandardScaler.fit

    def spy_scale(self, features, label=None):
        scalings.append({row.tobytes() for row in np.float32(features)})
        return scale(self, features, label)

    monkeypatch.setattr(LinearSVC, "fit", spy)
    monkeypatch.setattr(StandardScaler, "fit", spy_scale)
    with joblib.parallel_config(backend="threading"):
        first = protocols.linear_svm(train, test)
        assert len(fits) == len(scalings) == 3 * len(protocols.SVM_C) + 1
        assert {c for c, _, _ in fits} == set(protocols.SVM_C)
        seen = set().union(*scalings)
        assert seen == {row.tobytes() for row in train.features}
        assert not seen & {row.tobytes() for row in test.features}
        # In the search a video is left out as a whole: by its rows, in every fit.
        for rows in scalings[:-1]:
            for video in set(train.video_id):
                mine = train.features[train.video_id == video]
                assert len({row.tobytes() in rows for row in mine}) == 1
        before = sorted((c, x.tobytes(), y.tobytes()) for c, x, y in fits)
        fits.clear()
        other = dataclasses.replace(
            test, features=test.features[::-1] * 1e6, label=(test.label + 1) % 4
        )
        second = protocols.linear_svm(train, other)
    assert second["svm_c"] == first["svm_c"]
    assert sorted((c, x.tobytes(), y.tobytes()) for c, x, y in fits) == before


def test_c_is_that_of_a_loop_over_folds_of_videos():
    train, test = make_rows(3, spread=6.0), make_rows(4, prefix="t")
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    groups = np.unique(train.video_id, return_inverse=True)[1]
    means = []
    for c in protocols.SVM_C:
        scores = []
        for fit, held_out in folds.split(train.features, train.label, groups):
            assert not set(groups[fit]) & set(groups[held_out])
            scaler = StandardScaler().fit(train.features[fit])
            x = scaler.transform(train.features) / np.sqrt(12)
            svm = LinearSVC(C=c, random_state=0).fit(x[fit], train.label[fit])
            scores.append(svm.score(x[held_out], train.label[held_out]))
        means.append(np.mean(scores))
    chosen = protocols.SVM_C[int(np.argmax(means))]
    assert protocols.linear_svm(train, test)["svm_c"] == chosen


@pytest.mark.parametrize("classes", [2, 5])
def test_video_scores_are_means_of_clip_scores(classes, monkeypatch):
    """Made-up scores, averaged by a plain loop; clips of a video are scattered."""
    train = make_rows(1, classes=classes)
    test = make_rows(2, videos=31, clips=7, classes=classes, prefix="t")
    shape = (len(test),) if classes == 2 else (len(test), classes)
    scores = np.random.default_rng(5).standard_t(1.5, size=shape)
    original = LinearSVC.decision_function

    def made_up(self, features):
        return scores if len(features) == len(test) else original(self, features)

    monkeypatch.setattr(LinearSVC, "decision_function", made_up)
    with joblib.parallel_config(backend="threading"):
        found = protocols.linear_svm(train, test)
    right = []
    for video in sorted(set(test.video_id)):
        total, clips = 0, 0
        for i, name in enumerate(test.video_id):
            if name == video:
                total, clips, label = total + scores[i], clips + 1, test.label[i]
        mean = total / clips
        best = int(mean > 0) if classes == 2 else int(np.argmax(mean))
        right.append(best == label)
    assert found["svm"] == np.mean(right)
    assert found["svm"] != found["svm_clip"]


def test_many_queries_are_looked_up_in_turns(monkeypatch):
    gallery, queries = make_rows(1), make_rows(2, prefix="t")
    whole = protocols.retrieval(gallery, queries)
    monkeypatch.setattr(protocols, "_QUERIES_AT_ONCE", 7)
    assert protocols.retrieval(gallery, queries) == whole
