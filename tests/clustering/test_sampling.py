import numpy as np
import pytest

from xdc_jax.clustering import sampling


def test_held_out_is_the_stated_share_of_usable_clips():
    usable = np.arange(1000) % 4 != 0
    chosen = sampling.held_out(usable, 0.1, seed=3)
    assert chosen.sum() == 75
    assert not (chosen & ~usable).any()
    np.testing.assert_array_equal(chosen, sampling.held_out(usable, 0.1, seed=3))
    assert (chosen != sampling.held_out(usable, 0.1, seed=4)).any()


def test_plain_draws_take_each_used_clip_alike():
    used = np.array([True, False, True])
    draws = sampling.draws(
        used, [], clips_per_record=3, balanced=False, seed=0, epoch=0
    )
    assert draws.tolist() == [3, 0, 3]
    assert draws.dtype == np.int32


@pytest.mark.parametrize("clips_per_record", [1, 2])
def test_balanced_draws_are_uniform_over_clusters(clips_per_record):
    rng = np.random.default_rng(0)
    labels = rng.choice(5, size=2000, p=[0.6, 0.2, 0.1, 0.07, 0.03]).astype(np.int32)
    used = rng.random(2000) < 0.9
    labels[~used] = -1
    total = np.zeros(2000)
    for epoch in range(50):
        draws = sampling.draws(
            used,
            [labels],
            clips_per_record=clips_per_record,
            balanced=True,
            seed=0,
            epoch=epoch,
        )
        assert draws.sum() == used.sum() * clips_per_record
        assert not draws[~used].any()
        total += draws
    share = np.bincount(labels[used], weights=total[used]) / total.sum()
    np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_balance_over_two_clusterings_is_the_mean_of_both():
    a = np.array([0, 0, 0, 1], np.int32)
    b = np.array([0, 1, 1, 1], np.int32)
    used = np.ones(4, bool)
    total = np.zeros(4)
    for epoch in range(4000):
        total += sampling.draws(
            used, [a, b], clips_per_record=1, balanced=True, seed=0, epoch=epoch
        )
    expected = (np.array([1, 1, 1, 3]) / 6 + np.array([3, 1, 1, 1]) / 6) / 2
    np.testing.assert_allclose(total / total.sum(), expected, atol=0.01)
