"""Pictures of a run: how it improved, and what its clusters hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CURVES = {
    "probe/video": "video probe accuracy",
    "probe/audio": "audio probe accuracy",
    "nmi/video/labels": "NMI of video clusters and labels",
    "nmi/audio/labels": "NMI of audio clusters and labels",
}


def by_iteration(workdirs: Mapping[str, str | Path], file: str | Path) -> None:
    """Draws probe accuracy and NMI of several runs after each iteration.

    Args:
        workdirs: name in the legend -> workdir of a run.
        file: picture to write.
    """
    figure, axes = plt.subplots(1, len(CURVES), figsize=(4 * len(CURVES), 3.4))
    for name, workdir in workdirs.items():
        lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        for axis, key in zip(axes, CURVES, strict=True):
            points = [(r["iteration"], r[key]) for r in records if key in r]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=name)
    for axis, title in zip(axes, CURVES.values(), strict=True):
        axis.set(title=title, xlabel="deep-clustering iterations", ylim=(0, 1.02))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend()
    _save(figure, file)


def nearest_clips(
    distances: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    num_clusters: int,
    num_clips: int,
) -> list[Int[np.ndarray, " m"]]:
    """Returns the ids of the clips nearest to some centroids, one array per cluster.

    Args:
        distances: distance of each clip to its centroid.
        labels: cluster of each clip, -1 where none.
        num_clusters: how many of the largest clusters.
        num_clips: how many clips of each, at most.
    """
    sizes = np.bincount(labels[labels >= 0])
    chosen = np.argsort(-sizes, kind="stable")[:num_clusters]
    nearest = []
    for cluster in chosen:
        members = np.flatnonzero(labels == cluster)
        order = np.argsort(distances[members], kind="stable")
        nearest.append(members[order[:num_clips]])
    return nearest


def centroids_grid(
    clusters: list[UInt8[np.ndarray, "m h w 3"]], title: str, file: str | Path
) -> None:
    """Draws one row of pictures per cluster."""
    columns = max(len(pictures) for pictures in clusters)
    figure, axes = plt.subplots(
        len(clusters),
        columns,
        figsize=(0.8 * columns, 0.8 * len(clusters) + 0.5),
        squeeze=False,
    )
    for row, pictures in zip(axes, clusters, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, picture in zip(row, pictures, strict=False):
            axis.imshow(picture)
    figure.suptitle(title, fontsize=9)
    _save(figure, file)


def _save(figure: Any, file: str | Path) -> None:
    figure.tight_layout()
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
