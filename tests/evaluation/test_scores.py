import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from xdc_jax.evaluation import scores


def made_up(seed, videos=13, classes=7):
    """Scores of 1 to 5 clips per video, whose clips are not beside each other."""
    rng = np.random.default_rng(seed)
    names = np.array([f"video {i}" for i in rng.permutation(videos)])
    video = np.concatenate(
        [[name] * n for name, n in zip(names, rng.integers(1, 6, videos), strict=True)]
    )
    video = rng.permutation(video)
    of_class = dict(zip(names, rng.integers(0, classes, videos), strict=True))
    labels = np.array([of_class[name] for name in video])
    values = rng.dirichlet(np.ones(classes), len(video))
    return values.astype(np.float32), labels, video


@pytest.mark.parametrize("seed", range(5))
def test_accuracies_equal_a_loop_over_clips_and_videos(seed):
    values, labels, video = made_up(seed)
    expected = {}
    for k in (1, 5):
        right = [
            label in sorted(range(7), key=lambda c: -row[c])[:k]
            for row, label in zip(values, labels, strict=True)
        ]
        expected[f"clip_top{k}"] = sum(right) / len(right)
        right = []
        for name in set(video):
            total, count = [0.0] * 7, 0
            for row, label, of in zip(values, labels, video, strict=True):
                if of == name:
                    total = [a + float(b) for a, b in zip(total, row, strict=True)]
                    count, truth = count + 1, label
            mean = [value / count for value in total]
            right.append(truth in sorted(range(7), key=lambda c: -mean[c])[:k])
        expected[f"video_top{k}"] = sum(right) / len(right)
    assert scores.accuracies(values, labels, video) == pytest.approx(expected)


def test_top_k_equals_scikit_learn():
    values, labels, _ = made_up(9, videos=60)
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(labels, values, k=k, labels=np.arange(7))
        assert scores.top_k(values, labels, k) == pytest.approx(expected)


def test_averaging_can_right_a_video_whose_clips_are_wrong():
    values = np.array([[0.5, 0.4, 0.1], [0.1, 0.4, 0.5]])
    found = scores.accuracies(values, np.array([1, 1]), np.array(["a", "a"]))
    assert found["clip_top1"] == 0
    assert found["video_top1"] == 1


def test_with_fewer_than_five_classes_top5_is_certain():
    values = np.eye(2)
    found = scores.accuracies(values, np.array([1, 0]), np.array(["a", "b"]))
    assert found == {
        "clip_top1": 0,
        "clip_top5": 1,
        "video_top1": 0,
        "video_top5": 1,
    }
