"""Request bodies: read piece by piece, within a limit and a deadline, before anything is occupied by the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from django.conf import settings

from conversations.http.envelope import failure_body, larger_than

BYTES_PER_SECOND = 20_000  # for each second after WEB_BODY_SECONDS
SMALL = 65_536  # bytes; a body of this size counts for nothing in MOST_HELD
LOOK_SECONDS = 0.1  # between looks for bodies that are late
MOST_HELD = 24 * 1024 * 1024  # bytes of large bodies that are read or worked on, all together; it costs twice that


class BodyError(Exception):
    """A body that is not there as a whole. The connection cannot be used on.

    status: the HTTP status
    failure: the body of the answer
    """

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(code)
        self.status, self.failure = status, failure_body(code, sentence)


class Pieces(Protocol):
    """A body in pieces: RSGI's protocol."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces."""


class _Deadlines:
    """Deadlines of many tasks with one timer: nearly all tasks are over when it rings.

    `asyncio.timeout` sets and cancels a timer for each, which costs a hot request a tenth of its time.
    """

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}  # the loop's time
        self._late: set[asyncio.Task[Any]] = set()
        self._is_ringing = False

    def watch(self, task: asyncio.Task[Any], until: float) -> None:
        """Cancel the task LOOK_SECONDS after `until` at the latest, unless it is forgotten before."""
        self._until[task] = until
        if not self._is_ringing:
            self._is_ringing = True
            task.get_loop().call_later(LOOK_SECONDS, self._look, task.get_loop())

    def forget(self, task: asyncio.Task[Any]) -> bool:
        """Watch the task no more, and return whether it was cancelled for being late."""
        self._until.pop(task, None)
        if task not in self._late:
            return False
        self._late.remove(task)
        task.uncancel()
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            self._late.add(task)
            task.cancel()
        self._is_ringing = bool(self._until)
        if self._is_ringing:
            loop.call_later(LOOK_SECONDS, self._look, loop)


class Bodies:
    """The bodies that a process reads and works on."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes of one body
        self._held = 0
        self._deadlines = _Deadlines()

    @contextmanager
    def reserved(self, headers: Any) -> Iterator[int | None]:
        """Reserve memory for the body of a request with these headers, and yield its length; None if it is not given.

        Raises BodyError.
        """
        given = headers.get("content-length", "")
        if given and not given.isdigit():
            raise BodyError(400, "malformed", "The Content-Length is no number.")
        is_in_chunks = not given and "transfer-encoding" in headers
        length = int(given) if given else self._most if is_in_chunks else 0
        if length > self._most:
            raise self._too_long()
        held = length if length > SMALL else 0
        if self._held + held > MOST_HELD:
            raise BodyError(503, "too_busy", "Too many large requests at once. Send this one again in a moment.")
        self._held += held
        try:
            yield None if is_in_chunks else length
        finally:
            self._held -= held

    async def read(self, pieces: Pieces, length: int | None) -> bytes:
        """Return the whole body of this length. Raises BodyError."""
        if length == 0:
            return b""
        task: Any = asyncio.current_task()
        until = task.get_loop().time() + settings.WEB_BODY_SECONDS
        got, read = 0, []
        self._deadlines.watch(task, until)
        try:
            async for piece in pieces:
                got += len(piece)
                read.append(piece)
                if got > self._most:
                    raise self._too_long()
                if got == length:
                    break
                self._deadlines.watch(task, until + got / BYTES_PER_SECOND)
        except asyncio.CancelledError:
            if self._deadlines.forget(task):
                raise self._too_slow() from None
            raise
        finally:
            self._deadlines.forget(task)
        if length is not None and got < length:
            raise BodyError(400, "malformed", "The body is shorter than the Content-Length says.")
        return read[0] if len(read) == 1 else b"".join(read)

    def _too_slow(self) -> BodyError:
        wanted = f"{settings.WEB_BODY_SECONDS:g} s and {BYTES_PER_SECOND:,} bytes a second"
        return BodyError(408, "too_slow", f"The body did not arrive within {wanted}.")

    def _too_long(self) -> BodyError:
        return BodyError(413, "too_large", larger_than(self._most))
