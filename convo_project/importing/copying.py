"""Copies tables from one connection to another, in transactions that can be repeated."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from convo_project.home import CannotStartError
from convo_project.importing.plan import NAMES, Column, Table
from convo_project.terminal import say

PROGRESS_SECONDS = 10.0
ALIKE = """
    SET datestyle = 'ISO, MDY'; SET intervalstyle = postgres; SET timezone = 'UTC'; SET extra_float_digits = 3;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"""

Connection = psycopg.Connection[Any]


def copy(source: Connection, target: Connection, group: list[Table]) -> None:
    """Copy the tables in one transaction of the target. Rows that are there already stay.

    Raises CannotStartError if a row breaks a rule of the target, or if other rows than the source's are in its place.
    """
    try:
        with target.transaction():
            counts = [_copy(source, target, table) for table in group]
    except psycopg.IntegrityError as problem:
        raise CannotStartError(
            f"A row of {' or '.join(each.name for each in group)} in the source breaks the rule "
            f"{problem.diag.constraint_name or problem.sqlstate}. Mend it there with the earlier version, then run "
            "this again. Tables that are copied stay."
        ) from None
    for table, count in zip(group, counts, strict=True):
        say(f"  {table.name}: {count}")


def count(source: Connection, table: Table) -> int:
    """Return how many rows would be copied."""
    return _number(source, table.select(sql.SQL("count(*)")))


def take_all_as_told(target: Connection) -> None:
    """Let what was copied be no news: of a source that knew no events, nothing becomes one."""
    for source, table in (("chunk", "conversation_chunks"), ("ledger", "conversation_events")):
        target.execute(
            sql.SQL(
                "INSERT INTO event_numbering (source, numbered)"
                " SELECT {}, format('{{[0,%s)}}', COALESCE(max(id), 0) + 1) FROM {} ON CONFLICT DO NOTHING"
            ).format(sql.Literal(source), sql.Identifier(table))
        )


def _copy(source: Connection, target: Connection, table: Table) -> str:
    """Copy a table inside a transaction, and return what was done in words."""
    target.execute(_incoming(table))
    came = _stream(source, target, table)
    columns = _names(table)
    stored = target.execute(
        sql.SQL("INSERT INTO {} ({}) {} ON CONFLICT DO NOTHING").format(
            sql.Identifier(table.name), columns, _arrived(table)
        )
    ).rowcount
    arrived = _number(target, sql.SQL("SELECT count(*) FROM ({}) a").format(_arrived(table))) if stored < came else came
    if stored < arrived:
        _refuse_others(target, table)
    target.execute("DROP TABLE incoming")
    if table.serial:
        _go_on_counting(source, target, table)
    there = f", {arrived - stored:,} were there" if stored < arrived else ""
    lost = f", {came - arrived:,} left out (they name what this version does not have)" if arrived < came else ""
    return f"{stored:,} rows{there}{lost}"


def _incoming(table: Table) -> sql.Composed:
    values = [
        sql.SQL("NULL::text AS {0}" if each.named_by else "{0}").format(sql.Identifier(each.name))
        for each in table.columns
    ]
    return sql.SQL("CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
        sql.SQL(", ").join(values), sql.Identifier(table.name)
    )


def _stream(source: Connection, target: Connection, table: Table) -> int:
    """Copy the source's rows into the table `incoming`, and return how many there are."""
    out = sql.SQL("COPY ({}) TO STDOUT").format(table.select(sql.SQL(", ").join(each.value for each in table.columns)))
    into = sql.SQL("COPY incoming ({}) FROM STDIN").format(_names(table))
    rows, say_at = 0, time.monotonic() + PROGRESS_SECONDS
    with source.cursor().copy(out) as reading, target.cursor().copy(into) as writing:
        for row in reading:
            writing.write(row)
            rows += 1
            if rows % 1000 == 0 and time.monotonic() > say_at:
                say(f"  {table.name}: {rows:,} rows so far")
                say_at = time.monotonic() + PROGRESS_SECONDS
    return rows


def _arrived(table: Table) -> sql.Composed:
    """Return the query of the rows of `incoming` that belong here, as they are to be stored."""
    conditions = [
        sql.SQL("{} IS NOT NULL").format(_here(each)) for each in table.columns if each.named_by and each.is_required
    ]
    return sql.SQL("SELECT {} FROM incoming i WHERE {}").format(
        sql.SQL(", ").join(map(_here, table.columns)), sql.SQL(" AND ").join([sql.SQL("true"), *conditions])
    )


def _here(column: Column) -> sql.Composed:
    value = sql.SQL("{}").format(sql.Identifier("i", column.name))
    return sql.SQL(NAMES[column.named_by][1]).format(value) if column.named_by else value


def _refuse_others(target: Connection, table: Table) -> None:
    """Raise CannotStartError if rows of the source are missing, because others are in their place."""
    differing = _number(
        target,
        sql.SQL("SELECT count(*) FROM ({} EXCEPT ALL SELECT {} FROM {}) d").format(
            _arrived(table), _names(table), sql.Identifier(table.name)
        ),
    )
    if differing:
        raise CannotStartError(
            f"{differing:,} rows of {table.name} are here with other contents: one of the two databases was used since "
            "an earlier import. Import into a new database, while Convo runs on neither."
        )


def _go_on_counting(source: Connection, target: Connection, table: Table) -> None:
    """Let new rows have higher numbers than any that the source gave away."""
    given = 0
    name = source.execute("SELECT pg_get_serial_sequence(%s, %s)", [table.name, table.serial]).fetchone()
    if name and name[0]:
        given = _number(source, sql.SQL("SELECT last_value FROM {}").format(sql.SQL(name[0])))
    target.execute(
        sql.SQL(
            "SELECT setval(pg_get_serial_sequence({0}, {1}), greatest({2}, (SELECT max({3}) FROM {4}), "
            "nextval(pg_get_serial_sequence({0}, {1}))))"
        ).format(
            sql.Literal(table.name),
            sql.Literal(table.serial),
            sql.Literal(given),
            sql.Identifier(table.serial),
            sql.Identifier(table.name),
        )
    )


def _names(table: Table) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(each.name) for each in table.columns)


def _number(connection: Connection, query: sql.Composed) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0
