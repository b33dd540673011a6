import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.cluster import KMeans as SklearnKMeans

from tests.clustering.features import encoder_like, separated
from xdc_jax.clustering import kmeans, lloyd
from xdc_jax.errors import UserError
from xdc_jax.parallel import make_mesh


def numpy_lloyd(x, centroids, num_iters):
    """Lloyd's algorithm in float64 with the full table of distances."""
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    for _ in range(num_iters):
        labels = numpy_distances(x, centroids).argmin(axis=1)
        centroids = np.stack(
            [
                x[labels == j].mean(axis=0) if (labels == j).any() else centroids[j]
                for j in range(len(centroids))
            ]
        )
    return centroids


def numpy_distances(x, centroids):
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    return ((x[:, None] - centroids) ** 2).sum(axis=2)


def check_consistent(result, x):
    """Assignments, inertia and sizes belong to the centroids, by NumPy."""
    distances = numpy_distances(x, result.centroids)
    chosen = distances[np.arange(len(x)), result.assignments]
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.inertia, chosen.sum(), rtol=1e-5, atol=1e-6)
    k = len(result.centroids)
    assert result.sizes.tolist() == np.bincount(result.assignments, None, k).tolist()
    assert result.assignments.dtype == result.sizes.dtype == np.int32
    assert result.centroids.dtype == np.float32


@pytest.mark.parametrize(("n", "d", "k"), [(1000, 16, 10), (20, 8, 20)])
def test_equals_a_numpy_loop_from_the_same_start(n, d, k):
    x = encoder_like(n, d)
    init = x[:k]
    ours = kmeans.fit(x, k, seed=0, init=init, max_iters=7, tol=0.0)
    expected = numpy_lloyd(x, init, ours.num_iters)
    np.testing.assert_allclose(ours.centroids, expected, atol=1e-5)
    check_consistent(ours, x)


def test_same_inertia_as_sklearn_from_the_same_start():
    x = encoder_like(5000, 64)
    init = x[:50]
    ours = kmeans.fit(x, 50, seed=0, init=init, max_iters=300, tol=0.0)
    theirs = SklearnKMeans(50, init=init, max_iter=300, tol=0.0, n_init=1).fit(x)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-5)
    assert ours.num_iters == pytest.approx(theirs.n_iter_, abs=1)


def test_same_assignments_as_sklearn_on_separated_data():
    x, init, label = separated(900, 16, 9)
    ours = kmeans.fit(x, 9, seed=0, init=init)
    theirs = SklearnKMeans(9, init=init, n_init=1).fit(x)
    np.testing.assert_array_equal(ours.assignments, theirs.labels_)
    np.testing.assert_array_equal(ours.assignments, label)
    found = kmeans.fit(x, 9, seed=0)  # its own start finds the clusters too
    assert found.inertia == pytest.approx(theirs.inertia_, rel=1e-5)


def test_far_from_the_origin_no_digits_are_lost():
    x = encoder_like(1000, 16)
    near = kmeans.fit(x, 10, seed=0, init=x[:10], tol=0.0)
    far = kmeans.fit(x + 300, 10, seed=0, init=x[:10] + 300, tol=0.0)
    assert (near.assignments == far.assignments).mean() > 0.98
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)


@pytest.mark.parametrize(
    ("n", "d", "k", "sizes"),
    [(4096, 64, 33, (1, 2, 8)), (1000, 16, 10, (1, 8)), (7, 8, 3, (1, 8))],
)
def test_any_number_of_devices_gives_the_same_bits(n, d, k, sizes):
    x = encoder_like(n, d)
    results = [
        kmeans.fit(x, k, seed=1, mesh=make_mesh(jax.devices()[:size]), tol=0.0)
        for size in sizes
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].assignments, other.assignments)
        np.testing.assert_array_equal(results[0].centroids, other.centroids)
        assert results[0].num_iters == other.num_iters


def test_a_number_of_devices_that_does_not_divide_the_lanes():
    x = encoder_like(1000, 16)
    one = kmeans.fit(x, 10, seed=1)
    three = kmeans.fit(x, 10, seed=1, mesh=make_mesh(jax.devices()[:3]))
    assert three.inertia == pytest.approx(one.inertia, rel=1e-5)
    assert (three.assignments == one.assignments).mean() > 0.99


@pytest.mark.parametrize("batch_size", [None, 300])
def test_features_sharded_over_the_mesh_are_taken_as_they_are(
    eight_devices, batch_size
):
    x = encoder_like(1000, 16)
    sharded = jax.device_put(x, NamedSharding(eight_devices, P("data")))
    settings = {"seed": 0, "mesh": eight_devices, "batch_size": batch_size}
    from_numpy = kmeans.fit(x, 10, **settings)
    from_jax = kmeans.fit(sharded, 10, **settings)
    np.testing.assert_array_equal(from_numpy.assignments, from_jax.assignments)
    np.testing.assert_array_equal(from_numpy.centroids, from_jax.centroids)


def test_assign_gives_nearest_centroids_and_squared_distances(eight_devices):
    x, centroids = encoder_like(1001, 24), encoder_like(13, 24, seed=1)
    expected = numpy_distances(x, centroids)
    for mesh in (None, eight_devices):
        labels, squared = kmeans.assign(x, centroids, mesh)
        np.testing.assert_array_equal(labels, expected.argmin(axis=1))
        np.testing.assert_allclose(squared, expected.min(axis=1), rtol=1e-4)


def test_empty_clusters_are_counted_and_repaired():
    x = encoder_like(1000, 16)
    init = np.concatenate([x[:6], np.full((4, 16), 1e3, np.float32)])
    result = kmeans.fit(x, 10, seed=0, init=init)
    assert result.num_reseeded >= 4
    assert result.sizes.min() > 0
    check_consistent(result, x)
    good = kmeans.fit(x, 10, seed=0)
    assert result.inertia < 1.1 * good.inertia
    again = kmeans.fit(x, 10, seed=0, init=init)
    np.testing.assert_array_equal(again.assignments, result.assignments)


@pytest.mark.parametrize("batch_size", [None, 40])
def test_fewer_distinct_rows_than_clusters(batch_size):
    x = np.repeat(encoder_like(3, 8), 50, axis=0)
    result = kmeans.fit(x, 10, seed=0, batch_size=batch_size, max_iters=20)
    assert (result.sizes > 0).sum() >= 3
    assert (result.sizes == 0).any()
    assert result.inertia == pytest.approx(0, abs=1e-6)
    assert len(np.unique(result.assignments[::50])) == 3


def test_all_rows_the_same():
    result = kmeans.fit(np.ones((64, 4), np.float32), 4, seed=0)
    assert result.inertia == pytest.approx(0, abs=1e-6)
    assert result.num_iters < 10
    assert np.isfinite(result.centroids).all()


def test_a_cluster_is_split_along_the_given_direction():
    centroids = np.array([[0.0, 0.0], [5.0, 5.0], [9.0, 9.0]], np.float32)
    directions = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    counts = np.array([0.0, 7.0, 3.0], np.float32)
    split, empty = lloyd.split_largest(centroids, counts, 4.0, directions)
    assert empty == 1
    np.testing.assert_allclose(split, [[5, 5.02], [5, 5], [9, 9]], rtol=1e-6)


def test_more_restarts_are_never_worse():
    x = encoder_like(1000, 16)
    inertias = [
        kmeans.fit(x, 10, seed=0, num_restarts=restarts).inertia
        for restarts in (1, 2, 5)
    ]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < inertias[0]


def test_the_seed_decides():
    x = encoder_like(1000, 16)
    a, b, c = (kmeans.fit(x, 10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.centroids, b.centroids)
    assert (a.centroids != c.centroids).any()


def test_looser_tolerance_stops_earlier():
    x = encoder_like(3000, 32)
    exact = kmeans.fit(x, 30, seed=0, tol=0.0)
    loose = kmeans.fit(x, 30, seed=0, tol=1e-2)
    assert loose.num_iters < exact.num_iters < 100
    assert exact.inertia <= loose.inertia < 1.02 * exact.inertia
    assert kmeans.fit(x, 30, seed=0, max_iters=2).num_iters == 2


@settings(max_examples=15, deadline=None)
@given(
    k=st.sampled_from([1, 5, 24]),  # one compilation each
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    distinct=st.integers(1, 24),
)
def test_any_rows_give_a_consistent_clustering(k, seed, scale, distinct):
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((distinct, 4))[rng.integers(0, distinct, 24)]
    result = kmeans.fit(x, k, seed=seed, max_iters=5)
    total = np.sum((x - x.mean(axis=0)) ** 2)
    rounding = 1e-6 * scale**2
    assert result.sizes.sum() == 24
    assert result.inertia <= total * (1 + 1e-5) + rounding
    best = numpy_distances(x, result.centroids).min(axis=1).sum()
    assert result.inertia == pytest.approx(best, rel=1e-4, abs=rounding)


@pytest.mark.parametrize("kind", [np.asarray, jax.numpy.asarray])
def test_bad_input_is_a_user_error(kind):
    x = encoder_like(50, 4)
    bad = x.copy()
    bad[7, 2], bad[9, 0] = np.nan, np.inf
    for features, k, options, message in [
        (x, 51, {}, "k is 51 and there are 50 rows"),
        (x, 0, {}, "k is 0"),
        (bad, 5, {}, r"2 of 50 rows .* the first is row 7"),
        (bad, 5, {"batch_size": 8}, r"2 of 50 rows .* the first is row 7"),
        (x[0], 1, {}, r"shape \[4\]; expected \[rows, features\]"),
        (x[:0], 1, {}, r"shape \[0, 4\]"),
        (x, 5, {"init": x[:4]}, r"centroids have shape \[4, 4\]; expected \[5, 4\]"),
        (x, 5, {"num_restarts": 0}, "num_restarts is 0"),
        (x, 5, {"num_restarts": 2, "init": x[:5]}, "num_restarts is 2"),
        (x, 5, {"max_iters": 0}, "max_iters is 0"),
        (x, 5, {"batch_size": 0}, "batch_size is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            kmeans.fit(kind(features), k, seed=0, **options)
    with pytest.raises(UserError, match=r"shape \[5, 3\]; expected \[k, 4\]"):
        kmeans.assign(kind(x), x[:5, :3])
