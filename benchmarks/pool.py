"""Worker processes for benchmarks of many runs, each on its share of the cores."""

import concurrent.futures
import multiprocessing
import os
import threading


def pinned(jobs: int) -> concurrent.futures.ProcessPoolExecutor:
    """Returns a pool of `jobs` processes among which the cores are divided."""
    context = multiprocessing.get_context("spawn")
    started = (context.Value("i", 0), jobs)
    return concurrent.futures.ProcessPoolExecutor(jobs, context, _start, started)


def _start(counter, jobs: int) -> None:
    """Pins a new worker process to its share of the cores; it ends with its parent."""

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    with counter.get_lock():
        worker = counter.value
        counter.value += 1
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[worker % jobs :: jobs] or cores)
