"""SQL where the ORM has no words for it or costs too much, and the connections of threads.

The ORM builds the text of a query anew each time, which costs this process ten times what the answer does. So every
message and every reply is read and written by statements whose text is built once and which PostgreSQL prepares;
everywhere else the ORM says it better.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
)
from django.db.models import Field, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.expressions import DatabaseDefault

from conversations.models.of_client import OfClient
from conversations.services.core import prepared
from conversations.services.core.counters import IN_THREAD

AnyModel = TypeVar("AnyModel", bound=Model)
Result = TypeVar("Result")

DATABASE_AWAY_SECONDS = 60.0


def rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement with $1, $2 …, as part of the transaction if there is one.

    The values travel beside the statement, and PostgreSQL keeps its plan; Django's own cursor would paste them into
    the text and have it planned anew every time. Errors are Django's.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    database.close_if_health_check_failed()
    database.ensure_connection()
    database.validate_no_broken_transaction()
    run = prepared.run if database.connection.prepare_threshold else prepared.run_unprepared
    began = time.perf_counter()
    with _calling(database, statement, values):
        found = run(database.connection, statement, values)
    IN_THREAD.observe(time.perf_counter() - began)
    return found


def rows_of_each(statement: str, many: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
    """Return the rows of a statement with $1, $2 … for each of many values. All are sent at once, in this order.

    Call it in a transaction, which an error undoes as a whole.
    """
    database: Any = connections[DEFAULT_DB_ALIAS]
    database.validate_no_broken_transaction()
    if not many or not database.connection.prepare_threshold:
        return [rows(statement, *values) for values in many]
    with _calling(database, statement, ()):
        return prepared.run_each(database.connection, statement, many)


def _calling(database: Any, statement: str, values: tuple[Any, ...]) -> AbstractContextManager[Any]:
    """A call of PostgreSQL, which raises Django's errors; noted in Django's log of queries, where one is kept."""
    call: AbstractContextManager[Any] = database.wrap_database_errors
    if not database.queries_logged:
        return call
    both = ExitStack()
    both.enter_context(database.make_debug_cursor(None).debug_sql(statement, values))
    both.enter_context(call)
    return both


def row(statement: str, *values: Any) -> tuple[Any, ...] | None:
    """Return the first row of a statement with $1, $2 …, or None."""
    found = rows(statement, *values)
    return found[0] if found else None


def column(statement: str, *values: Any) -> Sequence[Any]:
    """Return the first column of a statement with $1, $2 …."""
    return [first for first, *_ in rows(statement, *values)]


def later(moment: str, interval: str) -> str:
    """Return SQL for the moment after the interval, as an UPDATE may write it where columns are named.

    `timestamptz + interval` depends on the session's time zone. Citus refuses that in an UPDATE, because its servers
    could have different ones. Ours is always UTC.
    """
    return f"(({moment})::timestamptz AT TIME ZONE 'UTC' + {interval}) AT TIME ZONE 'UTC'"


def unlocked(found: QuerySet[AnyModel], client_id: UUID | None = None) -> QuerySet[AnyModel]:
    """Return those of the rows that nobody else holds, locked; change them in the same transaction.

    client_id: the client whose rows they are; None for rows that are no client's

    A statement that changes many rows and waits for each holds the others meanwhile: two that come by them in different
    orders would wait for each other for ever.
    """
    free = found.select_for_update(skip_locked=True).order_by().values("pk")
    ours = found.model._default_manager.filter(pk__in=free)
    return ours.filter(client_id=client_id) if client_id else ours


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


# --- models, read and written by prepared statements ------------------------------------------------------------------
class PreparedSelect:
    """A statement that reads models.

        PreparedSelect("SELECT {s}, {k} FROM conversations s JOIN contacts k …", s=Conversation, k=Contact)

    Each `{alias}` stands for all the columns of its model; they come first and in this order, and other columns after
    them. Values are $1, $2 …

    left_out: names of fields, of any of the models, that are not read; Django reads one when somebody asks for it, and
    `update` leaves it as it is
    """

    def __init__(self, statement: str, *, left_out: Iterable[str] = (), **models: type[Model]) -> None:
        self._given, self._models, self._left_out = statement, models, frozenset(left_out)
        self._statement = ""

    def all(self, *values: Any) -> list[tuple[Any, ...]]:
        """Return a tuple for each row: the models, None where an outer join found none, and the other columns."""
        return [self._read(found) for found in rows(self._text(), *values)]

    def first(self, *values: Any) -> tuple[Any, ...] | None:
        """Return the first row's tuple, or None."""
        found = row(self._text(), *values)
        return self._read(found) if found else None

    def _text(self) -> str:
        if not self._statement:  # the models' columns are known once all apps are loaded
            columns = {alias: _columns(m, alias, self._left_out) for alias, m in self._models.items()}
            self._statement = self._given.format(**columns)
        return self._statement

    def _read(self, found: tuple[Any, ...]) -> tuple[Any, ...]:
        read: list[Any] = []
        at = 0
        for model in self._models.values():
            until = at + len(_read_fields(model, self._left_out))
            read.append(_model(model, found[at:until], self._left_out))
            at = until
        return (*read, *found[at:])


_EARLIER = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND GREATEST(age(backend_xid), age(backend_xmin)) >= age($1::text::xid))"""
EARLIER_SECONDS = 1.0  # at most


def current_transaction() -> str:
    """Return the id of the transaction, for `wait_for_earlier`."""
    [found] = column("SELECT pg_current_xact_id()::xid::text")
    return str(found)


def wait_for_earlier(transaction: str) -> None:
    """Wait until no other transaction is left that may not have seen this one, which has ended; a second at most.

    What they wrote can be read then. Within a transaction, where it could not, nothing is waited for.
    """
    until = time.monotonic() + EARLIER_SECONDS
    while not connection.in_atomic_block and time.monotonic() < until and column(_EARLIER, transaction)[0]:
        release_connection()
        time.sleep(0.01)


def follow(record: Model, name: str) -> Any:
    """Return the object that the record's foreign key refers to, or None; read once, as by `record.name`."""
    field = _by_name(type(record))[name]
    key = getattr(record, field.attname)
    if key is not None and not field.is_cached(record):  # type: ignore[attr-defined]
        found = _by_key(field.related_model).first(key, *_client_of(record, field.related_model))
        setattr(record, name, found[0] if found else None)
    return getattr(record, name)


@cache
def _by_key(model: type[Model]) -> PreparedSelect:
    of_client = " AND r.client_id = $2" if issubclass(model, OfClient) else ""
    key = model._meta.pk.column
    return PreparedSelect(f'SELECT {{r}} FROM "{model._meta.db_table}" r WHERE r."{key}" = $1{of_client}', r=model)


def _client_of(record: Model, model: type[Model] | None) -> list[Any]:
    """The record's client, by which a row of this model is found too, where it is a client's."""
    return [record.client_id] if model and issubclass(model, OfClient) else []  # type: ignore[attr-defined]


def insert(records: Sequence[Model]) -> None:
    """Insert the records, all of one model, and set on them what the database gives, such as keys."""
    for record in records:
        fields = _given(record)
        statement, from_database = _insert(type(record), tuple(field.name for field in fields))
        found = row(statement, *_values(record, fields, adding=True))
        for field, value in zip(from_database, found or (), strict=True):
            setattr(record, field.attname, value)
        record._state.adding = False
        record._state.db = DEFAULT_DB_ALIAS


def update(record: Model, names: Iterable[str] | None = None) -> bool:
    """Write the record's fields of these names to its row and return whether there is such a row.

    names: None for all that were read or set
    """
    if names is None:
        names = [name for name, attribute in _writable(type(record)) if attribute in record.__dict__]
    names = tuple(names)
    fields = [_by_name(type(record))[name] for name in names]
    values = _values(record, fields, adding=False)
    found = row(_update(type(record), names), *values, record.pk, *_client_of(record, type(record)))
    return found is not None


@cache
def _fields(model: type[Model]) -> Sequence[Field[Any, Any]]:
    return model._meta.concrete_fields


@cache
def _by_name(model: type[Model]) -> dict[str, Field[Any, Any]]:
    return {field.name: field for field in _fields(model)}


@cache
def _writable(model: type[Model]) -> Sequence[tuple[str, str]]:
    """The names of the fields that may be written, and of their attributes."""
    of_client = issubclass(model, OfClient)  # a row stays its client's
    return [
        (field.name, field.attname)
        for field in _fields(model)
        if not field.primary_key and not (of_client and field.name == "client")
    ]


def _given(record: Model) -> Sequence[Field[Any, Any]]:
    """The fields whose values do not come from the database."""
    return [
        field
        for field in _fields(type(record))
        if not isinstance(value := getattr(record, field.attname), DatabaseDefault)
        and not (value is None and field.get_internal_type() in {"AutoField", "BigAutoField"})
    ]


@cache
def _read_fields(model: type[Model], left_out: frozenset[str]) -> Sequence[Field[Any, Any]]:
    return [field for field in _fields(model) if field.name not in left_out]


def _columns(model: type[Model], alias: str, left_out: frozenset[str]) -> str:
    return ", ".join(f'{alias}."{field.column}"' for field in _read_fields(model, left_out))


@cache
def _insert(model: type[Model], names: tuple[str, ...]) -> tuple[str, Sequence[Field[Any, Any]]]:
    """The statement that writes the fields of these names, and the fields that it returns."""
    columns = ", ".join(f'"{_by_name(model)[name].column}"' for name in names)
    values = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    from_database = [field for field in _fields(model) if field.name not in names] or [model._meta.pk]
    returned = ", ".join(f'"{field.column}"' for field in from_database)
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({values}) RETURNING {returned}', from_database


@cache
def _update(model: type[Model], names: tuple[str, ...]) -> str:
    written = [f'"{_by_name(model)[name].column}" = ${number}' for number, name in enumerate(names, start=1)]
    key = f'"{model._meta.pk.column}"'
    of_client = f" AND client_id = ${len(names) + 2}" if issubclass(model, OfClient) else ""
    table = model._meta.db_table
    return f'UPDATE "{table}" SET {", ".join(written)} WHERE {key} = ${len(names) + 1}{of_client} RETURNING {key}'


def _values(record: Model, fields: Sequence[Field[Any, Any]], *, adding: bool) -> list[Any]:
    database = connections[DEFAULT_DB_ALIAS]
    return [field.get_db_prep_save(field.pre_save(record, adding), database) for field in fields]


@dataclass(frozen=True, slots=True)
class _Reader:
    """The way from rows to records of a model.

    names       of the attributes, in the order of the columns
    key         the position of the primary key
    converted   the positions of the fields that convert what the database gives, and how
    """

    names: Sequence[str]
    key: int
    converted: Sequence[tuple[int, Any]]


@cache
def _reader(model: type[Model], left_out: frozenset[str]) -> _Reader:
    fields = _read_fields(model, left_out)
    names = [field.attname for field in fields]
    converted = [(at, field.from_db_value) for at, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return _Reader(names, names.index(model._meta.pk.attname), converted)


def _model(model: type[Model], found: tuple[Any, ...], left_out: frozenset[str]) -> Model | None:
    reader = _reader(model, left_out)
    if found[reader.key] is None:
        return None
    values, database = list(found), connections[DEFAULT_DB_ALIAS]
    for at, convert in reader.converted:
        values[at] = convert(values[at], None, database)
    # Model.from_db would set one attribute after the other, which takes four times as long and does no more here.
    record = model.__new__(model)
    record._state = ModelState()
    record._state.adding, record._state.db = False, DEFAULT_DB_ALIAS
    record.__dict__.update(zip(reader.names, values, strict=True))
    return record


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
