"""Batches on the devices before they are asked for, and how long they were missed."""

import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from xdc_jax.parallel import shard_batch

Batch = dict[str, np.ndarray]
AHEAD = 2  # batches on the devices that no step has taken yet


def prefetch(
    batches: Iterable[Batch], keys: Sequence[str], mesh: Mesh
) -> Iterator[tuple[Batch, dict[str, jax.Array]]]:
    """Yields each batch with its `keys` on the devices.

    A thread fetches and copies batches while the devices compute. What goes wrong in it
    is raised here, in the place of its batch.

    Args:
        batches: see DESIGN.md, section 4.
        keys: what the devices need of a batch.
        mesh: the devices.
    """
    source = iter(batches)

    def load() -> tuple[Batch, dict[str, jax.Array]] | None:
        batch = next(source, None)
        if batch is None:
            return None
        return batch, shard_batch({key: batch[key] for key in keys}, mesh)

    pool = ThreadPoolExecutor(1)
    try:
        pending = collections.deque(pool.submit(load) for _ in range(AHEAD))
        while (loaded := pending.popleft().result()) is not None:
            pending.append(pool.submit(load))
            yield loaded
    finally:
        pool.shutdown(cancel_futures=True)


class Feed:
    """`prefetch` for a loop of steps; measures how long the devices were idle."""

    def __init__(self, batches: Iterable[Batch], keys: Sequence[str], mesh: Mesh):
        self._batches = prefetch(batches, keys, mesh)
        self._steps: collections.deque[Any] = collections.deque()
        self._num_steps = 0
        self._waited_s = 0.0
        self._started = time.monotonic()

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        try:
            while True:
                asked = time.monotonic()
                found = next(self._batches, None)
                if self._is_idle():
                    self._waited_s += time.monotonic() - asked
                if found is None:
                    return
                yield found[1]
        finally:
            self._batches.close()

    def stepped(self, outputs: Any) -> None:
        """Takes the outputs of a step; waits until the step before it is done.

        Without that the host would run ahead, with a batch in memory for each step.
        """
        self._num_steps += 1
        self._steps.append(outputs)
        if len(self._steps) > 1:
            jax.block_until_ready(self._steps.popleft())

    def timing(self, batch_size: int) -> dict[str, float]:
        """Returns clips per second, and the share of time spent waiting for data.

        The share is of the time since the loop began in which the devices had done all
        steps and no batch was there, at most.
        """
        elapsed_s = time.monotonic() - self._started
        return {
            "clips_per_s": self._num_steps * batch_size / elapsed_s,
            "data_wait_share": self._waited_s / elapsed_s,
        }

    def _is_idle(self) -> bool:
        return all(array.is_ready() for array in jax.tree.leaves(list(self._steps)))
