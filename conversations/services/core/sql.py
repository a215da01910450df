"""SQL where the ORM has no words for it or costs too much, and the connections of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
)
from django.db.models import Model, QuerySet
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

AnyModel = TypeVar("AnyModel", bound=Model)
Result = TypeVar("Result")

DATABASE_AWAY_SECONDS = 60.0

# What each connection has prepared: (statement, types of its values) and the name it goes by there.
_names: WeakKeyDictionary[psycopg.Connection[Any], dict[tuple[str, tuple[int, ...] | None], bytes]] = (
    WeakKeyDictionary()
)


def rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement with $1, $2 …, as part of the transaction if there is one.

    The values travel beside the statement, and PostgreSQL keeps its plan; Django's own cursor would paste them into
    the text and have it planned anew every time. Errors are Django's.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    database.close_if_health_check_failed()
    database.ensure_connection()
    database.validate_no_broken_transaction()
    read = _prepared if database.connection.prepare_threshold else _unprepared
    with _noted(database, statement, values), database.wrap_database_errors:
        return read(database.connection, statement, values)


def _noted(database: Any, statement: str, values: tuple[Any, ...]) -> AbstractContextManager[None]:
    """The statement in Django's log of queries, where one is kept."""
    if not database.queries_logged:
        return nullcontext()
    noted: AbstractContextManager[None] = database.make_debug_cursor(None).debug_sql(statement, values)
    return noted


def _unprepared(connection: psycopg.Connection[Any], statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows, behind a pooler that shares connections between transactions: nothing may be prepared there."""
    return psycopg.RawCursor(connection).execute(statement, values).fetchall()


def _prepared(connection: psycopg.Connection[Any], statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows, by one call of libpq: a cursor's bookkeeping costs this process three times as much. Values and rows
    are adapted as a cursor adapts them."""
    adapter = Transformer.from_context(connection)
    parameters: Any = adapter.dump_sequence(values, [PyFormat.AUTO] * len(values))
    if not connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE:
        _checked(connection.pgconn.exec_(b"BEGIN"), connection)

    def execute() -> PGresult:
        name = _name_of(connection, statement, adapter.types)
        return _checked(connection.pgconn.exec_prepared(name, parameters, adapter.formats), connection)

    try:
        result = execute()
    except psycopg.errors.InvalidSqlStatementName:  # somebody had the server forget all that was prepared
        _names.pop(connection, None)
        if not connection.autocommit:
            raise psycopg.OperationalError("What was prepared on this connection is gone; try again.") from None
        result = execute()
    adapter.set_pgresult(result)
    return adapter.load_rows(0, result.ntuples, tuple)


def _name_of(connection: psycopg.Connection[Any], statement: str, types: tuple[int, ...] | None) -> bytes:
    """The name of the statement, with values of these types, on this connection; it is prepared at its first use."""
    names = _names.setdefault(connection, {})
    name = names.get((statement, types))
    if name is None:
        name = b"convo_%d" % len(names)
        _checked(connection.pgconn.prepare(name, statement.encode(), types), connection)
        names[statement, types] = name
    return name


def _checked(result: PGresult, connection: psycopg.Connection[Any]) -> PGresult:
    """The result, or psycopg's exception for it."""
    if result.status in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK}:
        return result
    if connection.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError(result.get_error_message())
    raise psycopg.errors.error_from_result(result)


def row(statement: str, *values: Any) -> tuple[Any, ...] | None:
    """Return the first row of a statement with $1, $2 …, or None."""
    found = rows(statement, *values)
    return found[0] if found else None


def column(statement: str, *values: Any) -> Sequence[Any]:
    """Return the first column of a statement with $1, $2 …."""
    return [first for first, *_ in rows(statement, *values)]


def unlocked(found: QuerySet[AnyModel]) -> QuerySet[AnyModel]:
    """Return those of the rows that nobody else holds, locked; change them in the same transaction.

    A statement that changes many rows and waits for each holds the others meanwhile: two that come by them in different
    orders would wait for each other for ever.
    """
    free = found.select_for_update(skip_locked=True).order_by().values("pk")
    return found.model._default_manager.filter(pk__in=free)


@contextmanager
def exclusively(name: str) -> Iterator[bool]:
    """Yield True if no other process is within a block of this name; the lock goes with the connection, however the
    process ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [name])
        [(is_ours,)] = cursor.fetchall()
        try:
            yield is_ours
        finally:
            if is_ours:
                cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])


# --- connections of threads -------------------------------------------------------------------------------------------
def release_connection() -> None:
    """Close this thread's connection before it waits for something else; the next statement opens one.

    Within a transaction nothing happens.
    """
    database = connections[DEFAULT_DB_ALIAS]
    if not database.in_atomic_block:
        database.close()


def with_retry(work: Callable[..., Result], *arguments: Any) -> Result:
    """Return the result of work on rows, repeated for up to a minute while the database is away.

    What a provider or a model has answered is worth waiting for. Raises OperationalError or InterfaceError after that.
    """
    deadline = time.monotonic() + DATABASE_AWAY_SECONDS
    while True:
        try:
            close_old_connections()
            return work(*arguments)
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def close_connections(pool: ThreadPoolExecutor, threads: int, patience: float) -> None:
    """Close the connections of all threads of the pool and of this one, within `patience` seconds."""
    together = threading.Barrier(threads)  # so that no thread closes twice and another never

    def close() -> None:
        together.wait(patience)
        connection.close()

    wait([pool.submit(close) for _ in range(threads)], timeout=patience)
    connection.close()
