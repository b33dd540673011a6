import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from xdc_jax.clustering import quality

LABELS = st.lists(st.integers(0, 4), min_size=20, max_size=20).map(np.array)


def test_values_worked_out_by_hand():
    clusters = np.array([0, 0, 0, 1, 1, 1])
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert quality.purity(clusters, labels) == pytest.approx(5 / 6)
    # I(U;V) / mean of the entropies, from the counts 2, 1, 0, 3 of 6.
    information = 2 / 6 * np.log(2) + 1 / 6 * np.log(1 / 2) + 3 / 6 * np.log(3 / 2)
    mean_entropy = (np.log(2) + entropy([2, 4])) / 2
    assert quality.nmi(clusters, labels) == pytest.approx(information / mean_entropy)
    # 4 pairs together in both, 6 and 7 in each, of 15.
    expected = 6 * 7 / 15
    adjusted = (4 - expected) / ((6 + 7) / 2 - expected)
    assert quality.ari(clusters, labels) == pytest.approx(adjusted)


@given(a=LABELS, b=LABELS)
def test_names_of_clusters_do_not_matter(a, b):
    renamed = (a + 2) % 5
    assert quality.nmi(renamed, b) == pytest.approx(quality.nmi(a, b), abs=1e-9)
    assert quality.ari(renamed, b) == pytest.approx(quality.ari(a, b), abs=1e-9)
    assert quality.purity(renamed, b) == pytest.approx(quality.purity(a, b))
    assert quality.purity(a, a) == quality.ari(a, renamed) == 1
    assert quality.nmi(a, renamed) == pytest.approx(1)


def test_size_entropy():
    assert quality.size_entropy(np.array([5, 5, 5])) == pytest.approx(1)
    assert quality.size_entropy(np.array([9, 0, 0])) == 0
    assert quality.size_entropy(np.array([7])) == 1
    sizes = np.array([10, 3, 0, 1])
    expected = entropy(sizes) / np.log(4)
    assert quality.size_entropy(sizes) == pytest.approx(expected)


def test_summary_counts_clusters_that_no_row_is_in():
    summary = quality.summary(np.array([0, 0, 0, 2], np.int32), 4)
    assert summary["empty"] == 2
    assert (summary["smallest"], summary["largest"]) == (0, 3)
    assert summary["size_entropy"] == pytest.approx(entropy([3, 1]) / np.log(4))
