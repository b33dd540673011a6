import numpy as np
import pytest

from xdc_jax.errors import UserError
from xdc_jax.evaluation.few_labels import few_labels

LABEL = np.repeat([0, 1, 2, -1], [40, 200, 6, 10])
# Two clips of each video, side by side.
VIDEO = np.array([f"v{i // 2:03d}" for i in range(len(LABEL))])


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [(1.0, (20, 100, 3)), (0.1, (2, 10, 1)), (0.01, (1, 1, 1)), (0.35, (7, 35, 1))],
)
def test_share_of_the_videos_of_each_class(fraction, counts):
    chosen = few_labels(LABEL, VIDEO, fraction, seed=3)
    for class_id, count in enumerate(counts):
        videos = VIDEO[chosen & (class_id == LABEL)]
        assert len(set(videos)) == count
        assert len(videos) == 2 * count  # all clips of each
    assert not chosen[LABEL < 0].any()


def test_a_smaller_share_is_part_of_a_larger_one_and_seeds_differ():
    small, large = (few_labels(LABEL, VIDEO, f, seed=1) for f in (0.1, 0.5))
    assert not (small & ~large).any()
    other = few_labels(LABEL, VIDEO, 0.1, seed=2)
    assert (small != other).any()
    np.testing.assert_array_equal(small, few_labels(LABEL, VIDEO, 0.1, seed=1))


def test_the_order_of_the_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LABEL))
    shuffled = few_labels(LABEL[order], VIDEO[order], 0.2, seed=5)
    np.testing.assert_array_equal(shuffled, few_labels(LABEL, VIDEO, 0.2, 5)[order])


@pytest.mark.parametrize("fraction", [0, -1, 1.5, float("nan")])
def test_no_share(fraction):
    with pytest.raises(UserError, match="label fraction: found"):
        few_labels(LABEL, VIDEO, fraction, 0)
