"""Prepared statements of a psycopg connection, run by libpq.

A cursor's bookkeeping would cost this process three times as much. Values and rows are adapted as a cursor adapts them;
how the columns of a statement are read is found out once for each connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

Row = tuple[Any, ...]

_GOOD = frozenset(map(int, (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)))
_GONE = "What was prepared on this connection is gone; try again."


@dataclass(slots=True)
class _Statement:
    """A prepared statement: the name it goes by, and what reads its columns, which is known after its first result."""

    name: bytes
    reader: Any = None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A statement with its values as PostgreSQL takes them."""

    statement: _Statement
    values: Any
    formats: Any


class _Prepared:
    """The prepared statements of a connection, by their text and the types of their values."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        # Not the connection itself: this is kept for as long as that lives, and would keep it alive.
        self._adapters = connection.adapters
        self._writer = Transformer.from_context(self._adapters)
        self._statements: dict[tuple[str, tuple[int, ...] | None], _Statement] = {}

    def adapted(self, connection: psycopg.Connection[Any], text: str, values: Sequence[Any]) -> _Sent:
        """Return the statement, prepared, with its values."""
        written: Any = self._writer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = self._writer.types, self._writer.formats
        statement = self._statements.get((text, types))
        if statement is None:
            statement = _Statement(b"convo_%d" % len(self._statements))
            _checked(connection.pgconn.prepare(statement.name, text.encode(), types), connection)
            self._statements[text, types] = statement
        return _Sent(statement, written, formats)

    def read(self, statement: _Statement, result: PGresult) -> list[Row]:
        """Return the rows of a result of the statement."""
        reader = statement.reader
        if reader is None:
            reader = statement.reader = Transformer.from_context(self._adapters)
            reader.set_pgresult(result)
        else:
            reader.set_pgresult(result, set_loaders=False)
        found: list[Row] = reader.load_rows(0, result.ntuples, tuple)
        reader.set_pgresult(None, set_loaders=False)
        return found


_connections: WeakKeyDictionary[psycopg.Connection[Any], _Prepared] = WeakKeyDictionary()


def _prepared_on(connection: psycopg.Connection[Any]) -> _Prepared:
    known = _connections.get(connection)
    if known is None:
        known = _connections[connection] = _Prepared(connection)
    return known


def run(connection: psycopg.Connection[Any], text: str, values: Sequence[Any]) -> list[Row]:
    """Return the rows of a statement with $1, $2 …, in the connection's transaction. Raises psycopg.Error."""
    try:
        return _run(connection, text, values)
    except psycopg.errors.InvalidSqlStatementName:  # somebody had the server forget all that was prepared
        _connections.pop(connection, None)
        if not connection.autocommit:
            raise psycopg.OperationalError(_GONE) from None
        return _run(connection, text, values)


def _run(connection: psycopg.Connection[Any], text: str, values: Sequence[Any]) -> list[Row]:
    libpq, known = connection.pgconn, _prepared_on(connection)
    sent = known.adapted(connection, text, values)
    if not connection.autocommit and libpq.transaction_status == TransactionStatus.IDLE:
        _checked(libpq.exec_(b"BEGIN"), connection)
    result = _checked(libpq.exec_prepared(sent.statement.name, sent.values, sent.formats), connection)
    return known.read(sent.statement, result)


def run_each(connection: psycopg.Connection[Any], text: str, many: Sequence[Sequence[Any]]) -> list[list[Row]]:
    """Return the rows of a statement for each of many values, which are all sent at once. Raises psycopg.Error."""
    libpq, known = connection.pgconn, _prepared_on(connection)
    every = [known.adapted(connection, text, values) for values in many]
    libpq.enter_pipeline_mode()
    for sent in every:
        libpq.send_query_prepared(sent.statement.name, sent.values, sent.formats)
    libpq.pipeline_sync()
    results = []
    for _ in every:
        results.append(libpq.get_result())
        libpq.get_result()  # None: the end of this statement's results
    libpq.get_result()  # the end of all
    if libpq.status == ConnStatus.OK:
        libpq.exit_pipeline_mode()
    return [
        known.read(sent.statement, _of_pipeline(result, connection))
        for sent, result in zip(every, results, strict=True)
    ]


def run_unprepared(connection: psycopg.Connection[Any], text: str, values: Sequence[Any]) -> list[Row]:
    """Return the rows, behind a pooler that shares connections between transactions: nothing may be prepared there."""
    return psycopg.RawCursor(connection).execute(text, values).fetchall()


def _of_pipeline(result: PGresult | None, connection: psycopg.Connection[Any]) -> PGresult:
    """The result, or psycopg's exception for it. What comes after a failure in a pipeline is not run."""
    if result is None:
        raise psycopg.OperationalError("The connection was lost.")
    try:
        return _checked(result, connection)
    except psycopg.errors.InvalidSqlStatementName as error:
        _connections.pop(connection, None)
        raise psycopg.OperationalError(_GONE) from error


def _checked(result: PGresult, connection: psycopg.Connection[Any]) -> PGresult:
    """The result, or psycopg's exception for it.

    An error without an SQLSTATE is libpq's own: the statement could not be written, or no answer came. The status of
    the connection can be good for a while after that.
    """
    if result.status in _GOOD:
        return result
    if connection.pgconn.status != ConnStatus.OK or not result.error_field(DiagnosticField.SQLSTATE):
        raise psycopg.OperationalError(result.get_error_message())
    raise psycopg.errors.error_from_result(result)
