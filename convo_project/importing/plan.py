"""The tables that `manage.py import_database` copies, and how each row's values are selected.

A table's columns are those that both databases have. What refers to a content type or a permission travels by its name,
since their numbers differ. `client_id` is found through the row that a row belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from convo_project.home import CannotStartError

LEFT_OUT_APPS = {"django_q"}  # tasks have no arguments, and setup_schedules makes the schedules
LEFT_OUT_COLUMNS = {"event_numbering": {"doubt_upto", "doubt_holders"}}  # transactions of the source's server
# The user whose session with the copilot the conversation {} of the row `t` is.
LOGIN = """
    (SELECT p.login_id FROM conversations s JOIN contacts p ON p.id = s.contact_id
     WHERE s.id = {} AND s.channel = 'web' AND s.thread <> '')"""
OF_CHUNK = "(SELECT k.conversation_id FROM conversation_chunks k WHERE k.id = t.chunk_id)"
# Values of columns that the source lacks, where new rows get another: old tools name no files for people.
OF_OLD_ROWS = {
    ("tools", "sends_files"): sql.Literal(False),
    ("conversations", "login_id"): sql.SQL(LOGIN.format("t.id")),
    **{
        (table, "login_id"): sql.SQL(LOGIN.format("t.conversation_id"))
        for table in ("conversation_chunks", "conversation_turns", "copilot_feedback")
    },
    ("chunk_corrections", "login_id"): sql.SQL(LOGIN.format(OF_CHUNK)),
}
CONTENT_TYPES, PERMISSIONS = "django_content_type", "auth_permission"  # made by migrations
CLIENT = "client_id"

# Names for what is numbered anew: a query of the name in the source, of the number here. {} is the given value.
NAMES = {
    CONTENT_TYPES: (
        "(SELECT c.app_label || '.' || c.model FROM django_content_type c WHERE c.id = {})",
        "(SELECT c.id FROM django_content_type c WHERE c.app_label || '.' || c.model = {})",
    ),
    PERMISSIONS: (
        "(SELECT c.app_label || '.' || c.model || '.' || p.codename FROM auth_permission p"
        " JOIN django_content_type c ON c.id = p.content_type_id WHERE p.id = {})",
        "(SELECT p.id FROM auth_permission p JOIN django_content_type c ON c.id = p.content_type_id"
        " WHERE c.app_label || '.' || c.model || '.' || p.codename = {})",
    ),
}
OLDEST_CLIENT = sql.SQL("(SELECT c.id FROM clients c ORDER BY c.created_at, c.id LIMIT 1)")

Columns = Mapping[str, frozenset[str]]  # of the source, by table


@dataclass(frozen=True)
class Column:
    """A column of the target, its value in the source as SQL, and what it is numbered by ('' for most)."""

    name: str
    value: sql.Composable
    named_by: str = ""
    is_required: bool = True


@dataclass(frozen=True)
class Table:
    """A table that is copied.

    rows        the source's rows as SQL: FROM and what follows
    refers_to   the tables whose rows must be there before
    serial      the column that is numbered by a sequence, '' if none is
    left_behind the columns that only the source has
    """

    name: str
    columns: tuple[Column, ...]
    rows: sql.Composable
    refers_to: frozenset[str]
    serial: str
    left_behind: tuple[str, ...]

    def select(self, what: sql.Composable) -> sql.Composed:
        """Return the query of the source's rows, with `what` of each."""
        return sql.SQL("SELECT {} {}").format(what, self.rows)


def tables(source: Columns) -> list[Table]:
    """Return the tables that both databases have. Raises CannotStartError if a required value is nowhere."""
    return [_table(model, source) for model in _models() if model._meta.db_table in source]


def groups(found: list[Table]) -> Iterator[list[Table]]:
    """Yield the tables in the order in which they refer to one another; together those that do so mutually."""
    left = {each.name: each for each in found}
    while left:
        # What refers to the fewest that are still to come, itself included, refers to nothing outside of them.
        names = min((_reached(name, left) for name in left), key=len)
        yield [left.pop(name) for name in list(left) if name in names]


def encrypted_columns(source: Columns) -> Iterator[tuple[str, str]]:
    """Yield table and column of what is stored encrypted."""
    from conversations.models.fields import EncryptedJSONField

    for model in _models():
        for field in model._meta.local_concrete_fields:
            if isinstance(field, EncryptedJSONField) and field.column in source.get(model._meta.db_table, ()):
                yield model._meta.db_table, str(field.column)


def _models() -> list[Any]:
    from django.apps import apps

    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
        if model._meta.app_label not in LEFT_OUT_APPS and model._meta.db_table not in NAMES
    ]


def _reached(name: str, left: Mapping[str, Table]) -> set[str]:
    found, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += [each for each in left[current].refers_to if each in left]
    return found


def _table(model: Any, source: Columns) -> Table:
    from django.db.models import AutoField

    table = model._meta.db_table
    fields = [field for field in model._meta.local_concrete_fields if field.column and not field.generated]
    columns, rows = [], sql.SQL("FROM {} t").format(sql.Identifier(table))
    for field in fields:
        if field.column in LEFT_OUT_COLUMNS.get(table, ()):
            continue
        if field.column in source[table]:
            columns.append(_kept(field))
        elif field.column == CLIENT:
            value, joins = _client(model, source)
            columns.append(Column(CLIENT, value))
            rows += joins
        elif (default := _of_old_rows(table, field.column, source) or _default(field)) is not None:
            columns.append(Column(field.column, default))
    return Table(
        name=table,
        columns=tuple(columns),
        rows=rows,
        refers_to=frozenset(f.remote_field.model._meta.db_table for f in fields if f.remote_field) - {table},
        serial=next((str(field.column) for field in fields if isinstance(field, AutoField)), ""),
        left_behind=tuple(sorted(source[table] - {field.column for field in fields})),
    )


def _kept(field: Any) -> Column:
    value: sql.Composable = sql.Identifier("t", field.column)
    named_by = field.remote_field.model._meta.db_table if field.remote_field else ""
    if named_by not in NAMES:
        return Column(field.column, value)
    return Column(field.column, sql.SQL(NAMES[named_by][0]).format(value), named_by, not field.null)


def _of_old_rows(table: str, column: str, source: Columns) -> sql.Composable | None:
    """Return the value of OF_OLD_ROWS; None also where the source knows no sessions with the copilot."""
    if column == "login_id" and not (column in source["contacts"] and "thread" in source["conversations"]):
        return None
    return OF_OLD_ROWS.get((table, column))


def _default(field: Any) -> sql.Composable | None:
    """Return the value of a column that the source lacks; None if the database itself knows one."""
    from django.db import connection

    if field.null or field.has_db_default():
        return None
    if not field.has_default():
        raise CannotStartError(
            f"The source has no {field.model._meta.db_table}.{field.column}, and there is no value for it. "
            "Migrate the source with Convo 0.2 first."
        )
    return sql.Literal(field.get_db_prep_save(field.get_default(), connection))


def _client(model: Any, source: Columns) -> tuple[sql.Composable, sql.Composed]:
    """Return the client of a row `t` of the model, and the joins that this takes.

    A row that names nothing of a client's is every client's; one that may name something and does not, the oldest's.
    """
    way = _way(model, source)
    if way is None:
        return sql.SQL("every.id"), sql.SQL(" CROSS JOIN clients every").format()
    joins, alias, is_sure = sql.SQL("").format(), "t", True
    for number, field in enumerate(way):
        is_sure = is_sure and not field.null
        target = field.target_field
        joins += sql.SQL(" {} {} {} ON {} = {}").format(
            sql.SQL("JOIN" if is_sure else "LEFT JOIN"),
            sql.Identifier(target.model._meta.db_table),
            sql.Identifier(f"of{number}"),
            sql.Identifier(f"of{number}", target.column),
            sql.Identifier(alias, field.column),
        )
        alias = f"of{number}"
    client: sql.Composable = sql.Identifier(alias, CLIENT)
    if not is_sure and not model._meta.get_field("client").null:
        client = sql.SQL("COALESCE({}, {})").format(client, OLDEST_CLIENT)
    return client, joins


def _way(model: Any, source: Columns) -> list[Any] | None:
    """Return the foreign keys that lead from the model to a row with a client, None if none do."""
    keys = [field for field in model._meta.local_concrete_fields if field.remote_field and field.column != CLIENT]
    for field in sorted(keys, key=lambda each: each.null):
        other = field.remote_field.model
        if field.column not in source.get(model._meta.db_table, ()) or not any(
            each.column == CLIENT for each in other._meta.local_concrete_fields
        ):
            continue
        if CLIENT in source.get(other._meta.db_table, ()):
            return [field]
        if (more := _way(other, source)) is not None:
            return [field, *more]
    return None
