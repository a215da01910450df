"""Streams of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) and their limit.

A view decides in its thread whether there is a stream, and returns a description of it (`Events`). The event loop sends
it: a stream takes no thread and no database connection. A process has at most WEB_STREAMS streams, and of these
COPILOT_STREAMS_PER_USER for one user.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Any, Protocol

import orjson
from django.conf import settings
from django.http import StreamingHttpResponse
from django.utils.translation import gettext

from conversations.services.core.errors import TooManyError

EVENT_STREAM = "text/event-stream"
HEARTBEAT = b": still here\n\n"
RETRY_SECONDS = 2
HEARTBEAT_SECONDS = 15.0
LONGEST_SECONDS = 900.0  # then the reader comes back


def event(name: str, data: Any, event_id: str = "") -> bytes:
    """Return one event as bytes. Its data is JSON, which has no line breaks, so that data cannot begin a new field."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(data, default=str) + b"\n\n"


class StreamLimit:
    """The number of streams that this process has open, in all and for each user."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: Counter[int] = Counter()

    def enter(self, user_id: int) -> bool:
        """Count one more stream of the user until `leave`, and return False if the process has no more.

        Raises TooManyError if the user has no more.
        """
        with self._guard:
            if self._open[user_id] >= settings.COPILOT_STREAMS_PER_USER:
                raise TooManyError(
                    gettext("You have this page open in too many windows. Close one of them."),
                    code="too_many_streams",
                    retry_after=RETRY_SECONDS,
                )
            if self._open.total() >= settings.WEB_STREAMS:
                return False
            self._open[user_id] += 1
            return True

    def leave(self, user_id: int) -> None:
        """Count one stream of the user less."""
        with self._guard:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    @property
    def count(self) -> int:
        """Return the number of open streams."""
        return self._open.total()


stream_limit = StreamLimit()


class Events(Protocol):
    """The events of a stream, as they come. They never wait, so that no thread is held."""

    @property
    def is_over(self) -> bool:
        """Return whether no event follows."""

    def first(self) -> bytes:
        """Return what the stream begins with."""

    def next(self) -> bytes | None:
        """Return the next event, or None if there is none yet."""

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from any thread, whenever there may be a next event."""


async def follow(events: Events, gone: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    """Yield the events of a stream to an event loop until its end, or until the reader is gone."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    events.call_when_ready(lambda: loop.call_soon_threadsafe(ready.set))
    gone.add_done_callback(lambda _: ready.set())
    yield events.first()
    until = monotonic() + LONGEST_SECONDS
    while not (events.is_over or gone.done()) and monotonic() < until:
        ready.clear()
        if piece := events.next():
            yield piece
            continue
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await ready.wait()
        except TimeoutError:
            yield HEARTBEAT


def _wait(events: Events) -> Iterator[bytes]:
    """Yield the events of a stream in a thread that waits for them, as WSGI wants it."""
    ready = threading.Event()
    events.call_when_ready(ready.set)
    yield events.first()
    until = monotonic() + LONGEST_SECONDS
    while not events.is_over and monotonic() < until:
        ready.clear()
        if piece := events.next():
            yield piece
        elif not ready.wait(HEARTBEAT_SECONDS):
            yield HEARTBEAT


class _Stream:
    """The events of a response. `closed` is called once when it ends, also if it ends before its first event."""

    def __init__(self, events: Events, closed: Callable[[], None]) -> None:
        self._events, self._closed = _wait(events), closed
        self._has_ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """End the stream. Django calls this however the response ends."""
        if not self._has_ended:
            self._has_ended = True
            self._events.close()  # type: ignore[attr-defined]
            self._closed()


class EventStream(StreamingHttpResponse):
    """A response of server-sent events, which proxies must not buffer.

    waits: the events, for the event loop (wsgi_bridge.py)
    """

    def __init__(self, events: Events, closed: Callable[[], None] = lambda: None) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_Stream(events, closed), content_type=EVENT_STREAM, headers=headers)
        self.waits = events
