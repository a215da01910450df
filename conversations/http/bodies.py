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
MOST_HELD = 32 * 1024 * 1024  # bytes of larger bodies that are being read or worked on, all together


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


class Bodies:
    """The bodies that a process reads and works on."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes of one body
        self._held = 0

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
        got, read, seconds = 0, [], settings.WEB_BODY_SECONDS
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until) as deadline:
                async for piece in pieces:
                    got += len(piece)
                    read.append(piece)
                    if got > self._most:
                        raise self._too_long()
                    if got == length:
                        break
                    deadline.reschedule(until + got / BYTES_PER_SECOND)
        except TimeoutError:
            sentence = f"The body did not arrive within {seconds:g} s and {BYTES_PER_SECOND:,} bytes a second."
            raise BodyError(408, "too_slow", sentence) from None
        if length is not None and got < length:
            raise BodyError(400, "malformed", "The body is shorter than the Content-Length says.")
        return read[0] if len(read) == 1 else b"".join(read)

    def _too_long(self) -> BodyError:
        return BodyError(413, "too_large", larger_than(self._most))
