"""A connection in libpq's pipeline mode (https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), on a loop.

It sends the statements of a batch as one transaction, and what only reads as another before it. If one of them fails,
PostgreSQL undoes the transaction, and each of its statements is sent again as a transaction of its own:

    read, read, Sync, write, write, write, Sync ──► all done
                                   └─ one failed ──► write, Sync, write, Sync, write, Sync ──► each done, or its error

Writes that have a form for many are sent as one statement (asking.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, utils
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from conversations.services.core import asking
from conversations.services.core.asking import Asked, Together, asked_of, gathered
from conversations.services.core.statements import BusyError, UnclearError

log = logging.getLogger(__name__)

LOCK_MILLISECONDS = 100
STATEMENT_MILLISECONDS = 2_000
ENOUGH_AHEAD = 4  # statements
BATCH_SECONDS = 5.0  # without the end of a batch; then the database counts as away
AWAY = "The database does not answer."
# Hot statements go from one row to the next by an index. While PostgreSQL does not know how many rows are asked for, or
# how large the tables will be, it might read them as a whole.
SETTINGS = {
    "lock_timeout": LOCK_MILLISECONDS,
    "statement_timeout": STATEMENT_MILLISECONDS,
    **dict.fromkeys(("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit"), "off"),
}
SILENCE = "the database did not answer for %.0f s: %s"  # as convo_project/postgresql/limits.py logs it

_GIVEN_UP = {"55P03", "40P01", "57014"}  # lock_not_available, deadlock_detected, query_canceled
_SHUT_DOWN = "57P"  # the server ends the connection
_KINDS = ("DataError", "IntegrityError", "InternalError", "NotSupportedError", "OperationalError", "ProgrammingError")


@dataclass(slots=True, eq=False)
class _Transaction:
    """Statements with a Sync after them: all are done, or none. `error`: of the one that `failed`, or of the commit."""

    asked: list[Asked]
    error: PGresult | None = None
    failed: Asked | Together | None = None


class _Ready(NamedTuple):
    """A statement that is prepared, with its values as PostgreSQL takes them."""

    expected: Asked | Together
    name: bytes
    values: Any
    formats: Any


@dataclass(slots=True)
class _Batch:
    """A batch under way. `again`: statements that were undone because another one failed."""

    transactions: deque[_Transaction]
    deadline: asyncio.TimerHandle
    again: list[Asked] = field(default_factory=list)


def connection_settings() -> dict[str, Any]:
    """Return the arguments of psycopg.connect for a connection such as Django's."""
    wanted = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {name: value for name, value in wanted.items() if name not in ("cursor_factory", "prepare_threshold")}


def connect() -> psycopg.Connection[Any]:
    """Return a connection with the settings of Django's, ready for a pipeline. Raises psycopg.Error."""
    settings = connection_settings()
    try:
        connection: psycopg.Connection[Any] = psycopg.connect(**settings, autocommit=True)
    except psycopg.errors.ConnectionTimeout:
        log.warning(SILENCE, settings["connect_timeout"], "no connection for batches")
        raise
    try:
        for name, value in SETTINGS.items():
            connection.execute(f"SET {name} = {value}")
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
        self._libpq = connection.pgconn
        self._adapter = Transformer.from_context(connection)
        self._done, self._lost = done, lost
        self._names: dict[tuple[str, tuple[int, ...] | None], bytes] = {}
        self._batches: deque[_Batch] = deque()
        # In the order of the results; None: is prepared.
        self._expected: deque[Asked | Together | _Transaction | None] = deque()
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
        kinds = ([each for each in asked if not each.writes], [each for each in asked if each.writes])
        self._send([kind for kind in kinds if kind])

    def _send(self, parts: Sequence[list[Asked]]) -> None:
        """Send each part as a transaction."""
        transactions = deque(_Transaction(part) for part in parts)
        self._batches.append(_Batch(transactions, self._loop.call_later(BATCH_SECONDS, self._too_late)))
        try:
            for transaction in transactions:
                self._add(transaction)
        except psycopg.Error:
            self.lose()
        else:
            self._write()

    def _add(self, transaction: _Transaction) -> None:
        """Add a transaction to what is sent. All of its statements are prepared before it begins."""
        together, alone = gathered(transaction.asked)
        ready = []
        for group in together:
            if (values := group.values()) is None:
                alone = group.asked + alone
            else:
                name = self._name_of(group.many.statement, (asking.JSON,))
                ready.append(_Ready(group, name, [values], None))
        ready += [each for each in map(self._ready, alone) if each]
        transaction.asked = [asked for each in ready for asked in asked_of(each.expected)]
        for each in ready:
            self._libpq.send_query_prepared(each.name, each.values, each.formats)
            self._expected.append(each.expected)
        self._expected.append(transaction)
        self._libpq.pipeline_sync()

    def _ready(self, asked: Asked) -> _Ready | None:
        """Return a statement as it is sent. One whose values PostgreSQL cannot take fails alone and is not sent."""
        adapter = self._adapter
        try:
            values: Any = adapter.dump_sequence(asked.values, [PyFormat.AUTO] * len(asked.values))
        except Exception as error:
            asked.fail(_as_django(error))
            return None
        return _Ready(asked, self._name_of(asked.statement, adapter.types), values, adapter.formats)

    def _name_of(self, statement: str, types: tuple[int, ...] | None) -> bytes:
        """Return the name of a statement with values of these types, which is prepared at its first use."""
        name = self._names.get((statement, types))
        if name is None:
            name = self._names[statement, types] = b"batch_%d" % len(self._names)
            self._libpq.send_prepare(name, statement.encode(), types)
            self._libpq.pipeline_sync()
            self._expected += [None, None]
        return name

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
        if status == ExecStatus.FATAL_ERROR and _is_connections(sqlstate := _sqlstate(result)):
            if sqlstate and isinstance(expected, Asked | Together):
                self._batches[0].transactions[0].error = result  # the server said so before the statement's end
            raise psycopg.OperationalError(AWAY)
        if isinstance(expected, _Transaction) and status != ExecStatus.PIPELINE_SYNC:
            expected.error = result
            return
        self._expected.popleft()
        if isinstance(expected, Asked | Together):
            self._note(expected, result)
        elif isinstance(expected, _Transaction):
            self._settle(expected)
        elif status not in (ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC):
            log.warning("a statement could not be prepared: %s", _sqlstate(result))
            raise psycopg.OperationalError(AWAY)

    def _note(self, expected: Asked | Together, result: PGresult) -> None:
        """Note the result of one statement. Those after one that failed were not run."""
        if result.status == ExecStatus.TUPLES_OK:
            self._adapter.set_pgresult(result)
            rows = self._adapter.load_rows(0, result.ntuples, tuple)
            if isinstance(expected, Together):
                expected.take(rows)
            else:
                expected.rows = rows
        elif result.status == ExecStatus.FATAL_ERROR:
            transaction = self._batches[0].transactions[0]
            transaction.error, transaction.failed = result, expected

    def _settle(self, transaction: _Transaction) -> None:
        """Give the answers of a transaction that is over, or the error of the one statement that it had.

        Of several, a statement for one that waited too long for a row is given up at once. Each other one has a second
        try alone; so has each that was asked together with others.
        """
        batch = self._batches[0]
        batch.transactions.popleft()
        error, is_alone = transaction.error, len(transaction.asked) == 1
        for asked in transaction.asked:
            if error is None:
                asked.answer()
            elif is_alone or (asked is transaction.failed and _sqlstate(error) in _GIVEN_UP):
                asked.fail(_error_of(error))
            else:
                asked.rows = None
                batch.again.append(asked)
        if not batch.transactions:
            self._end(self._batches.popleft())

    def _end(self, batch: _Batch) -> None:
        batch.deadline.cancel()
        if batch.again:
            self._send([[asked] for asked in batch.again])
        self._done()

    def _too_late(self) -> None:
        log.warning(SILENCE, BATCH_SECONDS, "a batch had no end")
        self.lose(too_late=True)

    def lose(self, *, too_late: bool = False) -> None:
        """Close the connection and say of each statement under way what became of it.

        The server takes one transaction after the other. The first that is not settled may be done, unless it has
        failed; those after it were not begun.
        """
        if self._is_lost:
            return
        self._is_lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._libpq.finish()
        for batch in self._batches:
            batch.deadline.cancel()
        transactions = [each for batch in self._batches for each in batch.transactions]
        for number, transaction in enumerate(transactions):
            may_be_done = number == 0 and transaction.error is None
            for asked in transaction.asked:
                asked.fail(_error_of_lost(asked, may_be_done=may_be_done, too_late=too_late))
        for asked in (asked for batch in self._batches for asked in batch.again):
            asked.fail(_error_of_lost(asked, may_be_done=False, too_late=too_late))
        self._lost()


def _error_of_lost(asked: Asked, *, may_be_done: bool, too_late: bool) -> Exception:
    """Return the error for a statement whose connection is lost."""
    if may_be_done and asked.rows is not None:
        return UnclearError(asked.rows)
    if too_late:
        return utils.OperationalError(AWAY)
    return UnclearError() if may_be_done else BusyError()


def _error_of(result: PGresult) -> BaseException:
    error = psycopg.errors.error_from_result(result)
    return BusyError() if error.sqlstate in _GIVEN_UP else _as_django(error)


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
