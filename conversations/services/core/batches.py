"""Batches: the statements of requests that wait at the same time, sent together on one connection (pipelines.py).

Each statement is its own transaction, which succeeds or fails alone. Their commits do not wait for the disk; the end of
the batch does so for all, and only then are the answers given. While a batch is under way, the next one gathers.

    row() ──► waiting ──► batch: statement, Sync, statement, Sync, … flush, Sync ──► results ──► answers

A batch waits for nobody: a row that somebody holds for long is given up (BusyError), and its request goes on in a
thread. Large values do not belong here either (`endpoints/fast_path.py` decides).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, OperationalError, close_old_connections, connections

from conversations.services.core import sql
from conversations.services.core.pipelines import AWAY, Asked, Pipeline, connect
from conversations.services.core.statements import Result, Row

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
        self._prepares = bool(connections[DEFAULT_DB_ALIAS].get_connection_params()["prepare_threshold"])

    @property
    def is_full(self) -> bool:
        """Return whether so many statements wait that no more should come."""
        return len(self._waiting) >= MOST_WAITING

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows once what the statement wrote is on disk. See Statements."""
        return await self._run(statement, values, durable=True)

    async def row(self, statement: str, *values: Any) -> Row | None:
        """Return the first row once what the statement wrote is on disk. See Statements."""
        found = await self._run(statement, values, durable=True)
        return found[0] if found else None

    async def read(self, statement: str, *values: Any) -> Row | None:
        """Return the first row of a statement that changes nothing. See Statements."""
        found = await self._run(statement, values, durable=False)
        return found[0] if found else None

    async def in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of work in one of the threads, each of which has a connection of its own."""
        return await self._loop.run_in_executor(self._threads, _with_connection, work, arguments)

    def soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do the work in one of the threads; errors are logged."""
        self._loop.run_in_executor(self._threads, _logged, work, arguments)

    async def _run(self, statement: str, values: Sequence[Any], *, durable: bool) -> list[Row]:
        if not self._prepares:  # behind a pooler that shares connections between transactions
            return await self.in_thread(sql.rows, statement, *values)
        asked = Asked(statement, values, self._loop.create_future(), durable)
        self._waiting.append(asked)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._send)
        return await asked.future

    def _send(self) -> None:
        """Send what waits, unless a batch is under way: its end calls this again."""
        self._is_scheduled = False
        if not self._waiting or (self._pipeline and self._pipeline.is_busy):
            return
        if self._pipeline:
            self._pipeline.send([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))])
        elif self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = await self._loop.run_in_executor(self._threads, connect)
            self._pipeline = Pipeline(connection, self._send, self._lost)
        except psycopg.Error as error:
            log.warning("no connection for batches: %s", type(error).__name__)
            for asked in self._waiting:
                asked.fail(OperationalError(AWAY))
            self._waiting.clear()
        finally:
            self._connecting = None
        self._send()

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
