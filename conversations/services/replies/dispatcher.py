"""The dispatcher: claims replies and messages that are due, and waits for models and providers on many threads.

There are two kinds of threads, so that no database connection is held while one waits for the network. A few threads
read and write rows, each with a connection of its own. Many threads wait for the network and use plain values only.
Each reply, each send and each file of a message moves between the two kinds:

    reply   claim ─► [tools (waits)] ─► [recall (waits) ─► keep (rows)] ─► prepare (rows) ─► engine (waits) ─► commit or
            fail (rows)
    send    claim ─► begin   (rows) ─► provider (waits) ─► succeeded or failed (rows)
    file    claim ─► begin   (rows) ─► fetch (waits) ─► fetched or failed (rows) [─► transcript (waits) ─► rows]

What is in flight holds slots, which clients share fairly (core/slots.py). Any number of dispatchers share the work. If
one is killed, others take its work when its leases run out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from conversations import heartbeat, log_context
from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.log_context import ContextThreads
from conversations.models import Message
from conversations.services.core.rotation import by_client
from conversations.services.core.slots import CLIENT_TIMES, Slots, with_spare
from conversations.services.core.sql import close_connections, with_retry
from conversations.services.delivery import claiming, read_marks, recovery
from conversations.services.delivery import sending as delivery
from conversations.services.engine_chats import chats
from conversations.services.history import recall
from conversations.services.media import claims as media_claims
from conversations.services.media import fetching
from conversations.services.replies import (
    fetched_files,
    late_replies,
    leases,
    pipeline,
    sinks,
    tool_calls,
    tool_runner,
    transcripts,
)
from memory.language_models.contract import LLMError
from memory.recall import NearestVectors

log = logging.getLogger(__name__)

ROW_THREADS = 3  # Python runs one at a time, so more hinder each other; and each has plans of its own to make
MARK_THREADS = 4
TYPING_AFTER_SECONDS = 0.4  # an indicator that comes after the reply would stay for a while
RECOVER_EVERY_SECONDS = 1.0
LOOK_SECONDS = 0.05  # at least, from one look for what is due to the next, however many replies end meanwhile
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
        self._rows = ContextThreads(ROW_THREADS, thread_name_prefix="rows")
        replies = with_spare(settings.DISPATCH_REPLIES, CLIENT_TIMES)
        sends = with_spare(settings.DISPATCH_SENDS, claiming.ACCOUNT_TIMES)
        media = with_spare(settings.DISPATCH_MEDIA, CLIENT_TIMES)
        self._turns, self._messages, self._media = Slots(replies), Slots(sends), Slots(media)
        self._clients_of_media: dict[UUID, UUID] = {}  # of the files in flight
        self._engines = ContextThreads(replies + 1, thread_name_prefix="engine")  # and one for a suspect
        self._providers = ContextThreads(sends, thread_name_prefix="provider")
        self._fetches = ContextThreads(media, thread_name_prefix="media")
        self._marks = ContextThreads(MARK_THREADS, thread_name_prefix="mark")
        self._marks_free = threading.BoundedSemaphore(MARK_THREADS)
        self._suspects: set[UUID] = set()  # at most one runs at a time, which shows whose turn crashes processes
        self._renewed = self._recovered = 0.0
        self._waiting: Future[int] | None = None  # the look at the turns that wait for a callback

    def run(self) -> int:
        """Claim and work until stopped, and return how many replies and sends were given back unfinished."""
        log.info("dispatcher started: replies=%s sends=%s", settings.DISPATCH_REPLIES, settings.DISPATCH_SENDS)
        away = 0.0
        while not self.stopping.is_set():
            heartbeat.beat()
            looked = time.monotonic()
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
            self.stopping.wait(looked + LOOK_SECONDS - time.monotonic())
            self._wake.clear()
        return self._finish()

    def stop(self) -> None:
        """Stop claiming; `run` returns once what was begun has ended."""
        self.stopping.set()
        self._wake.set()

    def tick(self) -> bool:
        """Claim what is due, as far as there are free threads, and return whether anything was claimed."""
        self._renew_and_recover_leases()
        return self._claim_replies() + self._claim_messages() + self._claim_media() > 0

    def _claim_replies(self) -> int:
        if not self._turns.free:
            return 0
        claimed = leases.claim(
            timezone.now(), self._turns, suspects=0 if self._suspects & self._turns.held.keys() else 1
        )
        for turn in claimed:
            if turn.suspect:
                self._suspects = {turn.turn_id}
            with log_context.about(conversation=turn.conversation_id, turn=turn.turn_id):
                self._let_go_after(self._rows.submit(self._reply, turn), self._turns, turn.turn_id)
        return len(claimed)

    def _claim_messages(self) -> int:
        if not self._messages.free:
            return 0
        token, claimed = claiming.claim(timezone.now(), self._messages)
        for message in claimed:
            with log_context.about(message=message.message_id):
                self._let_go_after(self._rows.submit(self._send, message, token), self._messages, message.message_id)
        return len(claimed)

    def _claim_media(self) -> int:
        if not self._media.free:
            return 0
        token, claimed = media_claims.claim(timezone.now(), self._media)
        self._clients_of_media = {pk: c for pk, c in self._clients_of_media.items() if pk in self._media}
        for client_id, attachment_id in claimed:
            self._clients_of_media[attachment_id] = client_id
            with log_context.about(attachment=attachment_id):
                step = self._rows.submit(self._fetch, client_id, attachment_id, token)
                self._let_go_after(step, self._media, attachment_id)
        return len(claimed)

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
        if turn.recalls and (query := with_retry(recall.recall_query, turn.client_id, turn.conversation_id)):
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
        mark = with_retry(read_marks.mark_for_newest, turn.client_id, turn.conversation_id)
        if mark and self._marks_free.acquire(blocking=False):
            self._marks.submit(self._show_mark, mark, turn.turn_id)

    def _show_mark(self, mark: read_marks.ReadMark, turn_id: UUID) -> None:
        try:
            self.stopping.wait(TYPING_AFTER_SECONDS)
            mark.show(typing=turn_id in self._turns)
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

    def _send(self, message: claiming.ClaimedMessage, token: UUID) -> Future[Any] | None:
        sending = with_retry(delivery.begin, message, token, timezone.now())
        if sending is None:
            return None
        with log_context.about(conversation=sending.conversation_id):
            return self._providers.submit(self._deliver, sending)

    def _deliver(self, sending: delivery.Sending) -> Future[Any]:
        outcome = delivery.deliver(sending)
        settle = delivery.record_sent if isinstance(outcome, SendResult) else delivery.record_failed
        return self._rows.submit(with_retry, settle, sending, outcome, timezone.now())

    # --- a file -------------------------------------------------------------------------------------------------------

    def _fetch(self, client_id: UUID, attachment_id: UUID, token: UUID) -> Future[Any] | None:
        wanted = with_retry(fetching.begin, client_id, attachment_id, token, timezone.now())
        if wanted:
            return self._fetches.submit(self._download, wanted)
        return self._transcribe(client_id, attachment_id, token)

    def _download(self, wanted: fetching.Fetch) -> Future[Any]:
        outcome = fetching.fetch(wanted)
        return self._rows.submit(self._record_fetched, wanted, outcome)

    def _record_fetched(self, wanted: fetching.Fetch, outcome: fetching.Fetched | SendError) -> Future[Any] | None:
        if with_retry(fetched_files.record, wanted, outcome, timezone.now()):
            return self._transcribe(wanted.client_id, wanted.attachment_id, wanted.token)
        return None

    def _transcribe(self, client_id: UUID, attachment_id: UUID, token: UUID) -> Future[Any] | None:
        recording = with_retry(transcripts.begin, client_id, attachment_id, token, timezone.now())
        return self._fetches.submit(self._write_down, recording) if recording else None

    def _write_down(self, recording: transcripts.Recording) -> Future[Any]:
        outcome = transcripts.write_down(recording)
        settle = transcripts.record_failed if isinstance(outcome, LLMError) else transcripts.record_written
        return self._rows.submit(with_retry, settle, recording, outcome, timezone.now())

    def _held_media(self) -> list[tuple[UUID, UUID]]:
        """Return the client and id of each file in flight."""
        held = self._media.held
        return [(client_id, pk) for pk, client_id in list(self._clients_of_media.items()) if pk in held]

    # --- what is held -------------------------------------------------------------------------------------------------

    def _let_go_after(self, step: Future[Any], held: Slots, pk: UUID) -> None:
        """Free the slot of `pk` when the step, and each further step that it returned, has ended."""

        def ended(done: Future[Any]) -> None:
            error = done.exception()
            following = None if error else done.result()
            if error:
                log.error("a step failed, its lease will run out: %s", pk, exc_info=error)
            if isinstance(following, Future):
                self._let_go_after(following, held, pk)
                return
            held.let_go(pk)
            self._wake.set()

        step.add_done_callback(ended)

    def _renew_and_recover_leases(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= settings.LEASE_SECONDS / 3:
            self._renewed = now
            leases.renew(self._turns.held, timezone.now())
            recovery.renew(self._messages.held, timezone.now())
            media_claims.renew(self._held_media(), timezone.now())
        if now - self._recovered >= RECOVER_EVERY_SECONDS:
            self._recovered = now
            at = timezone.now()
            if freed := leases.recover(at) + recovery.recover(at) + tool_calls.recover(at):
                log.warning("freed claims of a dead dispatcher: %s", freed)
            if self._waiting is None or self._waiting.done():
                self._waiting = self._rows.submit(with_retry, late_replies.end_waiting, timezone.now())

    def _finish(self) -> int:
        """Wait for what was begun, then give back what is left and return how many that is."""
        deadline = time.monotonic() + self.patience
        while (self._turns.held or self._messages.held or self._media.held) and time.monotonic() < deadline:
            try:
                self._renew_and_recover_leases()
            except (OperationalError, InterfaceError):
                connection.close()
            time.sleep(0.05)
        turns, messages = self._turns.held, self._messages.held
        with_retry(release_claims, turns, messages)
        with_retry(media_claims.give_back, self._held_media(), timezone.now())
        close_connections(self._rows, ROW_THREADS, self.patience)
        for pool in (self._marks, self._fetches, self._providers, self._engines, self._rows):
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


def release_claims(turns: Mapping[UUID, UUID], messages: Mapping[UUID, UUID]) -> None:
    """Free the turns and messages that were claimed and not finished, so that another dispatcher takes them at once.

    A message that is being sent stays as it is until its lease runs out: it may have left already.
    """
    now = timezone.now()
    leases.give_back(turns, now)
    for client_id, ids in by_client(messages).items():
        Message.objects.filter(client_id=client_id, pk__in=ids, status=Message.Status.CLAIMED).update(
            status=Message.Status.QUEUED, lease_until=None, lease_token=None
        )
