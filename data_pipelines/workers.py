"""Worker processes that survive a crash in one task.

`concurrent.futures` gives up all its work when one process dies; a crash in a decoder
must cost the file that it was decoding, and no other.
"""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# Fresh interpreters: a fork would inherit the threads and locks of JAX and TensorFlow.
_CONTEXT = multiprocessing.get_context("spawn")
# Results that wait for those of an earlier task, at most.
_MAX_WAITING = 128


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
    """The worker process died in the task; the results so far stand."""

    how: str


@dataclasses.dataclass(frozen=True)
class Finished:
    """The task has come to its end."""


Event = Result | Failed | Crashed | Finished


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_in_order(
    function: Callable[[Any], Iterable[Any]], tasks: Sequence[Any], num_workers: int
) -> Iterator[Event]:
    """Runs `function(task)` for every task in worker processes.

    Args:
      function: yields any number of values for a task; it and the tasks and values
        are pickled.
      tasks: what to do.
      num_workers: number of processes.

    Yields:
      The events of the first task, then those of the second, and so on: results, then
      one of `Finished`, `Failed`, `Crashed`. The same for every number of workers.
    """
    pool = _Pool(function, tasks, num_workers)
    try:
        for index in range(len(tasks)):
            yield from pool.events(index)
    finally:
        pool.stop()


class _Pool:
    def __init__(
        self,
        function: Callable[[Any], Iterable[Any]],
        tasks: Sequence[Any],
        num_workers: int,
    ):
        num_workers = max(1, min(num_workers, len(tasks)))
        self._workers = [_Worker(function) for _ in range(num_workers)]
        self._unassigned = collections.deque(enumerate(tasks))
        self._waiting: dict[int, collections.deque[Event]] = collections.defaultdict(
            collections.deque
        )

    def events(self, index: int) -> Iterator[Event]:
        """The events of a task; those of earlier tasks have been taken."""
        waiting = self._waiting[index]
        event: Event | None = None
        while event is None or isinstance(event, Result):
            # The task at hand is always read from, so the work gets on.
            if sum(map(len, self._waiting.values())) < _MAX_WAITING:
                self._assign()
                self._collect(self._workers, block=not waiting)
            elif not waiting:
                self._collect([w for w in self._workers if w.task == index], block=True)
            event = waiting.popleft() if waiting else None
            if event is not None:
                yield event
        del self._waiting[index]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.task is None and self._unassigned:
                worker.assign(*self._unassigned.popleft())

    def _collect(self, workers: Sequence["_Worker"], block: bool) -> None:
        busy = {w.connection: w for w in workers if w.task is not None}
        ready = multiprocessing.connection.wait(list(busy), None if block else 0)
        for connection in ready:
            index, event = busy[connection].receive()
            if event is not None:
                self._waiting[index].append(event)


class _Worker:
    """A process and the task that it is at; a new process takes a dead one's place.

    Attributes:
      task: index of the task; None while there is none.
      connection: readable when `receive` would not block.
    """

    def __init__(self, function: Callable[[Any], Iterable[Any]]):
        self.task: int | None = None
        self._function = function
        self._start()

    def assign(self, index: int, task: Any) -> None:
        self.task = index
        try:
            self.connection.send(task)
        except OSError:  # It died since its last task.
            self._replace()
            self.connection.send(task)

    def receive(self) -> tuple[int, Event | None]:
        """The index of the task and what comes of it, None while it starts up."""
        index = self.task
        try:
            event = self.connection.recv()
        except (EOFError, OSError):
            event = Crashed(self._replace())
        self._has_started = True
        if event is not None and not isinstance(event, Result):
            self.task = None
        return index, event

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
