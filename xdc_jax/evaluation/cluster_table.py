"""What is in each cluster of videos: purity, labels, and words of the class names."""

import csv
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from xdc_jax import results
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import FeatureRows, mean_per_group
from xdc_jax.files import write_atomically

CLUSTERS_FILE = "clusters.csv"
VIDEOS_FILE = "cluster_videos.csv"
SHOWN = 10  # purest and least pure clusters in a table
MIN_SIZE = 5  # videos of a cluster in a table; smaller ones are pure by chance
_NUM_LABELS = 3
_NUM_WORDS = 5
# A word of a cluster is in so many of its videos, and in this share of them.
_MIN_COUNT = 3
_MIN_SHARE = 0.1
_FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with")
)
# Between a small and a capital letter, and before the last capital of several.
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster of labelled videos.

    Attributes:
        number: of the cluster, as in `Clustering.assignments`.
        size: number of videos.
        purity: share of the videos that have the most frequent label.
        labels: the most frequent class names and their shares of the videos.
        words: words of class names that are over-represented, and by how much: the
            share of the cluster's videos that have the word, over that of all videos.
    """

    number: int
    size: int
    purity: float
    labels: tuple[tuple[str, float], ...]
    words: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Clusters of videos.

    Attributes:
        split: name of the split that the videos are of.
        clusters: those that are not empty, the purest first, of equals the largest.
        videos: sources, sorted.
        labels: class name of each video.
        assignments: cluster of each video.
    """

    split: str
    clusters: tuple[Cluster, ...]
    videos: Sequence[str]
    labels: Sequence[str]
    assignments: Int[np.ndarray, " videos"]

    @property
    def purity(self) -> float:
        """Share of all videos that have the most frequent label of their cluster."""
        right = sum(cluster.purity * cluster.size for cluster in self.clusters)
        return right / len(self.videos)


def cluster_videos(
    splits: Mapping[str, FeatureRows], k: int, class_names: Sequence[str], seed: int
) -> Clustering:
    """Clusters the L2-normalised mean features of labelled videos with k-means.

    Args:
        splits: split -> rows; `train` is used if it is there, else all of them.
        k: number of clusters.
        class_names: a label is an index into it.
        seed: of k-means.

    Raises:
        UserError: there are no class names, or fewer labelled videos than clusters.
    """
    if not class_names:
        raise UserError(
            "clusters: found labels without class names, expected a ClassLabel with "
            "names; prepare the data with names as labels, or leave --clusters out"
        )
    used = ["train"] if "train" in splits else sorted(splits)
    features, labels, videos = [], [], []
    for split in used:
        rows = splits[split].known()
        first, number = rows.videos()
        features.append(mean_per_group(rows.features, number))
        labels.append(rows.label[first])
        videos += map(str, rows.video_id[first])
    label = np.concatenate(labels)
    if k > len(videos):
        raise UserError(
            f"clusters: found {len(videos)} labelled videos with features in split "
            f"{'+'.join(used)}, expected at least as many as clusters ({k}); lower "
            "--clusters"
        )
    assignments = KMeans(k, n_init=1, random_state=seed).fit_predict(
        normalize(np.concatenate(features))
    )
    names = [class_names[i] for i in label]
    return Clustering(
        "+".join(used), describe(assignments, names), videos, names, assignments
    )


def describe(
    assignments: Int[np.ndarray, " videos"], labels: Sequence[str]
) -> tuple[Cluster, ...]:
    """Returns the clusters that are not empty, the purest first.

    Args:
        assignments: cluster of each video.
        labels: class name of each video.
    """
    words_of = {name: words(name) for name in set(labels)}

    def count_words(counts: Counter) -> Counter:
        total = Counter()
        for name, count in counts.items():
            for word in words_of[name]:
                total[word] += count
        return total

    members: dict[int, Counter] = {}
    for number, name in zip(assignments.tolist(), labels, strict=True):
        members.setdefault(number, Counter())[name] += 1
    everywhere = count_words(Counter(labels))
    clusters = []
    for number, counts in members.items():
        size = counts.total()
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        lifts = {
            word: (count / size) / (everywhere[word] / len(labels))
            for word, count in count_words(counts).items()
            if count >= max(_MIN_COUNT, _MIN_SHARE * size)
        }
        over = [(word, lift) for word, lift in lifts.items() if lift > 1]
        over.sort(key=lambda item: (-item[1], item[0]))
        clusters.append(
            Cluster(
                number=number,
                size=size,
                purity=ranked[0][1] / size,
                labels=tuple((name, n / size) for name, n in ranked[:_NUM_LABELS]),
                words=tuple(over[:_NUM_WORDS]),
            )
        )
    return tuple(sorted(clusters, key=lambda c: (-c.purity, -c.size, c.number)))


def words(name: str) -> frozenset[str]:
    """Returns the words of a class name: `PlayingGuitar`, `playing_guitar`, ..."""
    found = re.findall(r"[^\W_]+", _CAMEL.sub(" ", name))
    return frozenset(word.lower() for word in found) - _FUNCTION_WORDS


def table(clustering: Clustering, modality: str) -> str:
    """Returns Markdown: the purest and the least pure clusters, and how to read it."""
    large = [c for c in clustering.clusters if c.size >= MIN_SIZE]
    purest, rest = large[:SHOWN], large[SHOWN:]
    parts = [
        f"Clusters of {modality} features: {len(clustering.videos)} labelled videos of "
        f"split {clustering.split}, {len(clustering.clusters)} clusters, purity "
        f"{clustering.purity:.3f}; shown are those of at least {MIN_SIZE} videos.\n"
        f"Words: of the class names, and how much more frequent in the cluster than "
        f"in all videos; in at least {_MIN_COUNT} videos and {_MIN_SHARE:.0%} of them."
    ]
    for title, shown in (("Purest", purest), ("Least pure", rest[-SHOWN:][::-1])):
        if shown:
            parts.append(f"{title}:\n\n{_markdown(shown)}")
    return "\n\n".join(parts)


def _markdown(clusters: Sequence[Cluster]) -> str:
    lines = [("cluster", "videos", "purity", "labels", "words")]
    for c in clusters:
        size, purity = str(c.size), f"{c.purity:.3f}"
        lines.append((str(c.number), size, purity, _labels_text(c), _words_text(c)))
    return results.markdown(lines)


def _labels_text(cluster: Cluster) -> str:
    return "; ".join(f"{name} {share:.0%}" for name, share in cluster.labels)


def _words_text(cluster: Cluster) -> str:
    return "; ".join(f"{word} {lift:.1f}x" for word, lift in cluster.words)


def write(folder: Path, clusterings: Mapping[str, Clustering]) -> None:
    """Writes every cluster into `clusters.csv`, every video into `cluster_videos.csv`.

    Args:
        folder: of both files.
        clusterings: modality -> clusters.
    """
    lines = [("modality", "cluster", "size", "purity", "labels", "words")]
    videos = [("modality", "video_id", "cluster", "label")]
    for modality, found in clusterings.items():
        lines += [
            (modality, c.number, c.size, c.purity, _labels_text(c), _words_text(c))
            for c in found.clusters
        ]
        videos += [
            (modality, *row)
            for row in zip(
                found.videos, found.assignments.tolist(), found.labels, strict=True
            )
        ]
    for name, content in ((CLUSTERS_FILE, lines), (VIDEOS_FILE, videos)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(content)
        data = text.getvalue().encode(errors="surrogateescape")
        write_atomically(folder / name, data)
