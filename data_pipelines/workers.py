"""Worker processes that survive a crash in one task, or a task that does not end.

`concurrent.futures` gives up all its work when one process dies; a crash in a decoder
must cost the file that it was decoding, and no other.
"""

import collections
import dataclasses
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

# Fresh interpreters: a fork would inherit the threads and locks of JAX and TensorFlow.
_CONTEXT = multiprocessing.get_context("spawn")
# Results that wait for those of an earlier task, at most.
_MAX_WAITING = 128
# How long a task may take to its next result.
TIME_LIMIT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Result:
    """One value that a task yielded."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Failed:
    """The task raised an exception; the results so far stand."""

    error: Exception


@dataclasses.dataclass(frozen=True)
class Crashed:
    """The worker process died in the task, or was ended; the results so far stand."""

    how: str
    reason: str = "decoder crashed"


@dataclasses.dataclass(frozen=True)
class Finished:
    """The task has come to its end."""


Event = Result | Failed | Crashed | Finished


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_in_order(
    function: Callable[[Any], Iterable[Any]],
    tasks: Sequence[Any],
    num_workers: int,
    time_limit_s: float = TIME_LIMIT_S,
) -> Iterator[Event]:
    """Runs `function(task)` for every task in worker processes.

    Args:
      function: yields any number of values for a task; it and the tasks and values
        are pickled.
      tasks: what to do.
      num_workers: number of processes.
      time_limit_s: a task that takes longer to its next value is ended.

    Yields:
      The events of the first task, then those of the second, and so on: results, then
      one of `Finished`, `Failed`, `Crashed`. The same for every number of workers.
    """
    unassigned = collections.deque(enumerate(tasks))
    waiting: dict[int, collections.deque[Event]] = {
        index: collections.deque() for index in range(len(tasks))
    }
    with _Pool(function, min(num_workers, len(tasks)), time_limit_s) as pool:
        for index in range(len(tasks)):
            of_task = waiting[index]
            event: Event | None = None
            while event is None or isinstance(event, Result):
                # The task at hand is always read from, so the work gets on.
                if sum(map(len, waiting.values())) < _MAX_WAITING:
                    for worker in pool.idle:
                        if unassigned:
                            worker.assign(*unassigned.popleft())
                    received = pool.receive(block=not of_task)
                elif not of_task:
                    received = pool.receive(block=True, only=index)
                else:
                    received = ()
                for of_index, found in received:
                    waiting[of_index].append(found)
                event = of_task.popleft() if of_task else None
                if event is not None:
                    yield event
            del waiting[index]


def run_lists(
    function: Callable[[Any], Iterable[Any]],
    lists: Sequence[Sequence[Any]],
    num_workers: int,
    time_limit_s: float = TIME_LIMIT_S,
) -> Iterator[tuple[int, int, Event]]:
    """Runs lists of tasks side by side, the tasks of a list one after the other.

    Args:
      function: see `run_in_order`.
      lists: lists of tasks, none of them empty.
      num_workers: number of processes, and of lists that are run at a time.
      time_limit_s: see `run_in_order`.

    Yields:
      Index of the list, of the task in it, and an event; those of a list in order.
    """
    todo = collections.deque(enumerate(lists))
    with _Pool(function, min(num_workers, len(lists)), time_limit_s) as pool:
        while todo or pool.is_busy:
            for worker in pool.idle:
                if todo:
                    index, tasks = todo.popleft()
                    worker.assign((index, 0), tasks[0])
            for (index, place), event in pool.receive(block=True):
                if not isinstance(event, Result) and place + 1 < len(lists[index]):
                    task = lists[index][place + 1]
                    pool.idle[0].assign((index, place + 1), task)
                yield index, place, event


class _Pool:
    def __init__(
        self,
        function: Callable[[Any], Iterable[Any]],
        num_workers: int,
        time_limit_s: float,
    ):
        self._workers = [
            _Worker(function, time_limit_s) for _ in range(max(1, num_workers))
        ]

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    @property
    def idle(self) -> list["_Worker"]:
        return [worker for worker in self._workers if worker.task is None]

    @property
    def is_busy(self) -> bool:
        return any(worker.task is not None for worker in self._workers)

    def receive(
        self, block: bool, only: Hashable | None = None
    ) -> Iterator[tuple[Any, Event]]:
        """What has come of the tasks, or of one of them: (name of the task, event)."""
        busy = {
            worker.connection: worker
            for worker in self._workers
            if worker.task is not None and only in (None, worker.task)
        }
        left_s = min((worker.left_s for worker in busy.values()), default=0.0)
        timeout_s = max(0.0, min(left_s, 3600.0)) if block else 0.0
        ready = set(multiprocessing.connection.wait(list(busy), timeout_s))
        for connection, worker in busy.items():
            name = worker.task
            if connection in ready:
                event = worker.receive()
            elif worker.left_s <= 0:
                event = worker.give_up()
            else:
                continue
            if event is not None:
                yield name, event


class _Worker:
    """A process and the task that it is at; a new process takes a dead one's place.

    Attributes:
      task: name of the task; None while there is none.
      connection: readable when `receive` would not block.
    """

    def __init__(self, function: Callable[[Any], Iterable[Any]], time_limit_s: float):
        self.task: Hashable | None = None
        self._function = function
        self._time_limit_s = time_limit_s
        self._start()

    @property
    def left_s(self) -> float:
        """Time left to the next event of the task, seconds."""
        if not self._has_started:
            return math.inf
        return self._since + self._time_limit_s - time.monotonic()

    def assign(self, name: Hashable, task: Any) -> None:
        self.task = name
        self._since = time.monotonic()
        try:
            self.connection.send(task)
        except OSError:  # It died since its last task.
            self._replace()
            self.connection.send(task)

    def receive(self) -> Event | None:
        """What comes of the task, None while the process starts up."""
        try:
            event = self.connection.recv()
        except (EOFError, OSError):
            event = Crashed(self._replace())
        self._has_started = True
        self._since = time.monotonic()
        if event is not None and not isinstance(event, Result):
            self.task = None
        return event

    def give_up(self) -> Event:
        """Ends the process in its task."""
        self._process.kill()
        self._replace()
        self.task = None
        return Crashed(f"nothing within {self._time_limit_s:g} s", "time limit")

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()

    def _start(self) -> None:
        self.connection, child = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(self._function, child), daemon=True
        )
        self._has_started = False
        self._since = time.monotonic()
        self._process.start()
        child.close()  # Or the pipe would stay open when the process dies.

    def _replace(self) -> str:
        """Starts a new process; returns how the old one ended."""
        self._process.join()
        code = self._process.exitcode
        if not self._has_started:
            raise RuntimeError(
                f"A worker process ended with exit code {code} before its first task; "
                "see its traceback above. A script that starts workers needs "
                '`if __name__ == "__main__":` around its main call.'
            )
        self.connection.close()
        self._start()
        if code < 0:
            return f"worker process ended by {signal.Signals(-code).name}"
        return f"worker process ended with exit code {code}"


def _work(
    function: Callable[[Any], Iterable[Any]],
    connection: multiprocessing.connection.Connection,
) -> None:
    """The worker process: says that it runs, then does one task after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle.
    try:
        connection.send(None)
        while True:
            task = connection.recv()
            for event in _events(function, task):
                connection.send(event)
    except (EOFError, ConnectionError):
        pass  # The parent has gone.


def _events(function: Callable[[Any], Iterable[Any]], task: Any) -> Iterator[Event]:
    try:
        for value in function(task):
            yield Result(value)
    except Exception as error:
        yield Failed(error)
    else:
        yield Finished()
