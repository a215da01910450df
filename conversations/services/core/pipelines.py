"""A connection in libpq's pipeline mode (https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), on a loop.

It sends a batch of statements, each its own transaction with a Sync after it, and takes the results as they arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, utils
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from conversations.services.core import libpq
from conversations.services.core.statements import BusyError, Row, UnclearError

log = logging.getLogger(__name__)

LOCK_MILLISECONDS = 100
STATEMENT_MILLISECONDS = 2_000
ENOUGH_AHEAD = 8  # statements
BATCH_SECONDS = 5.0  # without the end of a batch; then the database counts as away
AWAY = "The database does not answer."
SILENCE = "the database did not answer for %.0f s: %s"  # as convo_project/postgresql/limits.py logs it

# Writes all of the write-ahead log to disk, what others wrote included. PostgreSQL has it since version 17, and the
# application's role may use it unless somebody took that right away. It waits for no synchronous standby.
_FLUSH_NAME = b"flush"
_FLUSH = b"SELECT pg_logical_emit_message(false, '', '', true)"
CAN_FLUSH = """
    SELECT current_setting('synchronous_standby_names') = '' AND has_function_privilege(
        to_regprocedure('pg_logical_emit_message(boolean, text, text, boolean)'), 'EXECUTE')"""
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
    rows: list[Row] | None = None
    is_over: bool = False
    is_committed: bool = False

    def answer(self) -> None:
        """Give the rows, unless whoever asked is gone."""
        self.is_over = True
        if not self.future.done():
            self.future.set_result(self.rows or [])

    def fail(self, error: BaseException) -> None:
        """Give the error, unless whoever asked is gone."""
        self.is_over = True
        if not self.future.done():
            self.future.set_exception(error)


class _Aside(Enum):
    """Results that nobody asked for."""

    PREPARED = "prepared"
    FLUSHED = "flushed"
    SYNC = "sync"
    END = "end"


@dataclass(slots=True)
class _Batch:
    """A batch under way."""

    asked: list[Asked]
    deadline: asyncio.TimerHandle


def connection_settings() -> dict[str, Any]:
    """Return the arguments of psycopg.connect for a connection such as Django's."""
    wanted = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {name: value for name, value in wanted.items() if name not in ("cursor_factory", "prepare_threshold")}


def connect() -> psycopg.Connection[Any]:
    """Return a connection with the settings of Django's, ready for a pipeline. Raises psycopg.Error.

    Commits wait for the disk one by one where no flush can do it for all (CAN_FLUSH).
    """
    settings = connection_settings()
    try:
        connection: psycopg.Connection[Any] = psycopg.connect(**settings, autocommit=True)
    except psycopg.errors.ConnectionTimeout:
        log.warning(SILENCE, settings["connect_timeout"], "no connection for batches")
        raise
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
    """A connection that runs batches, one after the other. Call all methods in the loop's thread.

    done: called after each batch
    lost: called once when the connection is lost
    """

    def __init__(self, connection: psycopg.Connection[Any], done: Callable[[], None], lost: Callable[[], None]) -> None:
        self._libpq, self._sync_later = connection.pgconn, libpq.buffered_sync()
        self._adapter = Transformer.from_context(connection)
        self._done, self._lost = done, lost
        self._flushes = bool(self._libpq.describe_prepared(_FLUSH_NAME).status == ExecStatus.COMMAND_OK)
        self._names: dict[tuple[str, tuple[int, ...] | None], bytes] = {}
        self._batches: deque[_Batch] = deque()
        self._expected: deque[Asked | _Aside] = deque()  # results, in the order in which they come
        self._last: Asked | None = None  # the statement whose result came last
        self._loop = asyncio.get_running_loop()
        self._is_lost = False
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._readable)

    def has_room(self, number: int) -> bool:
        """Return whether a batch of that many statements may be sent now.

        One that is large enough is sent while another runs, so that PostgreSQL need not wait for it.
        """
        return not self._batches or (len(self._batches) == 1 and number >= ENOUGH_AHEAD)

    def send(self, asked: list[Asked]) -> None:
        """Send the statements as one batch."""
        self._batches.append(_Batch(asked, self._loop.call_later(BATCH_SECONDS, self._too_late)))
        try:
            for each in asked:
                self._add(each)
            if self._flushes and any(each.durable for each in asked):
                self._libpq.send_query_prepared(_FLUSH_NAME, [])
                self._expected.append(_Aside.FLUSHED)
            self._sync(_Aside.END)
        except psycopg.Error:
            self.lose()
        else:
            self._write()

    def _add(self, asked: Asked) -> None:
        """Add a statement to the batch; one whose values PostgreSQL cannot take fails alone and is not sent."""
        adapter = self._adapter
        try:
            values: Any = adapter.dump_sequence(asked.values, [PyFormat.AUTO] * len(asked.values))
        except Exception as error:
            asked.fail(_as_django(error))
            return
        name = self._names.get((asked.statement, adapter.types))
        if name is None:
            name = self._names[asked.statement, adapter.types] = b"batch_%d" % len(self._names)
            self._libpq.send_prepare(name, asked.statement.encode(), adapter.types)
            self._expected.append(_Aside.PREPARED)
            self._sync()
        self._libpq.send_query_prepared(name, values, adapter.formats)
        self._expected.append(asked)
        self._sync()

    def _sync(self, aside: _Aside = _Aside.SYNC) -> None:
        self._sync_later(self._libpq)
        self._expected.append(aside)

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
            while self._expected and not self._libpq.is_busy():
                if (result := self._libpq.get_result()) is not None:
                    self._take(result)
        except psycopg.Error:
            self.lose()

    def _take(self, result: PGresult) -> None:
        """Take the next result. An error where a Sync is expected is one of the commit: of a deferred constraint."""
        expected, status = self._expected[0], result.status
        if status == ExecStatus.FATAL_ERROR and _is_connections(_sqlstate(result)):
            raise psycopg.OperationalError(AWAY)
        if expected is _Aside.SYNC and status != ExecStatus.PIPELINE_SYNC and self._last:
            self._settle(self._last, result)
            return
        self._expected.popleft()
        if isinstance(expected, Asked):
            self._last = expected
            self._settle(expected, result)
        elif status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC):
            log.warning("a batch was not %s: %s", expected.value, _sqlstate(result))
            raise psycopg.OperationalError(AWAY)
        elif expected is _Aside.END:
            self._end(self._batches.popleft())
        elif expected is _Aside.SYNC and self._last:
            self._last.is_committed = True

    def _settle(self, asked: Asked, result: PGresult) -> None:
        """Note the result of one statement. A row that was only read needs no flush, and an error wrote nothing."""
        if result.status != ExecStatus.TUPLES_OK:
            is_given_up = _sqlstate(result) in _GIVEN_UP
            asked.fail(BusyError() if is_given_up else _as_django(psycopg.errors.error_from_result(result)))
            return
        self._adapter.set_pgresult(result)
        asked.rows = self._adapter.load_rows(0, result.ntuples, tuple)
        if not asked.durable:
            asked.answer()

    def _end(self, batch: _Batch) -> None:
        batch.deadline.cancel()
        for asked in batch.asked:
            if not asked.is_over:
                asked.answer()
        self._done()

    def _too_late(self) -> None:
        log.warning(SILENCE, BATCH_SECONDS, "a batch had no end")
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
        self._libpq.finish()
        for batch in self._batches:
            batch.deadline.cancel()
        begun = True
        for asked in (asked for batch in self._batches for asked in batch.asked):
            if asked.is_over:
                continue
            if asked.is_committed and not self._flushes:
                asked.answer()  # its commit waited for the disk
            elif asked.rows is not None:
                asked.fail(UnclearError(asked.rows))
            elif too_late:
                asked.fail(utils.OperationalError(AWAY))
            else:
                asked.fail(UnclearError() if begun else BusyError())
                begun = False
        self._lost()


def _sqlstate(result: PGresult) -> str:
    return (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode()


def _is_connections(sqlstate: str) -> bool:
    """Return whether an error ends the connection: the server's farewell, or libpq's own, which has no SQLSTATE."""
    return not sqlstate or sqlstate.startswith(_SHUT_DOWN)


def _as_django(error: BaseException) -> BaseException:
    """The error as Django's, as the rest of the code knows it."""
    for kind in _KINDS:
        if isinstance(error, getattr(psycopg, kind)):
            log.debug("statement failed: %s", type(error).__name__)
            wrapped: Exception = getattr(utils, kind)(*error.args)
            wrapped.__cause__ = error
            return wrapped
    return error
