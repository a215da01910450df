"""How services speak SQL where the ORM has no words for it, or costs too much on the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from django.db import connection
from django.db.models import Model, QuerySet

AnyModel = TypeVar("AnyModel", bound=Model)


def rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows that a statement with $1, $2 … returns.

    The values travel beside the statement, and PostgreSQL keeps its plan (psycopg prepares what it has seen a few
    times); Django's own cursor would paste them into the text and have it planned anew every time. Errors are Django's.
    """
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    wrap: Any = connection.make_debug_cursor if connection.queries_logged else connection.make_cursor
    with wrap(psycopg.RawCursor(connection.connection)) as cursor:
        cursor.execute(statement, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def row(statement: str, *values: Any) -> tuple[Any, ...] | None:
    """The only row of a statement with $1, $2 …, or None."""
    found = rows(statement, *values)
    return found[0] if found else None


def column(statement: str, *values: Any) -> Sequence[Any]:
    """The first column of a statement with $1, $2 …."""
    return [first for first, *_ in rows(statement, *values)]


def unlocked(found: QuerySet[AnyModel]) -> QuerySet[AnyModel]:
    """Those of the rows that nobody else holds; to be changed in the transaction that asks for them.

    Who changes many rows and waits for each holds others meanwhile, and two who come by them in different orders would
    wait for each other for ever.
    """
    free = found.select_for_update(skip_locked=True).order_by().values("pk")
    return found.model._default_manager.filter(pk__in=free)
