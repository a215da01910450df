"""The feed of events: pages by position, and readers of this process that are woken when there are more.

One thread asks the database for all readers, twice a second while there are any. Whoever asks for a page also gives
positions to what was committed before, so that a page is up to date without a dispatcher.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from conversations.models import Event, EventPosition
from conversations.services.core.cluster import of_all, of_each
from conversations.services.events import endpoints
from conversations.services.events.bodies import bodies
from conversations.services.events.numbering import number_all

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
IDLE_SECONDS = 2.0  # without readers, after which the thread and its connection end
PAGE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, and the position to go on from: of the last one that was looked at, shown or not."""

    items: list[dict[str, Any]]
    position: int
    has_more: bool


def page(client_id: UUID, after: int, limit: int, *, kinds: Sequence[str] = (), private: bool) -> Page:
    """Return at most `limit` events of the client after the position. private: those of the copilot's users too."""
    endpoints.note_reader(client_id)
    number_all()
    return _page(client_id, after, limit, kinds, private=private)


def _page(client_id: UUID, after: int, limit: int, kinds: Sequence[str], *, private: bool) -> Page:
    last = EventPosition.objects.filter(client_id=client_id).values_list("last", flat=True).first() or 0
    found = Event.objects.filter(client_id=client_id, position__gt=after, position__lte=last)
    found = found.filter(kind__in=kinds) if kinds else found
    found = found if private else found.filter(private=False)
    events = list(found.order_by("position")[: limit + 1])
    has_more = len(events) > limit
    shown = events[:limit]
    position = shown[-1].position if has_more else max(last, after)
    return Page(bodies(client_id, shown), position, has_more)


@dataclass(eq=False)
class EventReader:
    """A reader of a client's events. `position` advances with the events that the reader was given."""

    client_id: UUID
    position: int
    kinds: Sequence[str]
    private: bool
    _events: deque[dict[str, Any]] = field(default_factory=deque)
    _wake: Callable[[], object] = lambda: None

    def take(self) -> dict[str, Any] | None:
        """Return the next event, or None if there is none yet."""
        return self._events.popleft() if self._events else None

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, in the feed's thread, whenever there is an event."""
        self._wake = wake

    @property
    def is_full(self) -> bool:
        """Return whether the reader has not taken yet what it was given."""
        return len(self._events) >= PAGE

    def give(self, new: Page) -> None:
        """Hand the reader the events."""
        self.position = new.position
        self._events.extend(new.items)
        if new.items:
            self._wake()


class EventFeed:
    """The readers of this process, and the thread that asks the database for them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._readers: set[EventReader] = set()
        self._thread: threading.Thread | None = None
        self._idle = 0.0

    def read(self, reader: EventReader) -> EventReader:
        """Hand the reader events from now on, until `leave`."""
        endpoints.note_reader(reader.client_id)
        with self._guard:
            self._readers.add(reader)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events-feed", daemon=True)
                self._thread.start()
        return reader

    def leave(self, reader: EventReader) -> None:
        """Remove the reader."""
        with self._guard:
            self._readers.discard(reader)

    def _run(self) -> None:
        pause = threading.Event()
        while self._goes_on():
            try:
                connection.close_if_unusable_or_obsolete()
                self._give()
            except (OperationalError, InterfaceError):
                connection.close()
            except Exception:
                log.exception("the feed of events failed; it tries again")
                connection.close()
            pause.wait(POLL_SECONDS)
        connection.close()

    def _goes_on(self) -> bool:
        """Return whether there are readers, or were until a moment ago. If not, the next reader starts a thread."""
        with self._guard:
            self._idle = 0.0 if self._readers else self._idle + POLL_SECONDS
            if self._idle > IDLE_SECONDS:
                self._thread, self._idle = None, 0.0
                return False
            return True

    def _give(self) -> None:
        with self._guard:
            readers = [each for each in self._readers if not each.is_full]
        if not readers:
            return
        number_all()
        last = _last({each.client_id for each in readers})
        for _ in of_each([(reader, last.get(reader.client_id, 0)) for reader in readers], _give_upto):
            pass


def _give_upto(reader: EventReader, last: int) -> None:
    while reader.position < last and not reader.is_full:
        reader.give(_page(reader.client_id, reader.position, PAGE, reader.kinds, private=reader.private))


def _last(client_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return the last position of each of the clients. In a cluster, those whose server is away have none."""
    of_clients = EventPosition.objects.filter(client_id__in=list(client_ids)).values_list("client_id", "last")
    return dict(of_all(lambda pk: of_clients.filter(client_id=pk) if pk else of_clients, list(client_ids)))


feed = EventFeed()
