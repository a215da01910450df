"""Replies: claim a session that owes one, build the prompt, let an engine write, commit if nothing overtook it.

What is owed is a fact on the session's row; a turn is the claim on it. No step holds a transaction, or a connection,
while the engine waits for its model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.models import SAID, Assistant, Chunk, Conversation, Role, Step, Turn, corrected_text
from conversations.services import delivery, prompts, summaries
from conversations.services.database import rows, unlocked
from conversations.services.errors import NotFoundError
from conversations.services.ledger import ASSISTANT, SYSTEM, record
from conversations.services.retries import backoff
from conversations.services.transcript import ACTIVITY_FIELDS, lock, note_answered, write_chunks
from memory import languages
from memory.context import Entry, Prompt, SessionView, build_prompt

log = logging.getLogger(__name__)

DRAFTS_DROPPED_AT_MOST = 2
HISTORY_LENGTH = 10
CONTEXT_BUDGET = 8_000
OPENING_CHUNKS = 2  # system and memory: the prompt has them anyway
LANGUAGE_SAMPLE = 400  # characters of each entry
FALLBACK = "Sorry, I cannot answer right now. A colleague will get back to you."
TurnStatus = Turn.Status


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that is ours while its lease lasts. `exhausted`: it was tried often enough, nothing more is tried."""

    turn_id: UUID
    conversation_id: UUID
    exhausted: bool


def claim(now: datetime, limit: int) -> list[Claim]:
    """Up to `limit` sessions that owe a reply by now have a running turn that is ours.

    The attempt is counted before it begins, so that a turn that takes its process down cannot do so for ever. Two
    dispatchers that see the same session: the constraint on running turns lets one in.
    """
    claimed = rows(
        """
        WITH due AS (
            SELECT s.id, s.reply_attempts, s.inbound_sequence
            FROM conversations s
            WHERE s.reply_owed AND s.reply_due_at <= $1 AND s.taken_over_at IS NULL
              AND NOT EXISTS (SELECT FROM conversation_turns t WHERE t.conversation_id = s.id AND t.status = 'running')
            ORDER BY s.reply_due_at
            LIMIT $2
            FOR NO KEY UPDATE OF s SKIP LOCKED
        ), begun AS (
            INSERT INTO conversation_turns
                (id, conversation_id, status, attempt, inbound_sequence, lease_until, started_at, engine, model, draft,
                 finish_reason, tokens_in, tokens_out, code, reason)
            SELECT gen_random_uuid(), id, 'running', reply_attempts + 1, inbound_sequence, $3, $1, '', '', '',
                   '', 0, 0, '', ''
            FROM due
            ON CONFLICT (conversation_id) WHERE status = 'running' DO NOTHING
            RETURNING id, conversation_id, attempt
        ), counted AS (
            UPDATE conversations s SET reply_attempts = begun.attempt FROM begun WHERE s.id = begun.conversation_id
        )
        SELECT id, conversation_id, attempt FROM begun
        """,
        now,
        limit,
        now + lease(),
    )
    most = settings.REPLY_ATTEMPTS
    return [Claim(turn_id, conversation_id, attempt > most) for turn_id, conversation_id, attempt in claimed]


def lease() -> timedelta:
    """How long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


def renew(turn_ids: Sequence[UUID], now: datetime) -> None:
    """The turns are still being worked on. One that somebody is just ending is left alone."""
    with transaction.atomic():
        unlocked(Turn.objects.filter(pk__in=turn_ids, status=TurnStatus.RUNNING)).update(lease_until=now + lease())


def recover(now: datetime) -> int:
    """Turns of a dead dispatcher are abandoned; their sessions still owe the reply. Returns how many."""
    with transaction.atomic():
        return unlocked(Turn.objects.filter(status=TurnStatus.RUNNING, lease_until__lt=now)).update(
            status=TurnStatus.ABANDONED, ended_at=now, code="lease_over"
        )


def prepare(turn_id: UUID) -> tuple[ReplyRequest, str] | None:
    """What the engine is given, kept on the turn, and the engine's name. None: the turn is not ours any more."""
    turn = Turn.objects.filter(pk=turn_id, status=TurnStatus.RUNNING).first()
    conversation = _conversation(turn.conversation_id) if turn else None
    if turn is None or conversation is None:
        return None
    assistant = conversation.assistant
    # The sequence was read before the chunks: a message between the two makes the draft overtaken, never unseen.
    turn.inbound_sequence = conversation.inbound_sequence
    steps = list(conversation.steps.filter(status=Step.Status.PENDING).values_list("description", flat=True))
    view = _view(conversation, assistant, steps)
    prompt = build_prompt(view)
    if fell_out := _fell_out(conversation, assistant, view, prompt):
        summaries.ask_for(conversation, fell_out)
    turn.engine = assistant.engine if assistant else Assistant.EngineName.AUTO
    turn.prompt = prompts.as_kept(conversation, assistant, prompt)
    Turn.objects.filter(pk=turn_id, status=TurnStatus.RUNNING).update(
        inbound_sequence=turn.inbound_sequence, engine=turn.engine, prompt=turn.prompt
    )
    request = ReplyRequest(
        conversation_id=str(conversation.pk),
        prompt=prompt,
        goal=conversation.goal,
        pending_steps=tuple(steps),
        model=assistant.model if assistant else "",
        temperature=assistant.temperature if assistant else None,
        max_tokens=assistant.max_tokens if assistant else None,
    )
    return request, turn.engine


def _conversation(conversation_id: UUID) -> Conversation | None:
    related = ("assistant", "contact", "rolling_summary")
    return Conversation.objects.select_related(*related).filter(pk=conversation_id).first()


def _view(conversation: Conversation, assistant: Assistant | None, steps: Sequence[str]) -> SessionView:
    """The session for the prompt: its own rows alone, never global memory."""
    opening = dict(
        Chunk.objects.filter(conversation=conversation, position__lte=2, role__in=[Role.SYSTEM, Role.MEMORY])
        .annotate(words=corrected_text())
        .values_list("role", "words")
    )
    entries = _window(conversation, assistant)
    first = entries[0].position if entries else conversation.last_position + 1
    return SessionView(
        system_prompt=opening.get(Role.SYSTEM, ""),
        memory=opening.get(Role.MEMORY, ""),
        goal=conversation.goal,
        summary=conversation.summary,
        pending_steps=steps,
        entries=entries,
        budget=assistant.context_budget if assistant else CONTEXT_BUDGET,
        contact=_known_of(conversation, entries),
        older=max(first - 1 - max(_summarised(conversation), OPENING_CHUNKS), 0),
    )


def _window(conversation: Conversation, assistant: Assistant | None) -> list[Entry]:
    """The newest entries, oldest first: the assistant's history length, and what came before them and is not in the
    summary yet, so that nothing is lost between the two."""
    newest = Chunk.objects.filter(conversation=conversation, role__in=SAID).order_by("-position")
    columns = newest.annotate(words=corrected_text()).values_list("role", "words", "author_id", "position")
    length = _history_length(assistant)
    waiting = summaries.MOST_OVERHANGING if summaries.are_possible() else 0
    said = [Entry(role, text, author is not None, at) for role, text, author, at in columns[: length + waiting]]
    absorbed = _summarised(conversation)
    return [entry for number, entry in enumerate(said) if number < length or entry.position > absorbed][::-1]


def _fell_out(conversation: Conversation, assistant: Assistant | None, view: SessionView, prompt: Prompt) -> int:
    """The position up to which entries should be in the summary by now: those that the budget has no room for, and
    those before the history, once there are some. 0 if there is nothing to do."""
    if not summaries.are_possible():
        return 0
    shown = min((part.position for part in prompt.parts if part.position), default=0)
    before = [entry.position for entry in view.entries[: -_history_length(assistant)]]
    waiting = view.older + len([position for position in before if position > _summarised(conversation)])
    if shown and view.entries[0].position < shown:
        before += [entry.position for entry in view.entries if entry.position < shown]
    elif waiting < summaries.ABSORB_FROM:
        return 0
    wanted = max(before, default=0)
    return wanted if wanted > _summarised(conversation) else 0


def _summarised(conversation: Conversation) -> int:
    """The position up to which the summary has absorbed what was said."""
    rolling = summaries.of(conversation)
    return rolling.upto if rolling else 0


def _known_of(conversation: Conversation, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """What is known of the person that an answer may depend on. The phone's number is not among it."""
    contact = conversation.contact
    words = " ".join(entry.content[:LANGUAGE_SAMPLE] for entry in entries if entry.role != Role.AI)
    language = languages.guess(words)
    return [
        ("Name", contact.name),
        ("Language", "" if language == languages.DEFAULT else language.capitalize()),
        ("Phone number", "known" if contact.phone else "not known yet"),
    ]


def _history_length(assistant: Assistant | None) -> int:
    return max(assistant.history_length, 1) if assistant else HISTORY_LENGTH


def commit(turn_id: UUID, reply: Reply, now: datetime) -> str:
    """The reply is a chunk and queued messages, if the turn may still speak. Returns the turn's status.

    The fence: the lease is still ours, the session is open, owes a reply and is nobody's but the assistant's, and no
    message came that the draft has not seen. An overtaken draft is dropped and the reply stays owed; after two such the
    third is committed, and the reply stays owed as well, so that a person who never stops is answered too.
    """
    with transaction.atomic():
        found = _locked(turn_id)
        if found is None:
            return TurnStatus.ABANDONED
        turn, conversation = found
        turn.draft, turn.engine, turn.model = reply.text, reply.engine, reply.model
        turn.finish_reason, turn.tokens_in, turn.tokens_out = reply.finish_reason, reply.tokens_in, reply.tokens_out
        turn.cost = prompts.cost(reply.model, reply.tokens_in, reply.tokens_out)
        turn.first_token_ms, turn.last_token_ms = reply.first_token_ms, reply.last_token_ms
        overtaken = conversation.inbound_sequence != turn.inbound_sequence
        if reason := _silenced(conversation):
            _end(turn, TurnStatus.DROPPED, now, code=reason)
        elif overtaken and conversation.drafts_overtaken < DRAFTS_DROPPED_AT_MOST:
            conversation.drafts_overtaken += 1
            conversation.reply_attempts = 0
            _end(turn, TurnStatus.OVERTAKEN, now)
        else:
            turn.chunk = _speak(conversation, reply.text, now)
            note_answered(conversation)
            conversation.reply_owed = overtaken
            conversation.fallback_sent = False
            _end(turn, TurnStatus.COMMITTED, now)
        conversation.save(update_fields=ACTIVITY_FIELDS)
    return turn.status


def fail(turn_id: UUID, error: EngineError, now: datetime) -> str:
    """The turn failed. The reply is tried again later, or, once that is pointless, staff are called and the person
    hears the fallback sentence: once, until a reply succeeds again. Returns the turn's status.
    """
    with transaction.atomic():
        found = _locked(turn_id)
        if found is None:
            return TurnStatus.ABANDONED
        turn, conversation = found
        if reason := _silenced(conversation):
            _end(turn, TurnStatus.DROPPED, now, code=reason)
            return turn.status
        _end(turn, TurnStatus.FAILED, now, code=error.code, reason=str(error))
        if error.retryable and turn.attempt < settings.REPLY_ATTEMPTS:
            conversation.reply_due_at = now + backoff(turn.attempt, error.retry_after)
        else:
            _call_staff(conversation, turn, error.code, now)
        conversation.save(update_fields=[*ACTIVITY_FIELDS, "needs_staff_since", "needs_staff_reason"])
    log.warning("turn failed: conversation=%s attempt=%s code=%s", conversation.pk, turn.attempt, error.code)
    return turn.status


def _locked(turn_id: UUID) -> tuple[Turn, Conversation] | None:
    """The turn and its conversation, locked, if the turn is still ours and neither was purged."""
    conversation_id = Turn.objects.filter(pk=turn_id).values_list("conversation_id", flat=True).first()
    try:
        conversation = lock(conversation_id) if conversation_id else None
    except NotFoundError:
        return None
    if conversation is None:
        return None
    turn = Turn.objects.select_for_update().filter(pk=turn_id, status=TurnStatus.RUNNING).first()
    return (turn, conversation) if turn else None


def _silenced(conversation: Conversation) -> str:
    """Why the assistant may not speak any more, or ''."""
    if not conversation.is_open:
        return "ended"
    if conversation.taken_over_at is not None:
        return "taken_over"
    return "" if conversation.reply_owed else "answered"


def _speak(conversation: Conversation, text: str, now: datetime) -> Chunk:
    [chunk] = write_chunks(conversation, [(Role.AI, text)], now)
    delivery.queue(conversation, chunk, now)
    return chunk


def _call_staff(conversation: Conversation, turn: Turn, code: str, now: datetime) -> None:
    assistant = conversation.assistant
    if not conversation.fallback_sent:
        turn.chunk = _speak(conversation, assistant.fallback if assistant else FALLBACK, now)
        turn.save(update_fields=["chunk"])
        conversation.fallback_sent = True
        record(conversation, "fallback_said", ASSISTANT, cause=code)
    note_answered(conversation)
    conversation.needs_staff_since = conversation.needs_staff_since or now
    conversation.needs_staff_reason = f"The assistant could not reply: {code}"
    record(conversation, "needs_staff", SYSTEM, cause=code)


def _end(turn: Turn, status: str, now: datetime, code: str = "", reason: str = "") -> None:
    turn.status, turn.ended_at = status, now
    turn.code, turn.reason = code[:40], reason[:500]
    turn.save()
