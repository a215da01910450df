"""The place where a hot request's statements run: this thread, or the event loop's batches (batches.py).

The functions of the hottest requests are coroutines that take a `Statements`. The event loop awaits them. Views call
them with `finish(work(THIS_THREAD, …))`, which runs them to their end at once. So each is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from conversations.services.core import sql

Result = TypeVar("Result")
Row = tuple[Any, ...]


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


class Statements(Protocol):
    """A place where statements run."""

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows of a statement with $1, $2 …, once what it wrote is on disk.

        Raises Django's database errors, BusyError or UnclearError.
        """

    async def row(self, statement: str, *values: Any) -> Row | None:
        """Return the first row of such a statement, or None. Raises the same."""

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
        return sql.rows(statement, *values)

    async def row(self, statement: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        return sql.row(statement, *values)

    read = row

    async def in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of the work."""
        return work(*arguments)

    def soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do the work."""
        work(*arguments)


THIS_THREAD = ThisThread()


def finish(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that waits for nothing, as all do with THIS_THREAD. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as over:
        result: Result = over.value
        return result
    work.close()
    raise RuntimeError("The coroutine waits for something; only an event loop can run it.")
