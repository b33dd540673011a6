import os
import signal
import time

import pytest

from data_pipelines import workers


def count_to(task):
    """Yields 0 .. n - 1, then does what the task says."""
    n, end = task
    yield from range(n)
    if end == "fail":
        raise ValueError("no good")
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "exit":
        os._exit(3)
    if end == "hang":
        time.sleep(60)


def expected_events(tasks):
    ends = {
        "": workers.Finished(),
        "kill": workers.Crashed("worker process ended by SIGKILL"),
        "exit": workers.Crashed("worker process ended with exit code 3"),
        "hang": workers.Crashed("nothing within 1 s", "time limit"),
    }
    for n, end in tasks:
        yield from (workers.Result(i) for i in range(n))
        yield ends[end]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_events_come_in_order_and_a_crash_costs_one_task(num_workers):
    tasks = [
        (3, ""),
        (0, "kill"),
        (300, ""),
        (2, "kill"),
        (1, "exit"),
        (2, "hang"),
        (0, ""),
        (1, ""),
    ]
    events = list(workers.run_in_order(count_to, tasks, num_workers, 1.0))
    assert events == list(expected_events(tasks))


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_lists_are_run_side_by_side_their_tasks_in_order(num_workers):
    lists = [
        [(3, ""), (1, "kill"), (2, "")],
        [(200, "")],
        [(0, "exit"), (2, "hang"), (1, "")],
        [(1, "")] * 4,
    ]
    found = [[] for _ in lists]
    for index, place, event in workers.run_lists(count_to, lists, num_workers, 1.0):
        found[index].append((place, event))
    for tasks, events in zip(lists, found, strict=True):
        assert [event for _, event in events] == list(expected_events(tasks))
        places = [place for place, _ in events]
        assert places == sorted(places)
        assert set(places) == set(range(len(tasks)))


def test_an_exception_is_handed_over():
    *results, failed = workers.run_in_order(count_to, [(2, "fail")], 1)
    assert results == [workers.Result(0), workers.Result(1)]
    assert isinstance(failed.error, ValueError)
    assert failed.error.args == ("no good",)


class Unloadable:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)

    def __call__(self, task):
        return ()


def test_workers_that_cannot_start_are_an_error():
    with pytest.raises(RuntimeError, match="exit code 7 before its first task"):
        list(workers.run_in_order(Unloadable(), [1, 2], 1))


def test_stopping_early_ends_the_processes():
    events = workers.run_in_order(count_to, [(10, "")] * 50, 2)
    next(events)
    events.close()
    assert not [
        p
        for p in workers.multiprocessing.active_children()
        if p.name.startswith("Spawn")
    ]
