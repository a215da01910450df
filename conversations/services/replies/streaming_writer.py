"""The resident part of the writing of streamed turns: one thread that looks after all of them.

Engines write on the process's event loop, so that hundreds of replies need neither a thread nor a connection each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.utils import timezone

from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.services.core.sql import close_connections, column, with_retry
from conversations.services.history import recall
from conversations.services.replies import leases, pipeline
from conversations.services.replies.dispatcher import recalled
from conversations.services.replies.leases import StreamedTurn
from memory import event_loop
from memory.recall import NearestVectors
from memory.redaction import CARDS_ONLY

log = logging.getLogger(__name__)

ROW_THREADS = 2
RECALL_THREADS = 32  # they wait for RECALL_SECONDS at most
FLUSH_SECONDS = 0.1
TAKEN_AT_MOST = 8  # times; a turn that takes its dispatcher down cannot do so for ever
STOPPED = "stopped"
EXHAUSTED = EngineError("It was tried too often.", code="exhausted", retryable=False)


@dataclass(frozen=True, slots=True)
class NewText:
    """The text that was written since the last look. `start` counts the characters before it."""

    turn: StreamedTurn
    start: int
    text: str


class Job:
    """A turn that is being written: what came, and how much of it is kept already."""

    def __init__(self, turn: StreamedTurn) -> None:
        self.turn = turn
        self.rules = CARDS_ONLY
        self.is_held_back = False  # until its confidence is known: an unsure draft is never shown
        self.writing: Future[Reply] | None = None
        self.stopped = self.settling = False
        self._guard = threading.Lock()
        self._said: list[str] = []
        self._kept = 0

    def say(self, text: str) -> None:
        """The engine has written more."""
        with self._guard:
            self._said.append(text)

    @property
    def said(self) -> str:
        """All that came."""
        with self._guard:
            self._said = ["".join(self._said)]
            return self._said[0]

    @property
    def seen(self) -> str:
        """The text that a reader may have seen."""
        return "" if self.is_held_back else self.said

    def news(self) -> NewText | None:
        """What came since the last time, as far as it is certain that it may be shown."""
        if self.is_held_back:
            return None
        said = self.rules.clean_beginning(self.said)
        piece = NewText(self.turn, self._kept, said[self._kept :])
        self._kept = len(said)
        return piece if piece.text else None


class CopilotWriter:
    """One resident thread. `stop` ends it once what was begun has ended, or after `patience` seconds."""

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._jobs: dict[UUID, Job] = {}
        self._ended: SimpleQueue[Job] = SimpleQueue()
        self._rows = ThreadPoolExecutor(ROW_THREADS, thread_name_prefix="copilot-rows")
        self._recalls = ThreadPoolExecutor(RECALL_THREADS, thread_name_prefix="copilot-recalls")
        self._thread = threading.Thread(target=self._run, name="copilot", daemon=True)
        self._renewed = 0.0

    def start(self) -> None:
        """Begin to claim."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Return once what was begun has ended or is given back."""
        self._thread.join(self.patience + 10)

    def _run(self) -> None:
        away = 0.0
        deadline = float("inf")
        while not self._stopping.is_set() or (self._jobs and time.monotonic() < deadline):
            if self._stopping.is_set():
                deadline = min(deadline, time.monotonic() + self.patience)
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
                log.exception("the copilot's writer stumbled")
                self._stopping.wait(1.0)
            self._wake.wait(FLUSH_SECONDS if self._jobs else settings.DISPATCH_POLL_SECONDS)
            self._wake.clear()
        self._finish()

    def tick(self) -> None:
        """One look: what was written is kept, what is to stop stops, what ended is settled, what is free is claimed."""
        jobs = [job for job in list(self._jobs.values()) if not job.settling]
        if pieces := [piece for job in jobs if (piece := job.news())]:
            keep_deltas(pieces)
        self._heed(jobs)
        for job in self._have_ended():
            job.settling = True  # no further piece is kept: the whole is
            self._after(self._rows.submit(self._settle, job), job)
        room = settings.DISPATCH_STREAMS - len(self._jobs)
        if room and not self._stopping.is_set():
            for turn in leases.claim_streamed(timezone.now(), room):
                job = self._jobs[turn.turn_id] = Job(turn)
                self._rows.submit(self._begin, job)

    def _have_ended(self) -> Iterator[Job]:
        with suppress(Empty):
            while True:
                yield self._ended.get_nowait()

    def _heed(self, jobs: list[Job]) -> None:
        """Leases are renewed, and whoever asked for a stop, or took a turn over, is obeyed."""
        if not jobs:
            return
        turns = [job.turn for job in jobs]
        now = time.monotonic()
        if now - self._renewed >= settings.LEASE_SECONDS / 3:
            self._renewed = now
            leases.renew_streamed(turns, timezone.now())
        stopped, lost = leases.stopped_or_lost(turns)
        for job in jobs:
            if job.turn.turn_id in stopped | lost and job.writing and not job.writing.done():
                job.stopped = job.turn.turn_id in stopped
                job.writing.cancel()

    # --- a turn -------------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        """The engine writes, where it is to be after a look at earlier sessions; or the job has ended already."""
        with self._or_given_up(job):
            if job.turn.attempt > TAKEN_AT_MOST:
                with_retry(pipeline.fail, job.turn, EXHAUSTED, timezone.now())
                self._jobs.pop(job.turn.turn_id, None)
            elif job.turn.recalls and (question := with_retry(recall.recall_query, job.turn.conversation_id)):
                self._recalls.submit(self._recall, job, question)
            else:
                self._prepare(job)

    def _recall(self, job: Job, question: recall.RecallQuery) -> None:
        near = question.ask_network()
        self._rows.submit(self._told, job, question, near)

    def _told(self, job: Job, question: recall.RecallQuery, near: NearestVectors | None) -> None:
        with self._or_given_up(job):
            recalled(question, near)
            self._prepare(job)

    def _prepare(self, job: Job) -> None:
        prepared = None if job.turn.stopped else with_retry(pipeline.prepare, job.turn)
        if prepared is None:
            job.stopped = True
            self._ended.put(job)
            self._wake.set()
            return
        request, engine = prepared
        job.rules, job.is_held_back = request.rules, request.confidence
        job.writing = event_loop.start(self._write(job, request, engine))
        job.writing.add_done_callback(lambda _: self._note(job))

    @contextmanager
    def _or_given_up(self, job: Job) -> Iterator[None]:
        try:
            yield
        except Exception:
            log.exception("a turn could not be prepared, its lease will run out: %s", job.turn.turn_id)
            self._jobs.pop(job.turn.turn_id, None)

    async def _write(self, job: Job, request: ReplyRequest, engine: str) -> Reply:
        """The whole reply, whose pieces the job was told as they came. Raises EngineError."""
        begun, first = time.monotonic(), None
        async for piece in registry.stream(engine, request):
            passed = round((time.monotonic() - begun) * 1000)
            if isinstance(piece, Reply):
                return replace(piece, first_token_ms=first, last_token_ms=passed)
            job.say(piece)
            if first is None:
                first = passed
                self._wake.set()
        raise EngineError("The engine ended without a reply.", code="bad_answer", retryable=True)

    def _note(self, job: Job) -> None:
        self._ended.put(job)
        self._wake.set()

    def _settle(self, job: Job) -> None:
        """What became of the turn is on its row."""
        now = timezone.now()
        if job.stopped:
            with_retry(partial(pipeline.commit, code=STOPPED), job.turn, _stopped(job.seen), now)
            return
        outcome = _outcome(job)
        if isinstance(outcome, Reply):
            with_retry(pipeline.commit, job.turn, outcome, now)
        elif outcome is not None:
            with_retry(partial(pipeline.fail, written=job.seen), job.turn, outcome, now)

    def _after(self, step: Future[None], job: Job) -> None:
        def ended(done: Future[None]) -> None:
            if error := done.exception():
                log.error("a step failed, its lease will run out: %s", job.turn.turn_id, exc_info=error)
            self._jobs.pop(job.turn.turn_id, None)
            self._wake.set()

        step.add_done_callback(ended)

    def _finish(self) -> None:
        """Give back what is left."""
        left = list(self._jobs.values())
        for job in left:
            if job.writing:
                job.writing.cancel()
        if left:
            with_retry(leases.free_streamed, [job.turn for job in left], timezone.now())
            log.info("the copilot's writer stopped: given back %s replies", len(left))
        close_connections(self._rows, ROW_THREADS, self.patience)
        for pool in (self._recalls, self._rows):
            pool.shutdown(wait=False, cancel_futures=True)


def _stopped(written: str) -> Reply:
    """What was written until it was stopped, as a reply."""
    return Reply(text=written.rstrip(), engine="", finish_reason=STOPPED)


def _outcome(job: Job) -> Reply | EngineError | None:
    """What the engine gave; None where the turn is not ours any more."""
    if job.writing is None or job.writing.cancelled():
        return None
    error = job.writing.exception()
    if error is None:
        return job.writing.result()
    if isinstance(error, EngineError):
        return error
    log.error("engine crashed: conversation=%s", job.turn.conversation_id, exc_info=error)
    return EngineError(f"The engine crashed: {type(error).__name__}.", code="engine_crashed", retryable=True)


def keep_deltas(texts: Sequence[NewText]) -> None:
    """Store the texts as deltas, where readers find them; those of a turn that is not ours any more are dropped."""
    column(
        """
        INSERT INTO copilot_deltas (turn_id, attempt, start, text, login_id)
        SELECT n.turn_id, n.attempt, n.start, n.text, n.login_id
        FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::int[])
             AS n (turn_id, attempt, start, text, login_id)
        JOIN conversation_turns t ON t.id = n.turn_id AND t.attempt = n.attempt AND t.status = 'running'
        ON CONFLICT DO NOTHING
        RETURNING start
        """,
        *leases.attempts_of([each.turn for each in texts]),
        [each.start for each in texts],
        [each.text for each in texts],
        [each.turn.login_id for each in texts],
    )
