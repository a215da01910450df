"""The dispatcher: claims replies and messages that are due, and waits for models and providers on many threads.

There are two kinds of threads, so that no database connection is held while one waits for the network. A few threads
read and write rows, each with a connection of its own. Many threads wait for the network and use plain values only.
Each reply and each send moves between the two kinds:

    reply   claim ─► [tools (waits)] ─► [recall (waits) ─► keep (rows)] ─► prepare (rows) ─► engine (waits) ─► commit or
            fail (rows)
    send    claim ─► begin   (rows) ─► provider (waits) ─► succeeded or failed (rows)

Any number of dispatchers share the work. If one is killed, others take its work when its leases run out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from channels_out.contract import SendResult
from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.models import Message
from conversations.services.core.sql import close_connections, with_retry
from conversations.services.delivery import read_marks
from conversations.services.delivery import sending as delivery
from conversations.services.engine_chats import chats
from conversations.services.history import recall
from conversations.services.replies import late_replies, leases, pipeline, sinks, tool_calls, tool_runner
from memory.recall import NearestVectors

log = logging.getLogger(__name__)

ROW_THREADS = 6
MARK_THREADS = 4
TYPING_AFTER_SECONDS = 0.4  # an indicator that comes after the reply would stay for a while
RECOVER_EVERY_SECONDS = 1.0
EXHAUSTED = EngineError("The reply was tried too often.", code="exhausted", retryable=False)
CRASHED = EngineError("The process died each time the reply was tried.", code=sinks.CRASHED, retryable=False)


class Dispatcher:
    """Run one dispatcher process: `run` works until `stop` is called.

    patience: how many seconds `run` waits after `stop` for what was begun
    """

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self.stopping = threading.Event()
        self._wake = threading.Event()
        self._rows = ThreadPoolExecutor(ROW_THREADS, thread_name_prefix="rows")
        self._engines = ThreadPoolExecutor(settings.DISPATCH_REPLIES, thread_name_prefix="engine")
        self._providers = ThreadPoolExecutor(settings.DISPATCH_SENDS, thread_name_prefix="provider")
        self._marks = ThreadPoolExecutor(MARK_THREADS, thread_name_prefix="mark")
        self._marks_free = threading.BoundedSemaphore(MARK_THREADS)
        self._guard = threading.Lock()
        self._turns: set[UUID] = set()
        self._suspects: set[UUID] = set()  # at most one runs at a time, which shows whose turn crashes processes
        self._messages: set[UUID] = set()
        self._renewed = self._recovered = 0.0
        self._waiting: Future[int] | None = None  # the look at the turns that wait for a callback

    def run(self) -> int:
        """Claim and work until stopped, and return how many replies and sends were given back unfinished."""
        log.info("dispatcher started: replies=%s sends=%s", settings.DISPATCH_REPLIES, settings.DISPATCH_SENDS)
        away = 0.0
        while not self.stopping.is_set():
            try:
                close_old_connections()
                busy = self.tick()
                away = 0.0
            except (OperationalError, InterfaceError):
                connection.close()
                away = min(away * 2 or 0.1, 2.0)
                log.warning("the database is away: trying again in %.1f s", away)
                self.stopping.wait(away)
                continue
            if not busy:
                self._wake.wait(settings.DISPATCH_POLL_SECONDS)
                self._wake.clear()
        return self._finish()

    def stop(self) -> None:
        """Stop claiming; `run` returns once what was begun has ended."""
        self.stopping.set()
        self._wake.set()

    def tick(self) -> bool:
        """Claim what is due, as far as there are free threads, and return whether anything was claimed."""
        self._renew_and_recover_leases()
        claimed = 0
        if room := settings.DISPATCH_REPLIES - len(self._turns):
            for turn in leases.claim(timezone.now(), room, suspects=0 if self._suspects & self._turns else 1):
                self._hold(self._turns, turn.turn_id)
                if turn.suspect:
                    self._suspects = {turn.turn_id}
                self._let_go_after(self._rows.submit(self._reply, turn), self._turns, turn.turn_id)
                claimed += 1
        if room := settings.DISPATCH_SENDS - len(self._messages):
            token, messages = delivery.claim(timezone.now(), room)
            for message_id in messages:
                self._hold(self._messages, message_id)
                self._let_go_after(self._rows.submit(self._send, message_id, token), self._messages, message_id)
                claimed += 1
        return claimed > 0

    # --- a reply ------------------------------------------------------------------------------------------------------

    def _reply(self, turn: leases.OwedTurn) -> Future[Any] | None:
        if turn.exhausted:
            with_retry(pipeline.fail, turn, CRASHED if turn.suspect else EXHAUSTED, timezone.now())
            return None
        return self._engines.submit(self._call_tools, turn) if turn.calls else self._recall_or_prepare(turn)

    def _call_tools(self, turn: leases.OwedTurn) -> Future[Any]:
        tool_runner.make_waiting(turn, self._run_on_rows)
        return self._rows.submit(self._recall_or_prepare, turn)

    def _recall_or_prepare(self, turn: leases.OwedTurn) -> Future[Any] | None:
        if turn.recalls and (query := with_retry(recall.recall_query, turn.conversation_id)):
            self._mark_read(turn)
            return self._engines.submit(self._recall, turn, query)
        return self._prepare(turn, mark=True)

    def _recall(self, turn: leases.OwedTurn, query: recall.RecallQuery) -> Future[Any]:
        near = query.ask_network()
        return self._rows.submit(self._keep_and_prepare, turn, query, near)

    def _keep_and_prepare(
        self, turn: leases.OwedTurn, query: recall.RecallQuery, near: NearestVectors | None
    ) -> Future[Any] | None:
        keep_recalled(query, near)
        return self._prepare(turn, mark=False)

    def _prepare(self, turn: leases.OwedTurn, *, mark: bool) -> Future[Any] | None:
        prepared = with_retry(pipeline.prepare, turn)
        if prepared is None:
            return None
        if mark:
            self._mark_read(turn)
        return self._engines.submit(self._ask, turn, *prepared)

    def _mark_read(self, turn: leases.OwedTurn) -> None:
        """Show the person that the message was read. Skipped while all mark threads wait: no reply waits for it."""
        if not read_marks.has_marks(turn.channel):
            return
        mark = with_retry(read_marks.mark_for_newest, turn.conversation_id)
        if mark and self._marks_free.acquire(blocking=False):
            self._marks.submit(self._show_mark, mark, turn.turn_id)

    def _show_mark(self, mark: read_marks.ReadMark, turn_id: UUID) -> None:
        try:
            self.stopping.wait(TYPING_AFTER_SECONDS)
            with self._guard:
                writing = turn_id in self._turns
            mark.show(typing=writing)
        finally:
            self._marks_free.release()

    def _ask(self, turn: leases.OwedTurn, request: ReplyRequest, engine: str) -> Future[Any]:
        request = tool_runner.with_rows(chats.with_writer(request, self._run_on_rows), self._run_on_rows)
        outcome = registry.ask(engine, request)
        settle = pipeline.commit if isinstance(outcome, Reply) else pipeline.fail
        return self._rows.submit(with_retry, settle, turn, outcome, timezone.now())

    def _run_on_rows(self, work: Callable[..., Any], *values: Any) -> Any:
        """Run work on a thread that has a database connection and return its result."""
        return self._rows.submit(with_retry, work, *values).result()

    # --- a send -------------------------------------------------------------------------------------------------------

    def _send(self, message_id: UUID, token: UUID) -> Future[Any] | None:
        sending = with_retry(delivery.begin, message_id, token, timezone.now())
        return self._providers.submit(self._deliver, sending) if sending else None

    def _deliver(self, sending: delivery.Sending) -> Future[Any]:
        outcome = delivery.deliver(sending)
        settle = delivery.record_sent if isinstance(outcome, SendResult) else delivery.record_failed
        return self._rows.submit(with_retry, settle, sending, outcome, timezone.now())

    # --- what is held -------------------------------------------------------------------------------------------------

    def _hold(self, held: set[UUID], pk: UUID) -> None:
        with self._guard:
            held.add(pk)

    def _let_go_after(self, step: Future[Any], held: set[UUID], pk: UUID) -> None:
        """Remove `pk` from what is held when the step, and each further step that it returned, has ended."""

        def ended(done: Future[Any]) -> None:
            error = done.exception()
            following = None if error else done.result()
            if error:
                log.error("a step failed, its lease will run out: %s", pk, exc_info=error)
            if isinstance(following, Future):
                self._let_go_after(following, held, pk)
                return
            with self._guard:
                held.discard(pk)
            self._wake.set()

        step.add_done_callback(ended)

    def _renew_and_recover_leases(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= settings.LEASE_SECONDS / 3:
            self._renewed = now
            with self._guard:
                turns, messages = list(self._turns), list(self._messages)
            leases.renew(turns, timezone.now())
            delivery.renew(messages, timezone.now())
        if now - self._recovered >= RECOVER_EVERY_SECONDS:
            self._recovered = now
            at = timezone.now()
            if freed := leases.recover(at) + delivery.recover(at) + tool_calls.recover(at):
                log.warning("freed claims of a dead dispatcher: %s", freed)
            if self._waiting is None or self._waiting.done():
                self._waiting = self._rows.submit(with_retry, late_replies.end_waiting, timezone.now())

    def _finish(self) -> int:
        """Wait for what was begun, then give back what is left and return how many that is."""
        deadline = time.monotonic() + self.patience
        while (self._turns or self._messages) and time.monotonic() < deadline:
            try:
                self._renew_and_recover_leases()
            except (OperationalError, InterfaceError):
                connection.close()
            time.sleep(0.05)
        with self._guard:
            turns, messages = list(self._turns), list(self._messages)
        with_retry(release_claims, turns, messages)
        close_connections(self._rows, ROW_THREADS, self.patience)
        for pool in (self._marks, self._providers, self._engines, self._rows):
            pool.shutdown(wait=False, cancel_futures=True)
        log.info("dispatcher stopped: given back %s replies and %s sends", len(turns), len(messages))
        return len(turns) + len(messages)


def keep_recalled(query: recall.RecallQuery, near: NearestVectors | None) -> None:
    """Store in the conversation's memory what was recalled of earlier conversations.

    A failure is logged and the reply is written without it. Raises OperationalError or InterfaceError where the
    database is away.
    """
    try:
        with_retry(recall.store_recalled, query, near, timezone.now())
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("nothing is recalled: conversation=%s", query.conversation_id)


def release_claims(turns: list[UUID], messages: list[UUID]) -> None:
    """Free the turns and messages that were claimed and not finished, so that another dispatcher takes them at once.

    A message that is being sent stays as it is until its lease runs out: it may have left already.
    """
    now = timezone.now()
    leases.give_back(turns, now)
    Message.objects.filter(pk__in=messages, status=Message.Status.CLAIMED).update(
        status=Message.Status.QUEUED, lease_until=None, lease_token=None
    )
