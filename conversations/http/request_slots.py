"""Request slots: so many requests are handled at once, each with a database connection; streams wait without one.

A server has a thread for each request and for each stream. Django keeps a connection for each thread, which would be
hundreds. Here the connections belong to the slots: a request in a slot has one, and a response that only waits (its
attribute `waits` is True) goes on without slot and connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RequestSlots:
    """A WSGI application that handles `count` requests at the same time; further requests wait for a slot."""

    def __init__(self, application: Application, count: int) -> None:
        self._application = application
        self._free = threading.Semaphore(count)
        self._connections: list[BaseDatabaseWrapper] = []  # the one that was used last is used next

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self._take()
        held = False
        try:
            answer: Any = self._application(environ, start_response)
            if isinstance(answer, list) or getattr(answer, "waits", False):
                return answer  # type: ignore[no-any-return]
            held = getattr(answer, "streaming", False)
            return _Held(answer, self._give_back) if held else _whole(answer)
        finally:
            if not held:
                self._give_back()

    def _take(self) -> None:
        self._free.acquire()
        with suppress(IndexError):
            connections[DEFAULT_DB_ALIAS] = self._connections.pop()

    def _give_back(self) -> None:
        connection = connections[DEFAULT_DB_ALIAS]
        if not connection.allow_thread_sharing:
            connection.inc_thread_sharing()  # used by one thread after the other, never by two at once
        del connections[DEFAULT_DB_ALIAS]
        self._connections.append(connection)
        self._free.release()


def _whole(answer: Any) -> list[bytes]:
    try:
        return [b"".join(answer)]
    finally:
        answer.close()


class _Held:
    """A response that reads from the database while it is sent, such as an export. It keeps its slot until its end."""

    def __init__(self, answer: Any, give_back: Callable[[], None]) -> None:
        self._answer, self._pieces, self._give_back = answer, iter(answer), give_back
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece: bytes = next(self._pieces)
        return piece

    def close(self) -> None:
        """Close the response and give its slot back. The server calls this however the response ends."""
        if not self._closed:
            self._closed = True
            try:
                self._answer.close()
            finally:
                self._give_back()
