"""Delivery of the outbox's entries: at once, or later if the server is unreachable; in order, and once each."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from .errors import (
    ApiError,
    ConflictError,
    ConversationError,
    NotAllowedError,
    NotFoundError,
    OutboxFullError,
    RateLimitedError,
    ServerError,
    UnreachableError,
)
from .loops import background, wait_for
from .outbox import Entry, Outbox, OutboxStatus
from .service import ConversationStateService
from .settings import Settings
from .states import ConversationState

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

LEASE = 6.0  # seconds; renewed while the process lives
RENEW = 1.5
POLL = 0.25
LANES_AT_ONCE = 16
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
NOT_ALLOWED_PAUSE = 30.0  # until the key is corrected
TRIM_EVERY = 3600.0
ATTEMPTS = 2
CATCHING_UP = 3  # entries before one in its lane: more than these are not waited for

POST_ROUTES = {"message": "messages", "order": "orders", "reset": "reset", "extend": "extend", "end": "end"}


@dataclass(frozen=True)
class Receipt:
    """The outcome of a change.

    accepted    the change is on the server or safe in the outbox
    state       the server's answer, if it came in time
    error       why the change was not accepted, or is delivered later
    """

    accepted: bool
    state: ConversationState | None = None
    error: Exception | None = None


QUEUED = Receipt(accepted=True)


class Courier:
    """The courier of one outbox in this process. Its private methods run on the background loop."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.service = ConversationStateService(settings, transport=transport)
        self._box: Outbox | None = None
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._waiting: dict[int, asyncio.Future[Receipt]] = {}
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._again: defaultdict[str, bool] = defaultdict(bool)
        self._failures = 0
        self._down_until = 0.0
        self._poller: asyncio.Task[None] | None = None

    async def deliver(self, handle: str, kind: str, body: Mapping[str, Any], *, lane: str = "") -> Receipt:
        """Deliver the change to the server, or store it in the outbox, within the timeout, and return the receipt.

        handle: the conversation's session id, or the handle that stands for it
        lane: for `start`, the name of the person's lane

        Never raises.
        """
        stored = threading.Event()
        work = asyncio.run_coroutine_threadsafe(self._accept(handle, kind, body, lane, stored), background())
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(work)), self.settings.timeout)
        except asyncio.TimeoutError as error:
            if not stored.is_set():
                work.cancel()
            return Receipt(accepted=stored.is_set(), error=error)
        except OutboxFullError as error:
            log.error("not recorded: %s", error)
            return Receipt(accepted=False, error=error)
        except (sqlite3.Error, OSError) as error:
            log.error("not recorded, the outbox is out of order: %s", error)
            return Receipt(accepted=stored.is_set(), error=error)

    def status(self) -> OutboxStatus:
        """Return the outbox's status."""
        return wait_for(self.look(Outbox.status))

    def refused(self) -> list[tuple[str, dict[str, Any], str]]:
        """Return the entries that the server has refused for good: kind, body and reason of each."""
        return wait_for(self.look(Outbox.refused))

    def drop_refused(self) -> int:
        """Delete the entries that the server has refused, and return how many there were."""
        return wait_for(self.look(Outbox.drop_refused))

    async def look(self, question: Callable[[Outbox], Answer]) -> Answer:
        """Return the answer of `question` about the outbox. Call it on the background loop."""
        self.begin()
        return question(self.box)

    @property
    def box(self) -> Outbox:
        """Return the outbox, which is opened at its first use."""
        if self._box is None:
            self._box = Outbox(self.settings.outbox_path, self.settings.base_url, self.settings.outbox_limit)
        return self._box

    # --- on the background loop ---------------------------------------------------------------------------------------
    async def _accept(
        self, handle: str, kind: str, body: Mapping[str, Any], lane: str, stored: threading.Event
    ) -> Receipt:
        self.begin()
        key = str(uuid.uuid4())
        if lane:
            self.box.begin(lane, body, handle)
        else:
            lane = self.box.lane_of(handle)
        if kind == "message" and not body.get("messageId"):
            body = {**body, "messageId": key}  # so that it is known also after the key's 24 hours
        seq = self.box.add(lane, kind, body, key)
        stored.set()
        if time.monotonic() < self._down_until:
            return QUEUED
        if self.box.ahead_of(lane, seq) > CATCHING_UP:
            self._set_off(lane)
            return QUEUED
        answered = self._waiting[seq] = asyncio.get_running_loop().create_future()
        self._set_off(lane)
        try:
            receipt: Receipt = await answered
        finally:
            self._waiting.pop(seq, None)
        return receipt

    def begin(self) -> None:
        """Start delivering what waits in the outbox, also entries of other processes, until the process ends."""
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        renewed = trimmed = 0.0
        while True:
            now = time.monotonic()
            try:
                if self._lanes and now - renewed >= RENEW:
                    self.box.renew(self._owner, LEASE)
                    renewed = now
                if now >= self._down_until:
                    # After an outage one lane tries whether the server is back.
                    for lane in self.box.due(1 if self._failures else LANES_AT_ONCE - len(self._lanes), LEASE):
                        self._set_off(lane)
                if now - trimmed >= TRIM_EVERY:
                    self.box.trim()
                    trimmed = now
            except sqlite3.Error as error:
                log.warning("the outbox is out of order: %s", error)
            await asyncio.sleep(POLL)

    def _set_off(self, lane: str) -> None:
        """Start delivering the lane, or have the running delivery look for new entries once more."""
        self._again[lane] = True
        if lane not in self._lanes:
            task = self._lanes[lane] = asyncio.get_running_loop().create_task(self._deliver_lane(lane))
            task.add_done_callback(lambda _: self._arrived(lane))

    def _arrived(self, lane: str) -> None:
        self._lanes.pop(lane, None)
        if not self._again.pop(lane, False):
            return
        if time.monotonic() < self._down_until:
            self._settle_waiting(lane)
        else:
            self._set_off(lane)

    async def _deliver_lane(self, lane: str) -> None:
        """Deliver the lane's entries in order until it is empty or a delivery fails."""
        tried: list[int] = []
        try:
            while self._again.pop(lane, False):
                if not self.box.lease(lane, self._owner, LEASE):
                    return  # another process delivers the lane, and finds this entry too
                while entry := self.box.first(lane):
                    tried.append(entry.seq)
                    if not await self._deliver(entry):
                        return
                self.box.release(lane, self._owner)
        except sqlite3.Error as error:
            log.warning("the outbox is out of order: %s", error)
        finally:
            self._settle_waiting(lane)

    def _settle_waiting(self, lane: str) -> None:
        """Answer the callers that wait for entries which are still in the lane: accepted, and delivered later."""
        for seq in list(self._waiting):
            if self._lane_waits(lane, seq):
                self._answer(seq, QUEUED)

    def _lane_waits(self, lane: str, seq: int) -> bool:
        with suppress(sqlite3.Error):
            return self.box.holds(lane, seq)
        return True

    async def _deliver(self, entry: Entry) -> bool:
        """Deliver the entry and return whether the lane can go on."""
        try:
            state = await self._send(entry)
        except NotAllowedError as error:
            log.error("the server does not let us in (%s): check CONVO_API_KEY and the sub-domain", error.status)
            self.box.release(entry.lane, self._owner, pause=NOT_ALLOWED_PAUSE)
            return False
        except ConversationError as error:
            if error.retryable:
                self._hold_back(entry, error)
                return False
            log.error("the server refused a %s: %s", entry.kind, _word(error))
            self.box.refuse(entry.seq, f"{_word(error)}: {error}")
            self._answer(entry.seq, Receipt(accepted=False, error=error))
            return True
        self._failures, self._down_until = 0, 0.0
        self.box.done(entry.seq)
        self._answer(entry.seq, Receipt(accepted=True, state=state))
        return True

    def _hold_back(self, entry: Entry, error: ConversationError) -> None:
        """Let the lane wait; if the server is unreachable, let all lanes wait."""
        self._failures += 1
        pause = min(FIRST_PAUSE * 2 ** min(self._failures - 1, 20), LONGEST_PAUSE) * random.uniform(0.75, 1.25)  # noqa: S311
        pause = max(pause, getattr(error, "retry_after", None) or 0.0)
        if isinstance(error, UnreachableError | ServerError | RateLimitedError):
            self._down_until = time.monotonic() + pause
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        log.log(level, "not delivered yet, kept in the outbox: %s", _word(error))
        self.box.release(entry.lane, self._owner, pause=pause)

    def _answer(self, seq: int, receipt: Receipt) -> None:
        waiting = self._waiting.get(seq)
        if waiting is not None and not waiting.done():
            waiting.set_result(receipt)

    # --- one entry ----------------------------------------------------------------------------------------------------
    async def _send(self, entry: Entry) -> ConversationState:
        if entry.kind == "start":
            return await self._start(entry.lane, entry.body, entry.key)
        session_id, start = self.box.session_of(entry.lane)
        if session_id is None:
            session_id = (await self._start(entry.lane, start or {}, f"{entry.key}.start")).session_id
        try:
            return await self._change(session_id, entry, entry.key)
        except (ConflictError, NotFoundError) as error:
            if not _is_over(error) or start is None or entry.kind == "end":
                raise
        # The conversation ended meanwhile. As with any message, a new one is opened, under keys of its own.
        again = f"{entry.key}.{session_id[:8]}"
        session_id = (await self._start(entry.lane, start, f"{again}.start")).session_id
        return await self._change(session_id, entry, again)

    async def _start(self, lane: str, start: Mapping[str, Any], key: str) -> ConversationState:
        data = await self.service.request("POST", "/conversations", start, key=key, attempts=ATTEMPTS)
        state = ConversationState.read(data)
        self.box.opened(lane, state.session_id)
        return state

    async def _change(self, session_id: str, entry: Entry, key: str) -> ConversationState:
        if entry.kind == "sync":
            path = f"/whatsapp/agent/conversations/{session_id}/sync"
            data = await self.service.request("PUT", path, entry.body, attempts=ATTEMPTS)
        else:
            path = f"/conversations/{session_id}/{POST_ROUTES[entry.kind]}"
            data = await self.service.request("POST", path, entry.body, key=key, attempts=ATTEMPTS)
        return ConversationState.read(data)


def _is_over(error: ApiError) -> bool:
    return isinstance(error, NotFoundError) or error.code == "ended"


def _word(error: Exception) -> str:
    """Return the error's code or its class, never its sentence, which may quote a message."""
    return str(getattr(error, "code", "") or type(error).__name__)


# --- one courier a process --------------------------------------------------------------------------------------------
_couriers: dict[tuple[int, Settings], Courier] = {}
_guard = threading.Lock()


def courier_for(settings: Settings) -> Courier:
    """Return this process's courier for the settings, made at the first call."""
    with _guard:
        key = (os.getpid(), settings)
        if key not in _couriers:
            _couriers[key] = Courier(settings)
        return _couriers[key]


def _forget() -> None:
    global _guard
    _guard = threading.Lock()
    _couriers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
