"""What is in each cluster, against counts by hand and by plain loops."""

import csv

import numpy as np
import pytest
from sklearn.cluster import KMeans

from tests.evaluation.rows import make_rows
from xdc_jax.clustering import quality
from xdc_jax.errors import UserError
from xdc_jax.evaluation import cluster_table

NAMES = ("PlayingGuitar", "PlayingViolin", "IceDancing", "JumpingJack")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PlayingGuitar", {"playing", "guitar"}),
        ("playing_guitar", {"playing", "guitar"}),
        ("playing guitar", {"playing", "guitar"}),
        ("clean-and-jerk", {"clean", "jerk"}),
        ("DJScratching2", {"dj", "scratching2"}),
        ("brushTeeth", {"brush", "teeth"}),
        ("sailing (boat), the big", {"sailing", "boat", "big"}),
        ("écouter_Musik", {"écouter", "musik"}),
    ],
)
def test_words_of_a_class_name(name, expected):
    assert cluster_table.words(name) == expected


def test_purity_labels_and_words_by_hand():
    labels = (
        ["PlayingGuitar"] * 4 + ["PlayingViolin"] * 4 + ["IceDancing"] * 2  # cluster 3
        + ["PlayingViolin"] + ["IceDancing"] * 5 + ["JumpingJack"] * 4  # cluster 0
    )  # fmt: skip
    assignments = np.array([3] * 10 + [0] * 10)
    second, first = cluster_table.describe(assignments, labels)
    assert (first.number, first.size, first.purity) == (3, 10, 0.4)
    assert (second.number, second.size, second.purity) == (0, 10, 0.5)
    assert first.labels == (
        ("PlayingGuitar", 0.4),
        ("PlayingViolin", 0.4),
        ("IceDancing", 0.2),
    )
    # playing: 8 of 10 here, 9 of 20 in all; guitar: 4 of 10 and 4 of 20; violin: 4 of
    # 10 and 5 of 20. Ice and dancing are in 2 of 10, 7 of 20: fewer than three videos.
    assert dict(first.words) == pytest.approx(
        {"guitar": 2.0, "playing": 0.8 / 0.45, "violin": 1.6}
    )
    assert [word for word, _ in first.words] == ["guitar", "playing", "violin"]
    assert dict(second.words) == pytest.approx(
        {"jack": 2.0, "jumping": 2.0, "dancing": 0.5 / 0.35, "ice": 0.5 / 0.35}
    )


def test_every_cluster_against_loops():
    rng = np.random.default_rng(0)
    assignments = rng.integers(0, 9, 300)
    number = (assignments + (rng.random(300) < 0.5) * rng.integers(0, 4, 300)) % 4
    labels = [NAMES[i] for i in number]
    found = cluster_table.describe(assignments, labels)
    assert [c.purity for c in found] == sorted((c.purity for c in found), reverse=True)
    assert sorted(c.number for c in found) == sorted(set(assignments.tolist()))
    for cluster in found:
        mine = [labels[i] for i in range(300) if assignments[i] == cluster.number]
        assert cluster.size == len(mine)
        assert cluster.purity == max(mine.count(name) for name in NAMES) / len(mine)
        for name, share in cluster.labels:
            assert share == mine.count(name) / len(mine)
        for word, lift in cluster.words:
            here = sum(word in name.lower() for name in mine) / len(mine)
            there = sum(word in name.lower() for name in labels) / 300
            assert lift == pytest.approx(here / there)
            assert lift > 1
    shares = sum(c.purity * c.size for c in found) / 300
    assert shares == pytest.approx(quality.purity(assignments, number))


def test_videos_of_the_training_split_are_clustered():
    rows = make_rows(1, spread=0.3)
    rows.label[rows.video_id == "v0"] = -1
    rows.features[rows.video_id == "v1"] = np.nan
    splits = {"train": rows, "test": make_rows(2, prefix="t")}
    found = cluster_table.cluster_videos(splits, 4, NAMES, seed=0)
    assert found.split == "train"
    assert list(found.videos) == sorted({f"v{i}" for i in range(2, 60)})
    assert list(found.labels) == [NAMES[int(v[1:]) % 4] for v in found.videos]
    means = []
    for video in found.videos:
        mean = rows.features[rows.video_id == video].astype(float).mean(0)
        means.append(mean / np.linalg.norm(mean))
    expected = KMeans(4, n_init=1, random_state=0).fit_predict(np.array(means))
    np.testing.assert_array_equal(found.assignments, expected)
    assert found.purity == pytest.approx(
        quality.purity(expected, np.array([int(v[1:]) % 4 for v in found.videos]))
    )
    both = cluster_table.cluster_videos(
        {"val": splits["train"], "test": splits["test"]}, 4, NAMES, seed=0
    )
    assert both.split == "test+val"
    assert len(both.videos) == 118


def clustering(sizes):
    """Cluster i has so many videos, i of which are of a class of their own."""
    assignments = np.repeat(np.arange(len(sizes)), sizes)
    labels = [
        NAMES[2] if j < i else NAMES[0] for i, n in enumerate(sizes) for j in range(n)
    ]
    clusters = cluster_table.describe(assignments, labels)
    videos = [f"v{i}|x.mp4" for i in range(len(labels))]
    return cluster_table.Clustering("train", clusters, videos, labels, assignments)


def test_the_table_shows_both_ends_without_small_clusters():
    text = cluster_table.table(clustering([50] * 24 + [4]), "video")
    assert "1204 labelled videos of split train, 25 clusters" in text
    purest, least = text.split("Least pure:")
    numbers = [
        [int(line.split("|")[1]) for line in half.splitlines() if line[2:3].isdigit()]
        for half in (purest, least)
    ]
    assert numbers == [list(range(10)), list(range(23, 13, -1))]
    few = cluster_table.table(clustering([50] * 12), "video")
    assert len([line for line in few.splitlines() if line[2:3].isdigit()]) == 12
    assert "Least pure" not in cluster_table.table(clustering([50] * 3), "video")


def test_files_have_every_cluster_and_video(tmp_path):
    found = clustering([50, 40, 4])
    cluster_table.write(tmp_path, {"video": found, "audio": found})
    with (tmp_path / "clusters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0] == {
        "modality": "video",
        "cluster": "0",
        "size": "50",
        "purity": "1.0",
        "labels": "PlayingGuitar 100%",
        "words": "guitar 1.0x; playing 1.0x",
    }
    with (tmp_path / "cluster_videos.csv").open() as file:
        videos = list(csv.DictReader(file))
    assert len(videos) == 2 * 94
    assert videos[50] == {
        "modality": "video",
        "video_id": "v50|x.mp4",
        "cluster": "1",
        "label": "IceDancing",
    }


def test_more_clusters_than_videos_and_no_class_names():
    splits = {"train": make_rows(1)}
    with pytest.raises(UserError, match=r"found 60 labelled videos .* clusters \(61\)"):
        cluster_table.cluster_videos(splits, 61, NAMES, seed=0)
    with pytest.raises(UserError, match="found labels without class names"):
        cluster_table.cluster_videos(splits, 4, (), seed=0)
    splits["train"].features[:] = np.nan
    with pytest.raises(UserError, match="found 0 labelled videos"):
        cluster_table.cluster_videos(splits, 4, NAMES, seed=0)
