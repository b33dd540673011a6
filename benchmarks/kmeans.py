"""k-means of xdc_jax against FAISS and scikit-learn on the same features.

Example:
  pip install faiss-cpu==1.15.1
  python benchmarks/kmeans.py --n=131072 --dim=512 --ks=64,256,1024 --seeds=5 --iters=20

For every k and seed each library makes --iters updates of the centroids from the same
start, rows drawn at random, and then assigns every row. No library may stop earlier
(tol=0), unless no assignment changes any more. A second block shows the same number of
updates from each library's own default start: k-means++ on a sample (xdc_jax), rows
drawn at random (FAISS), k-means++ on all rows (scikit-learn; left out where n x k is
above 2^23, because that start alone takes minutes).

Inertia is computed by NumPy in float64 from the final centroids, the same for all.
"seconds" is wall time and "cpu s" the process's CPU time, medians over the seeds, from
features in memory to centroids and assignments in memory. The libraries take turns, so
that other work on the machine meets all alike. Compilation of xdc_jax is not in the
times and stands in the heading.
"""

import os
import sys
import time
from collections.abc import Callable
from datetime import datetime

import numpy as np
from absl import app, flags, logging

from xdc_jax.clustering import kmeans

OURS = "xdc_jax"
MAX_SKLEARN_START = 2**23


def define_flags() -> None:
    """Defines the flags of this benchmark."""
    flags.DEFINE_integer("n", 131072, "rows")
    flags.DEFINE_integer("dim", 512, "features per row")
    flags.DEFINE_list("ks", ["64", "256", "1024"], "numbers of clusters")
    flags.DEFINE_integer("seeds", 5, "runs per library and k, from one start each")
    flags.DEFINE_integer("own_start_seeds", 1, "the same, from the library's own start")
    flags.DEFINE_integer("iters", 20, "updates of the centroids")
    flags.DEFINE_string("features", "", "[n, dim] .npy file; made up if empty")


def make_features(n: int, dim: int) -> np.ndarray:
    """Rows like an encoder's: uneven overlapping clusters, positive, of length 1."""
    rng = np.random.default_rng(0)
    components = 300
    component = rng.choice(components, n, p=rng.dirichlet(np.ones(components)))
    centres = 0.5 * rng.standard_normal((components, dim), np.float32)
    spread = np.exp(0.3 * rng.standard_normal((components, 1), np.float32))
    axes = rng.standard_normal((dim, dim), np.float32)
    axes /= np.sqrt(dim * (1 + np.arange(dim, dtype=np.float32)))[:, None]
    x = rng.standard_normal((n, dim), np.float32) @ axes
    x *= 3 * spread[component]
    x += centres[component] + np.float32(0.3)
    np.maximum(x, 0, out=x)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def exact_inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared distances to the nearest centroid, float64 throughout."""
    centroids = centroids.astype(np.float64)
    norms, total = np.sum(centroids**2, axis=1), 0.0
    for i in range(0, len(x), 4096):
        rows = x[i : i + 4096].astype(np.float64)
        scores = norms - 2 * rows @ centroids.T
        total += np.sum(rows**2) + scores.min(axis=1).sum()
    return float(total)


def run_ours(x, k, seed, iters, init):
    """Returns centroids and number of updates."""
    result = kmeans.fit(x, k, seed=seed, max_iters=iters, tol=0, init=init)
    return result.centroids, result.num_iters


def run_faiss(x, k, seed, iters, init):
    """Returns centroids and number of updates."""
    import faiss

    model = faiss.Kmeans(
        x.shape[1], k, niter=iters, seed=seed, max_points_per_centroid=len(x)
    )
    model.train(x, init_centroids=init)
    model.assign(x)
    return model.centroids, len(model.obj)


def run_sklearn(x, k, seed, iters, init):
    """Returns centroids and number of updates."""
    from sklearn.cluster import KMeans

    init = "k-means++" if init is None else init
    model = KMeans(
        k, init=init, n_init=1, max_iter=iters, tol=0, random_state=seed
    ).fit(x)
    return model.cluster_centers_, model.n_iter_


LIBRARIES = {OURS: run_ours, "FAISS": run_faiss, "scikit-learn": run_sklearn}


def timed(function: Callable, *args):
    """Returns the function's result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compilation_seconds(x: np.ndarray, k: int, init) -> float:
    """Wall time by which a first run of one iteration exceeds a second one."""
    first, second = (timed(run_ours, x, k, 0, 1, init)[1] for _ in range(2))
    return first - second


def compare(x: np.ndarray, k: int, seeds: int, iters: int, same_start: bool):
    """Runs all libraries; returns library -> [seeds, (inertia, wall, cpu, updates)]."""
    libraries = dict(LIBRARIES)
    if not same_start and len(x) * k > MAX_SKLEARN_START:
        del libraries["scikit-learn"]
    rows = {name: [] for name in libraries}
    for seed in range(seeds):
        init = None
        if same_start:
            rng = np.random.default_rng(seed)
            init = np.ascontiguousarray(x[rng.choice(len(x), k, replace=False)])
        for name, run in libraries.items():
            (centroids, updates), wall, cpu = timed(run, x, k, seed, iters, init)
            rows[name].append((exact_inertia(x, centroids), wall, cpu, updates))
            print(f"  k={k} seed={seed} {name}: {wall:.1f} s", file=sys.stderr)
    return {name: np.array(values) for name, values in rows.items()}


def table(results: dict[str, np.ndarray]) -> str:
    """Medians over the seeds; ratios are per seed, ours / best of theirs."""
    best = np.min([v for name, v in results.items() if name != OURS], axis=0)
    ratios = np.median(results[OURS] / best, axis=0)
    lines = ["| library | inertia | seconds | cpu s | updates |", "|" + " --- |" * 5]
    for name, values in results.items():
        inertia, wall, cpu, updates = np.median(values, axis=0)
        lines.append(
            f"| {name} | {inertia:.3f} | {wall:.1f} | {cpu:.1f} | {updates:.0f} |"
        )
    lines.append(
        f"| ours / best of theirs | {ratios[0]:.6f} | {ratios[1]:.2f} "
        f"| {ratios[2]:.2f} | |"
    )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Prints two tables per k."""
    del argv
    options = flags.FLAGS
    logging.set_verbosity(logging.WARNING)
    try:
        import faiss
    except ImportError:
        sys.exit("this benchmark needs FAISS: pip install faiss-cpu==1.15.1")
    x = (
        np.ascontiguousarray(np.load(options.features), np.float32)
        if options.features
        else make_features(options.n, options.dim)
    )
    print(
        f"{datetime.now():%Y-%m-%d %H:%M}, {len(x)} x {x.shape[1]} "
        f"{options.features or 'made-up features'}, {options.iters} updates, "
        f"{os.cpu_count()} cores, FAISS {faiss.__version__}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    for k in map(int, options.ks):
        compilation = compilation_seconds(x, k, x[:k])
        for title, seeds, same_start in (
            ("same start", options.seeds, True),
            ("each its own start", options.own_start_seeds, False),
        ):
            if seeds:
                results = compare(x, k, seeds, options.iters, same_start)
                print(
                    f"\nk = {k}, {title}, {seeds} seeds (compilation "
                    f"{compilation:.1f} s), load {os.getloadavg()[0]:.1f}\n\n"
                    f"{table(results)}",
                    flush=True,
                )


if __name__ == "__main__":
    define_flags()
    app.run(main)
