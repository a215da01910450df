"""Replies as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), and how many at once.

A stream takes a thread of its process for as long as it lasts, but no database connection, and none of the places that
requests are worked on at (places.py). Of its threads a process gives WEB_STREAMS to streams, and a user
COPILOT_STREAMS_PER_USER of them.
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
    """One event: JSON knows no line breaks, so that what is in it cannot begin a line of its own."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(data, default=str) + b"\n\n"


class Room:
    """How many streams this process has open, in all and for each user."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: Counter[int] = Counter()

    def enter(self, user_id: int) -> bool:
        """Whether there is room for one more; then it is taken, until `leave`. Raises TooManyError for this user's."""
        with self._guard:
            if self._open[user_id] >= settings.COPILOT_STREAMS_PER_USER:
                raise TooManyError(
                    "You read along in too many windows at once. Close one of them.",
                    code="too_many_streams",
                    retry_after=RETRY_SECONDS,
                )
            if self._open.total() >= settings.WEB_STREAMS:
                return False
            self._open[user_id] += 1
            return True

    def leave(self, user_id: int) -> None:
        """One less."""
        with self._guard:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open.total()


room = Room()


class Stream:
    """Events for a response, and what is to be done once it has ended, however it ends, be it before it began."""

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
        """What the server calls."""
        if not self._ended:
            self._ended = True
            getattr(self._events, "close", lambda: None)()
            self._closed()


class EventStream(StreamingHttpResponse):
    """A response of server-sent events, which nobody may keep back to pass it on in one piece."""

    waits = True  # for others, without anything of the process's but its thread (places.py)

    def __init__(self, events: Iterator[bytes], closed: Callable[[], None] = lambda: None) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(Stream(events, closed), content_type=EVENT_STREAM, headers=headers)
