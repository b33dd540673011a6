import json

import numpy as np
from PIL import Image

from xdc_jax import figures


def test_nearest_clips_are_those_of_the_largest_clusters_in_order():
    labels = np.array([0, 1, 1, 1, 2, 2, -1])
    distances = np.array([0.1, 0.5, 0.2, 0.3, 0.9, 0.8, np.inf])
    nearest = figures.nearest_clips(distances, labels, num_clusters=2, num_clips=2)
    assert [ids.tolist() for ids in nearest] == [[2, 3], [5, 4]]


def test_pictures_are_written(tmp_path):
    lines = [
        {"step": 0, "iteration": 0, "probe/video": 0.1, "nmi/video/labels": 0.1},
        {"step": 5, "iteration": 0, "epoch": 0, "loss/video/audio": 1.0},
        {"step": 9, "iteration": 1, "probe/video": 0.9, "nmi/video/labels": 0.5},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    figures.by_iteration({"xdc": tmp_path}, tmp_path / "progress.png")
    clusters = [np.zeros((n, 8, 8, 3), np.uint8) for n in (3, 2)]
    figures.centroids_grid(clusters, "title", tmp_path / "clusters.png")
    for name in ("progress.png", "clusters.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 0
