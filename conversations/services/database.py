"""How services speak SQL where the ORM has no words for it, or costs too much on the hot path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import Model, QuerySet
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

AnyModel = TypeVar("AnyModel", bound=Model)

# What each connection has prepared: (statement, types of its values) and the name it goes by there.
_names: WeakKeyDictionary[psycopg.Connection[Any], dict[tuple[str, tuple[int, ...] | None], bytes]] = (
    WeakKeyDictionary()
)


def rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows that a statement with $1, $2 … returns.

    The values travel beside the statement, and PostgreSQL keeps its plan; Django's own cursor would paste them into
    the text and have it planned anew every time. Errors are Django's.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    database.close_if_health_check_failed()
    database.ensure_connection()
    if database.queries_logged or database.in_atomic_block or not _kept_plans(database):
        return _through_a_cursor(database, statement, values)
    with database.wrap_database_errors:
        return _prepared(database.connection, statement, values)


def _kept_plans(database: Any) -> bool:
    """Whether statements may be prepared; not behind a pooler that shares connections between transactions."""
    return database.connection.prepare_threshold is not None and database.get_autocommit()


def _through_a_cursor(database: Any, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Part of a transaction, or written to a log; psycopg prepares what it has seen a few times."""
    wrap = database.make_debug_cursor if database.queries_logged else database.make_cursor
    with wrap(psycopg.RawCursor(database.connection)) as cursor:
        cursor.execute(statement, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _prepared(connection: psycopg.Connection[Any], statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """A statement that is a transaction of its own: one call of libpq, without the cursor, whose bookkeeping costs
    this process three times as much. Values and rows are adapted as a cursor adapts them."""
    adapter = Transformer.from_context(connection)
    parameters: Any = adapter.dump_sequence(values, [PyFormat.AUTO] * len(values))

    def execute() -> PGresult:
        name = _name_of(connection, statement, adapter.types)
        return _checked(connection.pgconn.exec_prepared(name, parameters, adapter.formats), connection)

    try:
        result = execute()
    except psycopg.errors.InvalidSqlStatementName:
        # psycopg, which knows nothing of ours, lets the server forget all that was prepared after a rollback to a
        # savepoint. Nothing was done yet: once more, prepared anew.
        _names.pop(connection, None)
        result = execute()
    adapter.set_pgresult(result)
    return adapter.load_rows(0, result.ntuples, tuple)


def _name_of(connection: psycopg.Connection[Any], statement: str, types: tuple[int, ...] | None) -> bytes:
    """What the statement, with values of these types, is called on this connection; it is prepared at its first use."""
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
    """The only row of a statement with $1, $2 …, or None."""
    found = rows(statement, *values)
    return found[0] if found else None


def column(statement: str, *values: Any) -> Sequence[Any]:
    """The first column of a statement with $1, $2 …."""
    return [first for first, *_ in rows(statement, *values)]


def give_back() -> None:
    """This thread holds no connection until it asks for something again; within a transaction it keeps it."""
    database = connections[DEFAULT_DB_ALIAS]
    if not database.in_atomic_block:
        database.close()


def unlocked(found: QuerySet[AnyModel]) -> QuerySet[AnyModel]:
    """Those of the rows that nobody else holds; to be changed in the transaction that asks for them.

    Who changes many rows and waits for each holds others meanwhile, and two who come by them in different orders would
    wait for each other for ever.
    """
    free = found.select_for_update(skip_locked=True).order_by().values("pk")
    return found.model._default_manager.filter(pk__in=free)


def let_go() -> None:
    """This thread holds no connection while it waits for something else; the next statement opens one. Within a
    transaction nothing happens."""
    database = connections[DEFAULT_DB_ALIAS]
    if not database.in_atomic_block:
        database.close()


@contextmanager
def alone(name: str) -> Iterator[bool]:
    """Whether no other process does this now; the lock goes with the connection, however the process ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [name])
        [(alone,)] = cursor.fetchall()
        try:
            yield alone
        finally:
            if alone:
                cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
