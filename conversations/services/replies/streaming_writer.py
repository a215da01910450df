"""The writer of streamed replies: one thread that claims their turns, stores their text as it comes and ends them.

Engines write on the process's event loop, so that hundreds of replies need neither a thread nor a connection each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from conversations import log_context
from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.log_context import ContextThreads
from conversations.services.core.cluster import is_cluster, of_each
from conversations.services.core.slots import CLIENT_TIMES, Slots, with_spare
from conversations.services.core.sql import close_connections, column, rows, with_retry
from conversations.services.history import recall
from conversations.services.replies import leases, pipeline, tool_runner
from conversations.services.replies.dispatcher import LOOK_SECONDS, keep_recalled
from conversations.services.replies.leases import StreamedTurn
from memory import event_loop
from memory.recall import NearestVectors
from memory.redaction import GrowingText

log = logging.getLogger(__name__)

ROW_THREADS = 2
RECALL_THREADS = 32  # each waits for RECALL_SECONDS at most
FLUSH_SECONDS = 0.1
MOST_ATTEMPTS = 8  # a turn that crashes its process cannot do so for ever
STOPPED = "stopped"
EXHAUSTED = EngineError("The reply was tried too often.", code="exhausted", retryable=False)


@dataclass(frozen=True, slots=True)
class NewText:
    """Text of a turn that is not stored yet. `start`: the number of characters before it."""

    turn: StreamedTurn
    start: int
    text: str


class StreamedReply:
    """A reply that is being written: its turn, its text so far, and how much of that is stored."""

    def __init__(self, turn: StreamedTurn) -> None:
        self.turn = turn
        self.shown = GrowingText()
        self.is_held_back = False  # until its confidence is known: an unsure draft is never shown
        self.writing: Future[Reply] | None = None
        self.stopped = self.settling = False
        self._guard = threading.Lock()
        self._pieces: list[str] = []
        self._stored = 0

    def append(self, text: str) -> None:
        """Add text that the engine has written."""
        with self._guard:
            self._pieces.append(text)

    @property
    def text(self) -> str:
        """Return all that the engine has written so far."""
        with self._guard:
            self._pieces = ["".join(self._pieces)]
            return self._pieces[0]

    @property
    def visible_text(self) -> str:
        """Return the text that a reader may have seen."""
        return "" if self.is_held_back else self.text

    def take_new_text(self) -> NewText | None:
        """Return the text since the last call that may be shown after redaction, and count it as stored."""
        if self.is_held_back:
            return None
        clean = self.shown.beginning(self.text)
        if len(clean) <= self._stored:  # less than before, where a blank before a digit is held back again
            return None
        piece = NewText(self.turn, self._stored, clean[self._stored :])
        self._stored = len(clean)
        return piece


class CopilotWriter:
    """Write streamed replies on one thread of this process.

    patience: how many seconds to wait after `stop` for what was begun
    """

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._replies: dict[UUID, StreamedReply] = {}
        self._slots = Slots(with_spare(settings.DISPATCH_STREAMS, CLIENT_TIMES))
        self._ended: SimpleQueue[StreamedReply] = SimpleQueue()
        self._rows = ContextThreads(ROW_THREADS, thread_name_prefix="copilot-rows")
        self._recalls = ContextThreads(RECALL_THREADS, thread_name_prefix="copilot-recalls")
        self._thread = threading.Thread(target=self._run, name="copilot", daemon=True)
        self._renewed = 0.0

    def start(self) -> None:
        """Start claiming turns."""
        self._thread.start()

    def stop(self) -> None:
        """Stop claiming turns; the thread ends once what was begun has ended."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Wait until what was begun has ended or is given back."""
        self._thread.join(self.patience + 10)

    def _run(self) -> None:
        away = 0.0
        deadline = float("inf")
        while not self._stopping.is_set() or (self._replies and time.monotonic() < deadline):
            if self._stopping.is_set():
                deadline = min(deadline, time.monotonic() + self.patience)
            looked = time.monotonic()
            try:
                close_old_connections()
                self.tick()
                away = 0.0
            except (OperationalError, InterfaceError):
                connection.close()
                away = min(away * 2 or 0.1, 2.0)
                log.warning("the database is away: trying again in %.1f s", away)
                self._stopping.wait(away)
            except Exception:
                log.exception("the streaming writer failed; it tries again")
                self._stopping.wait(1.0)
            self._wake.wait(FLUSH_SECONDS if self._replies else settings.DISPATCH_POLL_SECONDS)
            self._stopping.wait(looked + LOOK_SECONDS - time.monotonic())
            self._wake.clear()
        self._finish()

    def tick(self) -> None:
        """Store what was written, stop what is to stop, settle what has ended, and claim what is free."""
        replies = [reply for reply in list(self._replies.values()) if not reply.settling]
        if pieces := [piece for reply in replies if (piece := reply.take_new_text())]:
            store_deltas(pieces)
        self._renew_and_stop(replies)
        for reply in self._take_ended():
            reply.settling = True  # no further piece is kept: the whole is
            with _about(reply.turn):
                self._remove_after(self._rows.submit(self._settle, reply), reply)
        if self._slots.free and not self._stopping.is_set():
            for turn in leases.claim_streamed(timezone.now(), self._slots):
                reply = self._replies[turn.turn_id] = StreamedReply(turn)
                with _about(turn):
                    self._rows.submit(self._begin, reply)

    def _take_ended(self) -> Iterator[StreamedReply]:
        with suppress(Empty):
            while True:
                yield self._ended.get_nowait()

    def _renew_and_stop(self, replies: list[StreamedReply]) -> None:
        """Renew the leases, and cancel replies that are to stop or whose turn is not ours any more."""
        if not replies:
            return
        turns = [reply.turn for reply in replies]
        now = time.monotonic()
        if now - self._renewed >= settings.LEASE_SECONDS / 3:
            self._renewed = now
            leases.renew_streamed(turns, timezone.now())
        stopped, lost = leases.stopped_or_lost(turns)
        for reply in replies:
            if reply.turn.turn_id in stopped | lost and reply.writing and not reply.writing.done():
                reply.stopped = reply.turn.turn_id in stopped
                reply.writing.cancel()

    # --- a turn -------------------------------------------------------------------------------------------------------

    def _begin(self, reply: StreamedReply) -> None:
        """Prepare the turn and let the engine write, after the tools and the recall that are to come first."""
        with self._dropped_on_failure(reply):
            if reply.turn.attempt > MOST_ATTEMPTS:
                with_retry(pipeline.fail, reply.turn, EXHAUSTED, timezone.now())
                self._remove(reply)
            elif reply.turn.calls:
                self._recalls.submit(self._call_tools, reply)
            else:
                self._recall_or_prepare(reply)

    def _call_tools(self, reply: StreamedReply) -> None:
        with self._dropped_on_failure(reply):
            tool_runner.make_waiting(reply.turn, self._run_on_rows)
            self._rows.submit(self._recall_or_prepare, reply)

    def _run_on_rows(self, work: Callable[..., Any], *values: Any) -> Any:
        """Run work on a thread that has a database connection and return its result."""
        return self._rows.submit(with_retry, work, *values).result()

    def _recall_or_prepare(self, reply: StreamedReply) -> None:
        with self._dropped_on_failure(reply):
            if reply.turn.recalls and (
                query := with_retry(recall.recall_query, reply.turn.client_id, reply.turn.conversation_id)
            ):
                self._recalls.submit(self._recall, reply, query)
            else:
                self._prepare(reply)

    def _recall(self, reply: StreamedReply, query: recall.RecallQuery) -> None:
        near = query.ask_network()
        self._rows.submit(self._keep_and_prepare, reply, query, near)

    def _keep_and_prepare(self, reply: StreamedReply, query: recall.RecallQuery, near: NearestVectors | None) -> None:
        with self._dropped_on_failure(reply):
            keep_recalled(query, near)
            self._prepare(reply)

    def _prepare(self, reply: StreamedReply) -> None:
        prepared = None if reply.turn.stopped else with_retry(pipeline.prepare, reply.turn)
        if prepared is None:
            reply.stopped = True
            self._ended.put(reply)
            self._wake.set()
            return
        request, engine = prepared
        request = tool_runner.with_rows(request, self._run_on_rows)
        reply.shown, reply.is_held_back = GrowingText(request.rules), request.confidence
        reply.writing = event_loop.start(self._write(reply, request, engine))
        reply.writing.add_done_callback(lambda _: self._put_ended(reply))

    @contextmanager
    def _dropped_on_failure(self, reply: StreamedReply) -> Iterator[None]:
        try:
            yield
        except Exception:
            log.exception("a turn could not be prepared, its lease will run out: %s", reply.turn.turn_id)
            self._remove(reply)

    async def _write(self, reply: StreamedReply, request: ReplyRequest, engine: str) -> Reply:
        """Return the whole reply, after adding each piece as it came. Raises EngineError."""
        begun, first = time.monotonic(), None
        async for piece in registry.stream(engine, request):
            passed = round((time.monotonic() - begun) * 1000)
            if isinstance(piece, Reply):
                return replace(piece, first_token_ms=first, last_token_ms=passed)
            reply.append(piece)
            if first is None:
                first = passed
                self._wake.set()
        raise EngineError("The engine ended without a reply.", code="bad_answer", retryable=True)

    def _put_ended(self, reply: StreamedReply) -> None:
        self._ended.put(reply)
        self._wake.set()

    def _settle(self, reply: StreamedReply) -> None:
        """Write the outcome to the turn's row."""
        now = timezone.now()
        if reply.stopped:
            with_retry(partial(pipeline.commit, code=STOPPED), reply.turn, _stopped(reply.visible_text), now)
            return
        outcome = _outcome(reply)
        if isinstance(outcome, Reply):
            with_retry(pipeline.commit, reply.turn, outcome, now)
        elif outcome is not None:
            with_retry(partial(pipeline.fail, written=reply.visible_text), reply.turn, outcome, now)

    def _remove_after(self, step: Future[None], reply: StreamedReply) -> None:
        def ended(done: Future[None]) -> None:
            if error := done.exception():
                log.error("a step failed, its lease will run out: %s", reply.turn.turn_id, exc_info=error)
            self._remove(reply)
            self._wake.set()

        step.add_done_callback(ended)

    def _remove(self, reply: StreamedReply) -> None:
        self._replies.pop(reply.turn.turn_id, None)
        self._slots.let_go(reply.turn.turn_id)

    def _finish(self) -> None:
        """Give back the turns that are left."""
        left = list(self._replies.values())
        for reply in left:
            if reply.writing:
                reply.writing.cancel()
        if left:
            with_retry(leases.free_streamed, [reply.turn for reply in left], timezone.now())
            log.info("the copilot's writer stopped: given back %s replies", len(left))
        close_connections(self._rows, ROW_THREADS, self.patience)
        for pool in (self._recalls, self._rows):
            pool.shutdown(wait=False, cancel_futures=True)


def _about(turn: StreamedTurn) -> AbstractContextManager[None]:
    return log_context.about(conversation=turn.conversation_id, turn=turn.turn_id)


def _stopped(written: str) -> Reply:
    """Return what was written until the stop as a reply."""
    return Reply(text=written.rstrip(), engine="", finish_reason=STOPPED)


def _outcome(reply: StreamedReply) -> Reply | EngineError | None:
    """Return the engine's reply or error; None where the turn is not ours any more."""
    if reply.writing is None or reply.writing.cancelled():
        return None
    error = reply.writing.exception()
    if error is None:
        return reply.writing.result()
    if isinstance(error, EngineError):
        return error
    log.error("engine crashed: conversation=%s", reply.turn.conversation_id, exc_info=error)
    return EngineError(f"The engine crashed: {type(error).__name__}.", code="engine_crashed", retryable=True)


def store_deltas(texts: Sequence[NewText]) -> None:
    """Store the texts as deltas for readers. Texts of a turn that is not ours any more are dropped.

    In a cluster, so are those whose server is away: their readers get the whole at the end.
    """
    if not is_cluster():
        _store(texts)
        return
    theirs: dict[UUID, list[NewText]] = {}
    for text in texts:
        theirs.setdefault(text.turn.client_id, []).append(text)
    list(of_each(theirs.items(), _store_in_cluster))


def _store_in_cluster(client_id: UUID, texts: Sequence[NewText]) -> None:
    """Store the texts one by one: an INSERT of what its SELECT found would need every server."""
    statement = (
        "SELECT id, attempt FROM conversation_turns WHERE client_id = $1 AND id = ANY($2) AND status = 'running'"
    )
    running = dict(rows(statement, client_id, [text.turn.turn_id for text in texts]))
    for text in texts:
        if running.get(text.turn.turn_id) == text.turn.attempt:
            column(
                """
                INSERT INTO copilot_deltas (client_id, turn_id, attempt, start, text, login_id)
                VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING start
                """,
                *(client_id, text.turn.turn_id, text.turn.attempt, text.start, text.text, text.turn.login_id),
            )


def _store(texts: Sequence[NewText]) -> None:
    column(
        """
        INSERT INTO copilot_deltas (client_id, turn_id, attempt, start, text, login_id)
        SELECT n.client_id, n.turn_id, n.attempt, n.start, n.text, n.login_id
        FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::int[], $6::uuid[])
             AS n (turn_id, attempt, start, text, login_id, client_id)
        JOIN conversation_turns t
            ON t.client_id = n.client_id AND t.id = n.turn_id AND t.attempt = n.attempt AND t.status = 'running'
        ON CONFLICT DO NOTHING
        RETURNING start
        """,
        *leases.attempts_of([each.turn for each in texts]),
        [each.start for each in texts],
        [each.text for each in texts],
        [each.turn.login_id for each in texts],
        [each.turn.client_id for each in texts],
    )
