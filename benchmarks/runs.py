"""Many runs in worker processes, each on its share of the cores."""

import concurrent.futures
import importlib.util
import multiprocessing
import os
import threading


def pinned_pool(jobs: int) -> concurrent.futures.ProcessPoolExecutor:
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


def pretrain(config_file: str, arg: str, data: str, workdir: str) -> dict:
    """Does one run of pretraining in this process and returns its row."""
    from data_pipelines import clips, shards
    from xdc_jax import parallel
    from xdc_jax import pretrain as pretrain_lib

    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    spec = importlib.util.spec_from_file_location("config", config_file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(arg)
    prepared = shards.open_prepared(data)
    source = clips.ClipData(prepared, clips.ClipSpec(**config.clip), config.seed)
    return pretrain_lib.pretrain(config, source, workdir)
