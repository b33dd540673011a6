import json

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.preprocessing import normalize

from xdc_jax.clustering import assignments, targets
from xdc_jax.config import pretrain_config
from xdc_jax.errors import UserError


def make_features(n=300, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n).astype(np.int32)
    centres = {"video": rng.normal(size=(4, 12)), "audio": rng.normal(size=(4, 20))}
    features = {
        name: (c[truth] * 4 + rng.normal(size=(n, c.shape[1]))).astype(np.float32)
        for name, c in centres.items()
    }
    return features, truth


def cluster(method, mesh, usable=None, **settings):
    config = pretrain_config().clustering
    config.update(k_video=4, k_audio=4, k_joint=4, num_restarts=3, **settings)
    features, truth = make_features()
    usable = np.ones(len(truth), bool) if usable is None else usable
    plan = targets.make_plan(method)
    rows = {name: x[usable] for name, x in features.items()}
    found = assignments.cluster(rows, usable, plan, config, seed=0, mesh=mesh)
    return found, features, truth


def test_joint_clustering_is_of_normalised_features_side_by_side(one_device):
    found, features, _ = cluster("cdc", one_device)
    joint = np.concatenate(
        [normalize(features["video"]), normalize(features["audio"])], 1
    )
    reference = KMeans(4, n_init=10, random_state=0).fit_predict(normalize(joint))
    assert adjusted_rand_score(found.labels["joint"], reference) == 1.0


def test_whitening_comes_before_normalisation(one_device):
    found, features, _ = cluster("xdc", one_device, whiten_dim=3)
    white = normalize(PCA(3, whiten=True).fit_transform(features["video"]))
    reference = KMeans(4, n_init=10, random_state=0).fit(white)
    assert adjusted_rand_score(found.labels["video"], reference.labels_) == 1.0
    inertia = found.metrics["cluster/video/inertia"]
    np.testing.assert_allclose(inertia, reference.inertia_, rtol=1e-4)
    np.testing.assert_allclose(found.distances["video"].sum(), inertia, rtol=1e-3)


def test_clips_that_cannot_be_used_are_not_clustered(one_device):
    usable = np.arange(300) % 3 != 0
    found, _, truth = cluster("xdc", one_device, usable)
    labels = found.labels["audio"]
    assert (labels[~usable] == -1).all()
    assert np.isinf(found.distances["audio"][~usable]).all()
    assert adjusted_rand_score(labels[usable], truth[usable]) == 1.0
    with pytest.raises(UserError, match="k = 4 video clusters, but only 3 clips"):
        cluster("xdc", one_device, np.arange(300) < 3)


def test_compare_equals_scikit_learn(one_device):
    found, _, truth = cluster("xdc", one_device, whiten_dim=3)
    before, _, _ = cluster("xdc", one_device, l2_normalize=False)
    truth = truth.copy()
    truth[::5] = -1
    known = truth >= 0
    metrics = assignments.compare(found, before, truth)
    video, audio = found.labels["video"], found.labels["audio"]
    expected = {
        "nmi/video/previous": normalized_mutual_info_score(
            video, before.labels["video"]
        ),
        "nmi/video/labels": normalized_mutual_info_score(video[known], truth[known]),
        "nmi/video/audio": normalized_mutual_info_score(video, audio),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-6)
    unlabelled = assignments.compare(found, None, np.full(300, -1))
    assert set(unlabelled) == {"nmi/video/audio"}


def test_saved_assignments_are_read_back_and_damage_is_an_error(one_device, tmp_path):
    found, _, _ = cluster("xdc", one_device)
    file = assignments.path(tmp_path, 3)
    assignments.save(file, found)
    again = assignments.load(file)
    assert json.dumps(again.metrics) == json.dumps(found.metrics)
    for name in found.labels:
        np.testing.assert_array_equal(again.labels[name], found.labels[name])
        np.testing.assert_array_equal(again.distances[name], found.distances[name])
    assert [path.name for path in file.parent.iterdir()] == ["iteration_3.npz"]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"iteration_3\.npz: .* cannot be read"):
        assignments.load(file)
