"""Streams of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) and their limit.

A stream takes a thread of its process for as long as it lasts, but no database connection and no request slot
(request_slots.py). A process has at most WEB_STREAMS streams, and of these COPILOT_STREAMS_PER_USER for one user.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from django.conf import settings
from django.db import connection
from django.http import StreamingHttpResponse

from conversations.services.core.errors import TooManyError

EVENT_STREAM = "text/event-stream"
HEARTBEAT = b": still here\n\n"
RETRY_SECONDS = 2


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
                    "You have this page open in too many windows. Close one of them.",
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


class Stream:
    """The events of a response. `closed` is called once when it ends, also if it ends before its first event."""

    def __init__(self, events: Iterator[bytes], closed: Callable[[], None]) -> None:
        self._events, self._closed = events, closed
        self._begun = self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            if not connection.in_atomic_block:
                connection.close()  # it would be idle for as long as the stream lasts
        return next(self._events)

    def close(self) -> None:
        """End the stream. The server calls this however the response ends."""
        if not self._ended:
            self._ended = True
            getattr(self._events, "close", lambda: None)()
            self._closed()


class EventStream(StreamingHttpResponse):
    """A response of server-sent events, which proxies must not buffer."""

    waits = True  # frees its request slot (request_slots.py)

    def __init__(self, events: Iterator[bytes], closed: Callable[[], None] = lambda: None) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(Stream(events, closed), content_type=EVENT_STREAM, headers=headers)
