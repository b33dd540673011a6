import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from tests.clustering.features import encoder_like
from xdc_jax.clustering import preprocessing
from xdc_jax.errors import UserError


@pytest.mark.parametrize("offset", [0, 100])
def test_whitening_equals_sklearn_up_to_sign(offset):
    x = encoder_like(700, 24) + np.float32(offset)
    ours = np.asarray(preprocessing.pca_whiten(x, 10))
    theirs = PCA(10, whiten=True, svd_solver="full").fit_transform(x.astype(float))
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=2e-3 if offset else 2e-4)


def test_whitened_features_are_uncorrelated_with_variance_one():
    white = np.asarray(preprocessing.pca_whiten(encoder_like(700, 24), 24))
    np.testing.assert_allclose(np.cov(white.T), np.eye(24), atol=1e-3)


def test_directions_without_variance_give_zeros():
    x = np.zeros((50, 6), np.float32)
    x[:, :2] = np.random.default_rng(0).standard_normal((50, 2))
    white = np.asarray(preprocessing.pca_whiten(x, 5))
    np.testing.assert_allclose(white[:, :2].std(axis=0, ddof=1), 1, rtol=1e-4)
    assert not white[:, 2:].any()
    assert not np.asarray(preprocessing.pca_whiten(np.ones((9, 3)), 2)).any()


@pytest.mark.parametrize("dim", [0, 7])
def test_whitening_to_an_impossible_dimension_is_a_user_error(dim):
    with pytest.raises(UserError, match=f"{dim} dimensions asked for; expected 1 to 6"):
        preprocessing.pca_whiten(np.ones((20, 6)), dim)


def test_rows_have_length_one_and_zeros_stay():
    x = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    x[3] = 0
    ours = np.asarray(preprocessing.l2_normalize(x))
    np.testing.assert_allclose(ours, normalize(x), rtol=1e-6)
    assert preprocessing.l2_normalize(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32
