"""The pseudo-labels of an iteration: made from features, measured, kept on disk."""

import dataclasses
import io
import json
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from xdc_jax.clustering import kmeans, preprocessing, quality
from xdc_jax.clustering.kmeans import Features
from xdc_jax.clustering.targets import Plan
from xdc_jax.errors import UserError
from xdc_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Assignments:
    """The clusters of every clip of a split.

    Attributes:
        labels: clustering -> int32 `[n]`, the cluster of each clip id, -1 where the
            clip is not clustered.
        distances: clustering -> float32 `[n]`, squared distance to the centroid in the
            space that was clustered, inf where the clip is not clustered.
        metrics: what is logged of this clustering.
    """

    labels: dict[str, Int[np.ndarray, " n"]]
    distances: dict[str, Float[np.ndarray, " n"]]
    metrics: dict[str, Any]


def num_clusters(plan: Plan, config: ConfigDict) -> dict[str, int]:
    """Returns clustering -> k."""
    return {
        name: config[f"k_{plan.encoders[members[0]] if len(members) == 1 else 'joint'}"]
        for name, members in plan.clusterings.items()
    }


def clustered_features(
    features: list[Features], num_rows: int, config: ConfigDict, mesh: Mesh
) -> Features:
    """Returns the points that k-means sees for the features of one or more encoders."""
    if len(features) > 1:
        features = [preprocessing.l2_normalize(x) for x in features]
        points = jnp.concatenate(features, axis=1)
    else:
        (points,) = features
    if config.whiten_dim:
        points = preprocessing.pca_whiten(points, config.whiten_dim, mesh, num_rows)
    if config.l2_normalize:
        points = preprocessing.l2_normalize(points)
    return points


def cluster(
    features: dict[str, Features],
    usable: Bool[np.ndarray, " n"],
    plan: Plan,
    config: ConfigDict,
    *,
    seed: int,
    mesh: Mesh,
) -> Assignments:
    """Clusters the features of each clustering of a plan with k-means.

    Args:
        features: encoder name -> features of the usable clips by id, then padding, if
            any; they may be spread over processes, and stay where they are.
        usable: the clips to cluster.
        plan: which features are clustered together.
        config: `config.clustering`.
        seed: of this clustering.
        mesh: devices to spread the clips over.
    """
    labels, distances, metrics = {}, {}, {}
    num_rows = int(usable.sum())
    for name, k in num_clusters(plan, config).items():
        if k > num_rows:
            raise UserError(
                f"config.clustering asks for k = {k} {name} clusters, but only "
                f"{num_rows} clips can be clustered; choose a smaller k"
            )
        members = [features[member] for member in plan.clusterings[name]]
        points = clustered_features(members, num_rows, config, mesh)
        result = kmeans.fit(
            points,
            k,
            seed=seed,
            mesh=mesh,
            max_iters=config.max_iters,
            num_restarts=config.num_restarts,
            batch_size=config.batch_size or None,
            num_rows=num_rows,
        )
        _, squared = kmeans.assign(points, result.centroids, mesh, num_rows)
        labels[name] = np.full(len(usable), -1, np.int32)
        labels[name][usable] = result.assignments
        distances[name] = np.full(len(usable), np.inf, np.float32)
        distances[name][usable] = squared
        metrics[f"cluster/{name}/inertia"] = float(result.inertia)
        metrics[f"cluster/{name}/iterations"] = int(result.num_iters)
        metrics[f"cluster/{name}/reseeded"] = int(result.num_reseeded)
        for key, value in quality.summary(np.asarray(result.assignments), k).items():
            metrics[f"cluster/{name}/{key}"] = value
    return Assignments(labels, distances, metrics)


def compare(
    now: Assignments, before: Assignments | None, truth: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """Returns agreement with the iteration before, between clusterings, with labels.

    Args:
        now: this iteration's.
        before: the previous iteration's, if there was one.
        truth: labels by clip id, -1 where unknown; measured against, never trained on.
    """
    metrics = {}
    for name, labels in now.labels.items():
        if before and name in before.labels:
            metrics[f"nmi/{name}/previous"] = _nmi(labels, before.labels[name])
        both = (labels >= 0) & (truth >= 0)
        if both.any():
            metrics[f"nmi/{name}/labels"] = quality.nmi(labels[both], truth[both])
            metrics[f"purity/{name}/labels"] = quality.purity(labels[both], truth[both])
    if len(now.labels) == 2:
        a, b = now.labels
        metrics[f"nmi/{a}/{b}"] = _nmi(now.labels[a], now.labels[b])
    return metrics


def _nmi(a: np.ndarray, b: np.ndarray) -> float:
    both = (a >= 0) & (b >= 0)
    return quality.nmi(a[both], b[both])


def path(workdir: epath.PathLike, iteration: int) -> epath.Path:
    """Returns where the clusters of an iteration are kept."""
    return epath.Path(workdir) / "clusters" / f"iteration_{iteration}.npz"


def save(file: epath.Path, assignments: Assignments) -> None:
    """Writes assignments so that the file is either whole or absent."""
    arrays = {f"labels/{name}": x for name, x in assignments.labels.items()}
    arrays |= {f"distances/{name}": x for name, x in assignments.distances.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, metrics=json.dumps(assignments.metrics), **arrays)
    write_atomically(file, buffer.getvalue())


def load(file: epath.Path) -> Assignments:
    """Reads what `save` wrote; UserError if the file is damaged."""
    try:
        content = io.BytesIO(file.read_bytes())
        with np.load(content, allow_pickle=False) as arrays:
            parts = {"labels": {}, "distances": {}}
            for key in arrays.files:
                if key != "metrics":
                    kind, name = key.split("/", 1)
                    parts[kind][name] = arrays[key]
            metrics = json.loads(str(arrays["metrics"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file}: the clusters of this iteration cannot be read ({error}); start "
            "with a new workdir"
        ) from error
    return Assignments(parts["labels"], parts["distances"], metrics)
