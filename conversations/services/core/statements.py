"""The place where a hot request's statements run: this thread, or the event loop's batches (batches.py).

The functions of the hottest requests are coroutines that take a `Statements`. The event loop awaits them. Views call
them with `finish(work(THIS_THREAD, …))`, which runs them to their end at once. So each is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import psycopg
from django.db import OperationalError, connection

from conversations.services.core import sql

Result = TypeVar("Result")
Row = tuple[Any, ...]
DEADLOCK_TRIES = 3


class BusyError(Exception):
    """A statement was given up and changed nothing: a row was locked for too long, or its turn never came.

    The same can be done again, in a thread that waits for as long as it takes.
    """


class UnclearError(Exception):
    """The connection was lost before it was known to be on disk what a statement did. It may be done or not.

    rows: what the statement returned; None if that did not arrive
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        super().__init__("The database was lost before it was clear what became of a statement.")
        self.rows = rows


@dataclass(frozen=True, slots=True, eq=False)
class Many:
    """The form of a statement that does for many at once what the statement does for one.

    statement: takes a JSON array as $1, whose objects have `n` and the values as `v1`, `v2` …; its rows begin with `n`
    about: which values say whose rows are changed (from 0). No two may have the same ones.
    """

    statement: str
    about: tuple[int, ...]


class Statements(Protocol):
    """A place where statements run."""

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows of a statement with $1, $2 …, once what it wrote is on disk.

        Raises Django's database errors, BusyError or UnclearError.
        """

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Row | None:
        """Return the first row of such a statement, or None. Raises the same.

        many: a form that may be used instead, for this and others that wait at the same time
        """

    async def read(self, statement: str, *values: Any) -> Row | None:
        """Return the first row of a statement that changes nothing, or None. Raises the same."""

    async def in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of work that waits or takes long. Raises what it raises."""

    def soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do work that nobody waits for."""


class ThisThread:
    """Statements that run at once in the thread that calls, with its connection and in its transaction."""

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows."""
        return _despite_deadlocks(statement, values)

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Row | None:
        """Return the first row, or None."""
        return next(iter(_despite_deadlocks(statement, values)), None)

    read = row

    async def in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of the work."""
        return work(*arguments)

    def soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do the work."""
        work(*arguments)


THIS_THREAD = ThisThread()


def _despite_deadlocks(statement: str, values: tuple[Any, ...]) -> list[Row]:
    """Return the rows of a statement, which is tried again where it was undone by a deadlock and is alone."""
    for left in reversed(range(DEADLOCK_TRIES)):
        try:
            return sql.rows(statement, *values)
        except OperationalError as error:
            if not left or connection.in_atomic_block or not is_deadlock(error):
                raise
    raise AssertionError


def is_deadlock(error: BaseException) -> bool:
    """Return whether PostgreSQL undid this because two waited for each other. The same can be done again.

    Two that store the same person at once can, since each waits at an index for a row that the other has not committed.
    """
    return isinstance(error.__cause__, psycopg.errors.DeadlockDetected)


def finish(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that waits for nothing, as all do with THIS_THREAD. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as over:
        result: Result = over.value
        return result
    work.close()
    raise RuntimeError("The coroutine waits for something; only an event loop can run it.")
