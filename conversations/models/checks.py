"""Short conditions for the check constraints of tables that are written often.

PostgreSQL stores a check as a parsed tree in text, and parses all checks of a table again for every statement that
writes to the table, whichever columns it writes. The cost of a check is the length of that text, and Django's `Q` makes
it several times as long as necessary. With short checks an append to a conversation takes PostgreSQL a third less.
"""

from __future__ import annotations

from string import Formatter
from typing import Any

from django.db import models


class Rule(models.Func):
    """A condition in SQL; {0}, {1} … stand for the columns that are named after it."""

    output_field = models.BooleanField()

    def __init__(self, sql: str, *columns: str, **extra: Any) -> None:
        super().__init__(*columns, **extra)
        self.condition = sql

    def as_sql(self, compiler: Any, connection: Any, **more: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        """Return the condition with the columns (or the values that are validated in their stead) filled in."""
        parts: list[str] = []
        values: list[Any] = []
        for text, field, _, _ in Formatter().parse(self.condition):
            parts.append(text)
            if field is not None:
                column, given = compiler.compile(self.source_expressions[int(field)])
                parts.append(column)
                values += given
        return "".join(parts), values


def one_of(column: str, words: Any) -> Rule:
    """Return the condition that a column of text is one of the words."""
    quoted = ",".join(f'"{word}"' for word in words)
    return Rule("{0} = ANY ('{{" + quoted + "}}'::text[])", column)


def none_negative(*columns: str) -> Rule:
    """Return the condition that all of the numbers are zero or more."""
    places = ", ".join(f"{{{number}}}" for number in range(len(columns)))
    return Rule(f"LEAST({places}) >= 0", *columns)
