import numpy as np
import pytest

from tests.clustering.features import encoder_like
from xdc_jax.clustering import kmeans
from xdc_jax.errors import UserError


def in_batches(x, size):
    return lambda: (x[i : i + size] for i in range(0, len(x), size))


def test_mini_batches_come_near_lloyd(eight_devices):
    x = encoder_like(6000, 32)
    full = kmeans.fit(x, 32, seed=0)
    batches = kmeans.fit(x, 32, seed=0, batch_size=500, mesh=eight_devices)
    assert batches.inertia < 1.03 * full.inertia
    labels, squared = kmeans.assign(x, batches.centroids)
    assert (labels == batches.assignments).mean() > 0.999
    assert batches.inertia == pytest.approx(float(squared.sum()), rel=1e-5)
    assert batches.sizes.sum() == len(x)


def test_a_stream_equals_mini_batches_in_memory(tmp_path):
    x = encoder_like(1030, 16)
    order = kmeans.batch_order(len(x), (4, 0))
    np.save(tmp_path / "shuffled.npy", x[order])
    on_disk = np.load(tmp_path / "shuffled.npy", mmap_mode="r")
    streamed = kmeans.fit_stream(in_batches(on_disk, 100), 10, seed=4)
    in_memory = kmeans.fit(x, 10, seed=4, batch_size=100)
    np.testing.assert_array_equal(streamed.centroids, in_memory.centroids)
    np.testing.assert_array_equal(streamed.assignments, in_memory.assignments[order])
    assert streamed.num_iters == in_memory.num_iters
    assert streamed.inertia == pytest.approx(in_memory.inertia, rel=1e-9)


def test_mini_batches_on_any_number_of_devices_give_the_same_bits(eight_devices):
    x = encoder_like(1030, 16)
    one, eight = (
        kmeans.fit(x, 10, seed=0, batch_size=100, mesh=mesh)
        for mesh in (None, eight_devices)
    )
    np.testing.assert_array_equal(one.centroids, eight.centroids)
    np.testing.assert_array_equal(one.assignments, eight.assignments)


def test_one_batch_of_all_rows_moves_as_one_lloyd_iteration():
    x = encoder_like(1000, 16)
    options = {"seed": 0, "init": x[:10], "max_iters": 1}
    full = kmeans.fit(x, 10, **options)
    batch = kmeans.fit(x, 10, batch_size=len(x), **options)
    np.testing.assert_allclose(full.centroids, batch.centroids, atol=1e-6)


def test_a_step_follows_sculley():
    x = encoder_like(300, 8)
    centroids, seen = x[:6].astype(np.float64), np.zeros(6)
    for batch in in_batches(x, 50)():
        distances = ((batch[:, None] - centroids) ** 2).sum(axis=2)
        for row, label in zip(batch, distances.argmin(axis=1), strict=True):
            seen[label] += 1
            centroids[label] += (row - centroids[label]) / seen[label]
    ours = kmeans.fit_stream(
        in_batches(x, 50), 6, seed=0, init=x[:6], max_iters=1, tol=0.0
    )
    np.testing.assert_allclose(ours.centroids, centroids, atol=1e-5)


def test_empty_clusters_of_a_stream_are_repaired():
    x = encoder_like(1000, 16)
    init = np.concatenate([x[:6], np.full((4, 16), 1e3, np.float32)])
    result = kmeans.fit_stream(in_batches(x, 100), 10, seed=0, init=init)
    assert result.num_reseeded >= 4
    assert result.sizes.min() > 0


def test_bad_streams_are_user_errors():
    x = encoder_like(100, 4)
    used_up = iter([x[:50], x[50:]])
    other, seen = encoder_like(300, 4), []
    thirds = [other[:100], other[100:200], other[200:]]
    bad = x.copy()
    bad[70, 1] = np.nan
    for batches, k, message in [
        (lambda: iter(()), 3, "the stream is empty"),
        (in_batches(x, 30), 101, "k is 101 and there are 100 rows"),
        (lambda: used_up, 3, "must start the same stream again"),
        (lambda: iter([other] if seen else seen.append(1) or thirds), 3, "other batch"),
        (in_batches(bad, 30), 3, "the first is row 70"),
        (lambda: iter([x, x[:, :3]]), 3, "has 3 features; expected 4"),
    ]:
        with pytest.raises(UserError, match=message):
            kmeans.fit_stream(batches, k, seed=0)
