"""Models read and written by statements whose text is built once and which PostgreSQL prepares.

The ORM builds the text of a query anew each time, which costs this process ten times what the answer does. So every
message and every reply is read and written by these; everywhere else the ORM says it better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Field, Model
from django.db.models.expressions import DatabaseDefault

from conversations.services.core.sql import row, rows


class PreparedSelect:
    """A statement that reads models: `Select("SELECT {s}, {k} FROM conversations s JOIN contacts k …", s=Conversation,
    k=Contact)`. Each `{alias}` stands for all the columns of its model; they come first and in this order, and other
    columns after them. Values are $1, $2 …
    """

    def __init__(self, statement: str, **models: type[Model]) -> None:
        self._given, self._models = statement, models
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
            self._statement = self._given.format(**{alias: _columns(m, alias) for alias, m in self._models.items()})
        return self._statement

    def _read(self, found: tuple[Any, ...]) -> tuple[Any, ...]:
        read: list[Any] = []
        at = 0
        for model in self._models.values():
            until = at + len(_fields(model))
            read.append(_model(model, found[at:until]))
            at = until
        return (*read, *found[at:])


def follow(record: Model, name: str) -> Any:
    """Return the object that the record's foreign key refers to, or None; read once, as by `record.name`."""
    field = _by_name(type(record))[name]
    key = getattr(record, field.attname)
    if key is not None and not field.is_cached(record):  # type: ignore[attr-defined]
        found = _by_key(field.related_model).first(key)
        setattr(record, name, found[0] if found else None)
    return getattr(record, name)


@cache
def _by_key(model: type[Model]) -> PreparedSelect:
    return PreparedSelect(
        f'SELECT {{r}} FROM "{model._meta.db_table}" r WHERE r."{model._meta.pk.column}" = $1', r=model
    )


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
    """Write the record's fields of these names (all, if None) to its row and return whether there is such a row."""
    names = tuple(names) if names is not None else _names(type(record))
    fields = [_by_name(type(record))[name] for name in names]
    values = _values(record, fields, adding=False)
    return row(_update(type(record), names), *values, record.pk) is not None


@cache
def _fields(model: type[Model]) -> Sequence[Field[Any, Any]]:
    return model._meta.concrete_fields


@cache
def _by_name(model: type[Model]) -> dict[str, Field[Any, Any]]:
    return {field.name: field for field in _fields(model)}


@cache
def _names(model: type[Model]) -> tuple[str, ...]:
    return tuple(field.name for field in _fields(model) if not field.primary_key)


def _given(record: Model) -> Sequence[Field[Any, Any]]:
    """The fields whose values do not come from the database."""
    return [
        field
        for field in _fields(type(record))
        if not isinstance(value := getattr(record, field.attname), DatabaseDefault)
        and not (value is None and field.get_internal_type() in {"AutoField", "BigAutoField"})
    ]


@cache
def _columns(model: type[Model], alias: str) -> str:
    return ", ".join(f'{alias}."{field.column}"' for field in _fields(model))


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
    return f'UPDATE "{model._meta.db_table}" SET {", ".join(written)} WHERE {key} = ${len(names) + 1} RETURNING {key}'


def _values(record: Model, fields: Sequence[Field[Any, Any]], *, adding: bool) -> list[Any]:
    database = connections[DEFAULT_DB_ALIAS]
    return [field.get_db_prep_save(field.pre_save(record, adding), database) for field in fields]


@cache
def _converted(model: type[Model]) -> Sequence[tuple[int, Any]]:
    """The positions of the fields that convert what the database gives, and how."""
    return [(at, field.from_db_value) for at, field in enumerate(_fields(model)) if hasattr(field, "from_db_value")]


@cache
def _attributes(model: type[Model]) -> Sequence[str]:
    return [field.attname for field in _fields(model)]


def _model(model: type[Model], found: tuple[Any, ...]) -> Model | None:
    values = list(found)
    if values[_attributes(model).index(model._meta.pk.attname)] is None:
        return None
    for at, convert in _converted(model):
        values[at] = convert(values[at], None, connections[DEFAULT_DB_ALIAS])
    return model.from_db(DEFAULT_DB_ALIAS, _attributes(model), values)
