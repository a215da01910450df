"""Conditions for the checks of tables that are written all the time.

PostgreSQL keeps a check as a parsed tree in text, and reads all of a table's checks from it again for every statement
that writes to the table, whichever columns that touches. What a check costs is the length of that text; Django's `Q`
makes it several times as long as it need be. With short ones an append to a session takes PostgreSQL a third less.
"""

from __future__ import annotations

from string import Formatter
from typing import Any

from django.db import models


class Rule(models.Func):
    """A condition in SQL, in which {0}, {1} … stand for the columns that are named after it."""

    output_field = models.BooleanField()

    def __init__(self, sql: str, *columns: str, **extra: Any) -> None:
        super().__init__(*columns, **extra)
        self.condition = sql

    def as_sql(self, compiler: Any, connection: Any, **more: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        """The condition with the columns, or what is to be tried in their stead, in their places."""
        parts: list[str] = []
        values: list[Any] = []
        for text, place, _, _ in Formatter().parse(self.condition):
            parts.append(text)
            if place is not None:
                column, given = compiler.compile(self.source_expressions[int(place)])
                parts.append(column)
                values += given
        return "".join(parts), values


def one_of(column: str, words: Any) -> Rule:
    """Whether a column of text holds one of the words."""
    quoted = ",".join(f'"{word}"' for word in words)
    return Rule("{0} = ANY ('{{" + quoted + "}}'::text[])", column)


def none_negative(*columns: str) -> Rule:
    """Whether all of the numbers are zero or more."""
    places = ", ".join(f"{{{number}}}" for number in range(len(columns)))
    return Rule(f"LEAST({places}) >= 0", *columns)
