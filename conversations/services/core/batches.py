"""Batches: the statements of requests that wait at the same time, sent together on one connection (pipelines.py).

All that write are one transaction, so that one commit waits for the disk for all of them. Where one fails, each of them
is done again as a transaction of its own, and only that one gets the error. Answers are given after the commit. While a
batch is under way, the next one gathers.

    row() ──► waiting ──► batch: what reads, Sync, what writes, Sync ──► results ──► answers

A batch waits for nobody: a row that somebody holds for long is given up (BusyError), and its request goes on in a
thread. Large values do not belong here either (`endpoints/fast_path.py` decides).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from time import perf_counter
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, close_old_connections, connections

from conversations.services.core import counters, sql
from conversations.services.core.asking import Asked
from conversations.services.core.cluster import is_cluster
from conversations.services.core.pipelines import AWAY, Pipeline, connect
from conversations.services.core.statements import Many, Result, Row

log = logging.getLogger(__name__)

MOST_TOGETHER = 32
MOST_WAITING = 4_096
RETRY_SECONDS = 0.2


class Batches:
    """Statements of an event loop. Call all methods in the loop's thread.

    threads: where work runs that waits or takes long
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Asked] = deque()
        self._pipeline: Pipeline | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_scheduled = False
        self._alone: set[asyncio.Task[None]] = set()
        # Behind a pooler that shares connections between transactions nothing is prepared. In a cluster, which is found
        # out with the first connection, a batch would wait for each of its servers in turn.
        self._by_threads = not connections[DEFAULT_DB_ALIAS].get_connection_params()["prepare_threshold"]

    @property
    def is_full(self) -> bool:
        """Return whether so many statements wait that no more should come."""
        return len(self._waiting) >= MOST_WAITING

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows once what the statement wrote is on disk. See Statements."""
        return await self._run(statement, values, writes=True)

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Row | None:
        """Return the first row once what the statement wrote is on disk. See Statements."""
        found = await self._run(statement, values, writes=True, many=many)
        return found[0] if found else None

    async def read(self, statement: str, *values: Any) -> Row | None:
        """Return the first row of a statement that changes nothing. See Statements."""
        found = await self._run(statement, values, writes=False)
        return found[0] if found else None

    async def in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of work in one of the threads, each of which has a connection of its own."""
        return await self._loop.run_in_executor(self._threads, _with_connection, work, arguments)

    def soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do the work in one of the threads; errors are logged."""
        self._loop.run_in_executor(self._threads, _logged, work, arguments)

    async def _run(self, statement: str, values: Sequence[Any], *, writes: bool, many: Many | None = None) -> list[Row]:
        if self._by_threads:
            return await self.in_thread(sql.rows, statement, *values)
        asked = Asked(statement, values, self._loop.create_future(), writes, many)
        self._waiting.append(asked)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._send)
        began = perf_counter()
        try:
            return await asked.future
        finally:
            counters.IN_BATCH.observe(perf_counter() - began)

    def _send(self) -> None:
        """Send what waits, unless enough is under way: the end of a batch calls this again."""
        self._is_scheduled = False
        number = min(len(self._waiting), MOST_TOGETHER)
        if self._pipeline and number and self._pipeline.has_room(number):
            self._pipeline.send([self._waiting.popleft() for _ in range(number)])
            counters.BATCHES.inc()
            counters.BATCHED.inc(number)
        elif number and self._pipeline is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            if await self.in_thread(is_cluster):
                self._go_by_threads()
                return
            connection = await self._loop.run_in_executor(self._threads, connect)
            self._pipeline = Pipeline(connection, self._send, self._lost)
        except (psycopg.Error, OperationalError, InterfaceError) as error:
            log.warning("no connection for batches: %s", type(error).__name__)
            for asked in self._waiting:
                asked.fail(OperationalError(AWAY))
            self._waiting.clear()
        finally:
            self._connecting = None
        self._send()

    def _go_by_threads(self) -> None:
        """From now on each statement has a thread and a connection of its own, and so has each that waits."""
        self._by_threads = True
        self._alone = {self._loop.create_task(self._run_alone(asked)) for asked in self._waiting}
        self._waiting.clear()

    async def _run_alone(self, asked: Asked) -> None:
        try:
            asked.rows = await self.in_thread(sql.rows, asked.statement, *asked.values)
        except Exception as error:
            asked.fail(error)
        else:
            asked.answer()

    def _lost(self) -> None:
        self._pipeline = None
        self._loop.call_later(RETRY_SECONDS, self._send)

    def close(self) -> None:
        """Close the connection."""
        if self._pipeline:
            self._pipeline.lose()


def _with_connection(work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    close_old_connections()
    return work(*arguments)


def _logged(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        _with_connection(work, arguments)
    except Exception as error:
        log.warning("%s failed: %s", work.__name__, type(error).__name__)
