"""Real threads with real connections, begun at the same moment."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from django.db import connection, transaction

from conversations.services.replies.dispatcher import Dispatcher

Job = Callable[[], Any]

CONNECTIONS = 40  # the server has 200 for everybody
SECONDS = 60.0


class Lane(threading.Thread):
    """A thread with a connection of its own, which does one piece of work after another."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while work := self._work.get():
                connection.close_if_unusable_or_obsolete()
                work()
                self._done.set()
        finally:
            connection.close()

    def begin(self, work: Callable[[], None]) -> None:
        self._done.clear()
        self._work.put(work)

    def ended(self, seconds: float) -> bool:
        """Whether the work is done, after waiting so long for it."""
        return self._done.wait(seconds)

    def close(self) -> None:
        """Its connection is closed."""
        self._work.put(None)
        self.join(SECONDS)


_idle: list[Lane] | None = None  # lanes to be used again


@contextmanager
def keeping_connections() -> Iterator[None]:
    """Within the block connections are used again, as those of a web process are: what a new one must learn of the
    tables, and plan, costs more than most of what it is used for here.
    """
    global _idle
    _idle = []
    try:
        yield
    finally:
        idle, _idle = _idle, None
        for lane in idle:
            lane.close()


def outcomes(jobs: Sequence[Job], threads: int = CONNECTIONS) -> list[Any]:
    """What each job returned, or the exception it raised, in the order of the jobs.

    At most `threads` of them run at once, each thread with a connection of its own; all begin together.
    """
    count = min(len(jobs), threads)
    gate = threading.Barrier(count)
    results: list[Any] = [TimeoutError("It did not end.")] * len(jobs)

    def work(first: int) -> None:
        connection.ensure_connection()
        gate.wait(SECONDS)
        for number in range(first, len(jobs), count):
            try:
                results[number] = jobs[number]()
            except Exception as error:
                results[number] = error

    lanes = [_lane() for _ in range(count)]
    for first, lane in enumerate(lanes):
        lane.begin(partial(work, first))
    deadline = time.monotonic() + SECONDS
    for lane in lanes:
        if lane.ended(max(deadline - time.monotonic(), 0)):
            lane.close() if _idle is None else _idle.append(lane)
    return results


def _lane() -> Lane:
    return _idle.pop() if _idle else Lane()


def together(*jobs: Job, threads: int = CONNECTIONS) -> list[Any]:
    """The same, where no job may fail: its exception is raised here."""
    results = outcomes(jobs, threads)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def shuffled(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in another order, each beginning up to 3 ms later than it could."""

    def hesitating(job: Job) -> Job:
        def later() -> Any:
            time.sleep(random.uniform(0, 0.003))
            return job()

        return later

    return [hesitating(job) for job in random.sample(jobs, len(jobs))]


def eventually(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return value


def waits_for_a_lock() -> bool:
    """Return whether somebody waits for a row or a table that another transaction has locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database())"
        )
        return bool(cursor.fetchone()[0])


@contextmanager
def not_committed(work: Job) -> Iterator[None]:
    """Do the work on another connection, which commits when the block is over, or waits for it."""
    done, over, lane = threading.Event(), threading.Event(), Lane()

    def hold_open() -> None:
        with transaction.atomic():
            work()
            done.set()
            eventually(lambda: over.is_set() or waits_for_a_lock(), "the block ends, or waits")

    lane.begin(hold_open)
    assert done.wait(SECONDS)
    try:
        yield
    finally:
        over.set()
        assert lane.ended(SECONDS)
        lane.close()


@contextmanager
def dispatching(count: int = 1) -> Iterator[list[Dispatcher]]:
    """Dispatchers at work, each on a thread of its own; stopped, and their connections closed, at the end."""
    dispatchers = [Dispatcher(patience=SECONDS / 2) for _ in range(count)]

    def run(dispatcher: Dispatcher) -> None:
        try:
            dispatcher.run()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(dispatcher,), daemon=True) for dispatcher in dispatchers]
    for thread in threads:
        thread.start()
    try:
        yield dispatchers
    finally:
        for dispatcher in dispatchers:
            dispatcher.stop()
        for thread in threads:
            thread.join(SECONDS)
        for dispatcher in dispatchers:
            for pool in (dispatcher._rows, dispatcher._engines, dispatcher._providers):
                pool.shutdown(wait=True)
        gc.collect()  # the threads of the pools are gone, and with them their connections
