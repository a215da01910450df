"""The statements of requests that wait at the same time, gathered to as few as possible.

Most of what a statement costs PostgreSQL is its start. So statements that have a form for many (`statements.Many`) are
sent as one, with their values as JSON. Two that are about the same are not in one: the second comes after it, alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from conversations.services.core.statements import Many, Row

JSON = 114  # the type's number in pg_type
_NAMES = [f"v{number}" for number in range(1, 100)]


@dataclass(slots=True, eq=False)
class Asked:
    """A statement that somebody waits for. `writes`: it may change rows. `many`: its form for many, if it has one."""

    statement: str
    values: Sequence[Any]
    future: asyncio.Future[list[Row]]
    writes: bool
    many: Many | None = None
    rows: list[Row] | None = None

    def answer(self) -> None:
        """Give the rows, unless whoever asked is gone."""
        if not self.future.done():
            self.future.set_result(self.rows or [])

    def fail(self, error: BaseException) -> None:
        """Give the error, unless whoever asked is gone."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Together:
    """Statements that one for many is sent for."""

    many: Many
    asked: list[Asked]

    def take(self, rows: list[Row]) -> None:
        """Give each statement its rows, which begin with its number."""
        for each in self.asked:
            each.rows = []
        for row in rows:
            self.asked[row[0]].rows = [row[1:]]

    def values(self) -> bytes | None:
        """Return the values as a JSON array; None if they have no form in JSON."""
        rows = [dict(zip(_NAMES, each.values, strict=False), n=number) for number, each in enumerate(self.asked)]
        try:
            return orjson.dumps(rows, default=_in_json)
        except TypeError:
            return None


def gathered(asked: Sequence[Asked]) -> tuple[list[Together], list[Asked]]:
    """Return the statements that one for many does, and those that are sent alone."""
    groups: dict[Many, dict[tuple[Any, ...], Asked]] = {}
    alone = []
    for each in asked:
        if each.many is None:
            alone.append(each)
            continue
        group = groups.setdefault(each.many, {})
        if group.setdefault(tuple([each.values[place] for place in each.many.about]), each) is not each:
            alone.append(each)
    together = []
    for many, group in groups.items():
        if len(group) > 1:
            together.append(Together(many, list(group.values())))
        else:
            alone = [*group.values(), *alone]
    return together, alone


def asked_of(expected: Asked | Together) -> list[Asked]:
    """Return the statements whose result is expected."""
    return expected.asked if isinstance(expected, Together) else [expected]


def _in_json(value: Any) -> str:
    """Return bytes as PostgreSQL reads them. Raises TypeError for any other value."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError
