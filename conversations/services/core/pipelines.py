"""A connection in libpq's pipeline mode (https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), on a loop.

It sends a batch of statements, each its own transaction with a Sync after it, and takes the results as they arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, utils
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from conversations.services.core.statements import BusyError, Row, UnclearError

log = logging.getLogger(__name__)

LOCK_MILLISECONDS = 100
STATEMENT_MILLISECONDS = 2_000
BATCH_SECONDS = 5.0  # without the end of a batch; then the database counts as away
AWAY = "The database does not answer."

# Writes all of the write-ahead log to disk, what others wrote included. PostgreSQL has it since version 17, and the
# application's role may use it unless somebody took that right away. It waits for no synchronous standby.
_FLUSH_NAME = b"flush"
_FLUSH = b"SELECT pg_logical_emit_message(false, '', '', true)"
CAN_FLUSH = """
    SELECT current_setting('synchronous_standby_names') = '' AND COALESCE(has_function_privilege(
        to_regprocedure('pg_logical_emit_message(boolean, text, text, boolean)'), 'EXECUTE'), false)"""
_GIVEN_UP = {"55P03", "40P01", "57014"}  # lock_not_available, deadlock_detected, query_canceled
_SHUT_DOWN = "57P"  # the server ends the connection
_KINDS = ("DataError", "IntegrityError", "InternalError", "NotSupportedError", "OperationalError", "ProgrammingError")


@dataclass(slots=True, eq=False)
class Asked:
    """A statement that somebody waits for. `durable`: the answer waits until what was written is on disk."""

    statement: str
    values: Sequence[Any]
    future: asyncio.Future[list[Row]]
    durable: bool
    adapter: Any = None
    rows: list[Row] | None = None
    is_answered: bool = False

    def answer(self) -> None:
        """Give the rows, unless whoever asked is gone."""
        if not self.future.done():
            self.future.set_result(self.rows or [])

    def fail(self, error: BaseException) -> None:
        """Give the error, unless whoever asked is gone."""
        if not self.future.done():
            self.future.set_exception(error)


class _Aside(Enum):
    """Results that nobody asked for."""

    PREPARED = "prepared"
    FLUSHED = "flushed"
    SYNC = "sync"


@dataclass(slots=True)
class _Batch:
    """A batch under way: its statements, and the results that are expected next."""

    asked: list[Asked]
    expected: deque[Asked | _Aside] = field(default_factory=deque)
    last: Asked | None = None


def connection_settings() -> dict[str, Any]:
    """Return the arguments of psycopg.connect for a connection such as Django's."""
    wanted = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {name: value for name, value in wanted.items() if name not in ("cursor_factory", "prepare_threshold")}


def connect() -> psycopg.Connection[Any]:
    """Return a connection with the settings of Django's, ready for a pipeline. Raises psycopg.Error.

    Commits wait for the disk one by one where no flush can do it for all (CAN_FLUSH).
    """
    connection: psycopg.Connection[Any] = psycopg.connect(**connection_settings(), autocommit=True)
    try:
        connection.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}")
        connection.execute(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
        [(can_flush,)] = connection.execute(CAN_FLUSH).fetchall()
        if can_flush:
            connection.execute("SET synchronous_commit = off")
            connection.pgconn.prepare(_FLUSH_NAME, _FLUSH)
    except BaseException:
        connection.close()
        raise
    return connection


class Pipeline:
    """A connection that runs one batch after the other. Call all methods in the loop's thread.

    done: called after each batch
    lost: called once when the connection is lost
    """

    def __init__(self, connection: psycopg.Connection[Any], done: Callable[[], None], lost: Callable[[], None]) -> None:
        self._connection, self._libpq = connection, connection.pgconn
        self._done, self._lost = done, lost
        self._flushes = bool(self._libpq.describe_prepared(_FLUSH_NAME).status == ExecStatus.COMMAND_OK)
        self._names: dict[tuple[str, tuple[int, ...] | None], bytes] = {}
        self._batch: _Batch | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._readable)

    @property
    def is_busy(self) -> bool:
        """Return whether a batch is under way."""
        return self._batch is not None

    def send(self, asked: list[Asked]) -> None:
        """Send the statements as one batch."""
        batch = self._batch = _Batch(asked)
        self._deadline = self._loop.call_later(BATCH_SECONDS, self._too_late)
        try:
            for each in asked:
                self._add(batch, each)
            if self._flushes and any(each.durable for each in asked):
                self._libpq.send_query_prepared(_FLUSH_NAME, [])
                batch.expected.append(_Aside.FLUSHED)
            self._sync(batch)
        except psycopg.Error:
            self.lose()
        else:
            self._write()

    def _add(self, batch: _Batch, asked: Asked) -> None:
        """Add a statement to the batch; one whose values PostgreSQL cannot take fails alone and is not sent."""
        adapter = asked.adapter = Transformer.from_context(self._connection)
        try:
            values: Any = adapter.dump_sequence(asked.values, [PyFormat.AUTO] * len(asked.values))
        except Exception as error:
            asked.fail(_as_django(error))
            asked.is_answered = True
            return
        name = self._names.get((asked.statement, adapter.types))
        if name is None:
            name = self._names[asked.statement, adapter.types] = b"batch_%d" % len(self._names)
            self._libpq.send_prepare(name, asked.statement.encode(), adapter.types)
            batch.expected.append(_Aside.PREPARED)
            self._sync(batch)
        self._libpq.send_query_prepared(name, values, adapter.formats)
        batch.expected.append(asked)
        self._sync(batch)

    def _sync(self, batch: _Batch) -> None:
        self._libpq.pipeline_sync()
        batch.expected.append(_Aside.SYNC)

    def _write(self) -> None:
        """Hand the socket what it takes, and the rest when it takes more."""
        try:
            left = self._libpq.flush()
        except psycopg.Error:
            self.lose()
            return
        if left:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            self._libpq.consume_input()
            while (batch := self._batch) and not self._libpq.is_busy():
                if (result := self._libpq.get_result()) is not None:
                    self._take(batch, result)
        except psycopg.Error:
            self.lose()
            return

    def _take(self, batch: _Batch, result: PGresult) -> None:
        """Take the next result. An error where a Sync is expected is one of the commit: of a deferred constraint."""
        expected = batch.expected[0]
        if _sqlstate(result).startswith(_SHUT_DOWN):
            raise psycopg.OperationalError(AWAY)
        if expected is _Aside.SYNC and result.status != ExecStatus.PIPELINE_SYNC and batch.last:
            self._settle(batch.last, result)
            return
        batch.expected.popleft()
        if isinstance(expected, Asked):
            batch.last = expected
            self._settle(expected, result)
        elif result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC):
            log.warning("a batch was not %s: %s", expected.value, _sqlstate(result))
            raise psycopg.OperationalError(AWAY)
        elif not batch.expected:
            self._end(batch)

    def _settle(self, asked: Asked, result: PGresult) -> None:
        """Note the result of one statement. A row that was only read needs no flush, and an error wrote nothing."""
        asked.is_answered = True
        if result.status != ExecStatus.TUPLES_OK:
            is_given_up = _sqlstate(result) in _GIVEN_UP
            asked.fail(BusyError() if is_given_up else _as_django(psycopg.errors.error_from_result(result)))
            return
        asked.adapter.set_pgresult(result)
        asked.rows = asked.adapter.load_rows(0, result.ntuples, tuple)
        if not asked.durable:
            asked.answer()

    def _end(self, batch: _Batch) -> None:
        self._batch = None
        if self._deadline:
            self._deadline.cancel()
        for asked in batch.asked:
            asked.answer()
        self._done()

    def _too_late(self) -> None:
        log.warning("a batch had no end within %g s", BATCH_SECONDS)
        self.lose(too_late=True)

    def lose(self, *, too_late: bool = False) -> None:
        """Close the connection and say of each statement under way what became of it.

        The server takes one after the other. The first without a result may be done; those after it were not begun.
        """
        if self._is_lost:
            return
        self._is_lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._deadline:
            self._deadline.cancel()
        batch, self._batch = self._batch, None
        self._libpq.finish()
        begun = True
        for asked in batch.asked if batch else ():
            if asked.is_answered and not self._flushes:
                asked.answer()  # its commit waited for the disk
            elif asked.is_answered:
                asked.fail(UnclearError(asked.rows))
            elif too_late:
                asked.fail(utils.OperationalError(AWAY))
            else:
                asked.fail(UnclearError() if begun else BusyError())
                begun = False
        self._lost()


def _sqlstate(result: PGresult) -> str:
    return (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode()


def _as_django(error: BaseException) -> BaseException:
    """The error as Django's, as the rest of the code knows it."""
    for kind in _KINDS:
        if isinstance(error, getattr(psycopg, kind)):
            log.debug("statement failed: %s", type(error).__name__)
            wrapped: Exception = getattr(utils, kind)(*error.args)
            wrapped.__cause__ = error
            return wrapped
    return error
