"""The sender of events: one thread of the dispatcher that gives positions, claims what is due, and stores the outcomes.

The requests wait on the process's event loop, so that a server that hangs takes neither a thread nor a connection.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from channels_out import standard_webhooks
from channels_out.errors import SendError
from conversations.services.core import counters
from conversations.services.core.sql import with_retry
from conversations.services.events import deliveries
from conversations.services.events.deliveries import Outcome, Post
from conversations.services.events.numbering import BATCH, number_events
from memory import event_loop

log = logging.getLogger(__name__)

IN_FLIGHT = 256  # requests of this process
SECONDS = 15.0  # of a request, until its status is there
BUSY_SECONDS = 0.1  # between two passes while there is something to do


class EventSender:
    """Send events on one thread of this process.

    patience: how many seconds to wait after `stop` for requests that were begun
    """

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._in_flight: Counter[UUID] = Counter()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Stop claiming; the thread ends once what was begun has ended."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join(self.patience + 10)

    def _run(self) -> None:
        away = 0.0
        while not self._stopping.is_set():
            busy = False
            try:
                close_old_connections()
                busy = self.tick()
                away = 0.0
            except (OperationalError, InterfaceError):
                connection.close()
                away = min(away * 2 or 0.1, 2.0)
                log.warning("the database is away: trying again in %.1f s", away)
                self._stopping.wait(away)
            except Exception:
                log.exception("the sender of events failed; it tries again")
                self._stopping.wait(1.0)
            self._wake.wait(BUSY_SECONDS if busy else settings.DISPATCH_POLL_SECONDS)
            self._wake.clear()
        self._finish()

    def tick(self) -> bool:
        """Store outcomes, give positions, begin what is due, and return whether there is more to do at once."""
        self._store_outcomes()
        numbered = number_events()
        posts = deliveries.claim(timezone.now(), self._in_flight, IN_FLIGHT - self._in_flight.total())
        for each in posts:
            self._in_flight[each.endpoint_id] += 1
            future = event_loop.start(send(each))
            future.add_done_callback(partial(self._ended, each))
        return bool(posts) or numbered >= BATCH

    def _ended(self, post: Post, done: Any) -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed:
            log.error("a request with an event failed: delivery=%s", post.delivery_id)
        outcome = Outcome(post.delivery_id, post.endpoint_id, None, "crashed") if failed else done.result()
        self._outcomes.put(outcome)
        self._wake.set()

    def _store_outcomes(self) -> None:
        found: list[Outcome] = []
        with suppress(Empty):
            while True:
                found.append(self._outcomes.get_nowait())
        if not found:
            return
        for each in found:
            counters.POSTED.labels(each.code[:40]).inc()
            self._in_flight[each.endpoint_id] -= 1
            if not self._in_flight[each.endpoint_id]:
                del self._in_flight[each.endpoint_id]
        with_retry(deliveries.record, found, timezone.now())

    def _finish(self) -> None:
        """Wait for what was begun. What has not ended by then is sent again when its lease has run out."""
        deadline = time.monotonic() + min(self.patience, SECONDS)
        while self._in_flight and time.monotonic() < deadline:
            self._store_outcomes()
            time.sleep(0.05)
        connection.close()


async def send(post: Post) -> Outcome:
    """Post the event, signed, and return what became of it. Redirects are not followed."""
    from channels_out.streamed_posts import post as post_to  # it takes a tenth of a second, and web never needs it

    headers = standard_webhooks.headers(post.secrets, post.event_id, post.body)
    headers["Content-Type"] = "application/json"
    status, code = None, ""
    try:
        async with (
            asyncio.timeout(SECONDS),
            post_to(post.url, post.body, headers=headers, private=tuple(settings.EVENT_PRIVATE_NETWORKS)) as answer,
        ):
            status = answer.status
            code = _code_of(status)
    except TimeoutError:
        code = "timeout"
    except SendError as error:
        code = error.code
    return Outcome(post.delivery_id, post.endpoint_id, status, code)


def _code_of(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if status == 410:
        return deliveries.GONE
    return "redirect" if 300 <= status < 400 else f"http_{status}"
