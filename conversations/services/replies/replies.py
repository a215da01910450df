"""Replies: claim a session that owes one, build the prompt, let an engine write, commit if nothing overtook it.

What is owed is a fact on the session's row; a turn is the claim on it. No step holds a transaction, or a connection,
while the engine waits for its model.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from conversations.engines.contract import EngineError, PendingStep, Reply, ReplyRequest
from conversations.models import (
    Assistant,
    Chunk,
    Client,
    Contact,
    Conversation,
    EndedBy,
    Role,
    RollingSummary,
    Step,
    Turn,
)
from conversations.services.core import redaction
from conversations.services.core.appending import ACTIVITY_FIELDS, SPOKEN_BY_PEOPLE, lock, note_answered, write_chunks
from conversations.services.core.as_json import dumps
from conversations.services.core.backoff import backoff
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import ASSISTANT, CONTACT, SYSTEM, Actor, Kind, record
from conversations.services.core.prepared import Select, update
from conversations.services.core.sql import row
from conversations.services.delivery import opt_outs, outbox
from conversations.services.delivery.read_marks import came_from
from conversations.services.engine_chats import chats
from conversations.services.replies import phrases, prompt_context, prompt_records, summaries, tool_actions
from conversations.services.transitions import closing, takeover

log = logging.getLogger(__name__)

DRAFTS_DROPPED_AT_MOST = 2
CRASHED = "crashed"
HUMAN_WANTED = "human_wanted"  # a turn that gave its session to a person
FALLBACK = "Sorry, I cannot answer right now. A colleague will get back to you."
TurnStatus = Turn.Status


_TURN = Select(
    """
    SELECT {t}, {s}, {k}, {c}, {a}, {r}
    FROM conversation_turns t
    JOIN conversations s ON s.id = t.conversation_id
    JOIN contacts k ON k.id = s.contact_id
    JOIN clients c ON c.id = s.client_id
    LEFT JOIN assistants a ON a.id = s.assistant_id
    LEFT JOIN conversation_summaries r ON r.conversation_id = s.id
    WHERE t.id = $1 AND t.status = 'running'
    """,
    t=Turn,
    s=Conversation,
    k=Contact,
    c=Client,
    a=Assistant,
    r=RollingSummary,
)
_STEPS = Select(
    """
    SELECT {p} FROM conversation_steps p WHERE p.conversation_id = $1 AND p.status = 'pending' ORDER BY p.rank, p.id
    """,
    p=Step,
)
_KEEP = """
    UPDATE conversation_turns SET inbound_sequence = $2, engine = $3, prompt = $4::jsonb, rule = $5
    WHERE id = $1 AND status = 'running'
    RETURNING id"""


def prepare(turn_id: UUID, now: datetime | None = None) -> tuple[ReplyRequest, str] | None:
    """What the engine is given, kept on the turn, and the engine's name. None: the turn is not ours any more, or a rule
    of the assistant's gave the session to a person."""
    turn = _running(turn_id)
    if turn is None:
        return None
    conversation = turn.conversation
    assistant = conversation.assistant
    turn.rule = phrases.met(conversation)
    if turn.rule == phrases.HUMAN:
        hand_over(turn_id, "a person was asked for", now or timezone.now())
        return None
    # The sequence was read before the chunks: a message between the two makes the draft overtaken, never unseen.
    steps: list[Step] = [step for (step,) in _STEPS.all(conversation.pk)]
    prompt = prompt_context.prompt_of(conversation, steps)
    turn.engine = assistant.engine if assistant else Assistant.EngineName.AUTO
    kept = dumps(prompt_records.as_kept(conversation, assistant, prompt)).decode()
    row(_KEEP, turn_id, conversation.inbound_sequence, turn.engine, kept, turn.rule)
    request = ReplyRequest(
        conversation_id=str(conversation.pk),
        prompt=prompt,
        goal=conversation.goal,
        pending_steps=tuple(step.description for step in steps),
        model=assistant.model if assistant else "",
        temperature=assistant.temperature if assistant else None,
        max_tokens=assistant.max_tokens if assistant else None,
        steps=tuple(PendingStep(step.pk, step.description) for step in steps),
        tools=assistant is not None and assistant.uses_tools,
        rules=redaction.rules_of(conversation.client),
        confidence=assistant is not None and assistant.human_below_confidence is not None,
        chat=chats.so_far(conversation, assistant, turn_id, [step.description for step in steps])
        if assistant and _keeps_chats(assistant)
        else None,
    )
    return request, turn.engine


def _keeps_chats(assistant: Assistant) -> bool:
    """Whether its engine keeps the conversation itself."""
    return assistant.engine == Assistant.EngineName.RETELL


def _running(turn_id: UUID) -> Turn | None:
    """The turn, if it is still ours, with its conversation and all that the prompt says of it."""
    found = _TURN.first(turn_id)
    if found is None:
        return None
    turn: Turn
    turn, conversation, conversation.contact, conversation.client, conversation.assistant, rolling = found
    summaries.set_of(conversation, rolling)
    turn.conversation = conversation
    return turn


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
        reply = redaction.clean_reply(redaction.rules_of(conversation.client), reply)
        _note(turn, reply)
        overtaken = conversation.inbound_sequence != turn.inbound_sequence
        if reason := _silenced(conversation):
            _drop(turn, conversation, reason, now)
        elif overtaken and conversation.drafts_overtaken < DRAFTS_DROPPED_AT_MOST:
            conversation.drafts_overtaken += 1
            conversation.reply_attempts = conversation.reply_crashes = 0
            _end(turn, TurnStatus.OVERTAKEN, now)
        elif _too_unsure(conversation, reply):
            _end(turn, TurnStatus.DROPPED, now, code="low_confidence")
            outbox.let_go_out(conversation)
            takeover.take(conversation, _speaker(conversation), now, reason="low confidence", tell=True)
        else:
            _say(conversation, turn, reply, now, overtaken=overtaken)
        if reply.told and turn.status != TurnStatus.OVERTAKEN:  # else the next turn finds the words in the chat
            chats.note_told(reply.told)
        update(conversation, (*ACTIVITY_FIELDS, *takeover.TAKEOVER_FIELDS))
    return turn.status


def hand_over(turn_id: UUID, reason: str, now: datetime) -> None:
    """The session waits for a person, and the turn, if it is still ours, ends without a reply."""
    with transaction.atomic():
        found = _locked(turn_id)
        if found is None:
            return
        turn, conversation = found
        silenced = _silenced(conversation, awaited=turn.streamed)
        _end(turn, TurnStatus.DROPPED, now, code=silenced or HUMAN_WANTED)
        if not silenced:
            outbox.let_go_out(conversation)
            takeover.take(conversation, SYSTEM, now, reason=reason, tell=True)
            conversation.save(update_fields=[*ACTIVITY_FIELDS, *takeover.TAKEOVER_FIELDS])


def _note(turn: Turn, reply: Reply) -> None:
    """All that is known of the draft, whatever becomes of it."""
    turn.draft, turn.engine, turn.model = reply.text, reply.engine, reply.model
    turn.finish_reason, turn.tokens_in, turn.tokens_out = reply.finish_reason, reply.tokens_in, reply.tokens_out
    turn.cost = prompt_records.cost(reply.model, reply.tokens_in, reply.tokens_out)
    turn.first_token_ms, turn.last_token_ms = reply.first_token_ms, reply.last_token_ms
    if reply.told:  # its engine keeps the conversation: what it was told is all that it was given
        turn.prompt = prompt_records.as_kept(turn.conversation, turn.conversation.assistant, reply.told.prompt)
    turn.confidence = reply.confidence
    turn.tool_calls = [asdict(call) for call in reply.tool_calls] or None


def _too_unsure(conversation: Conversation, reply: Reply) -> bool:
    least = conversation.assistant.human_below_confidence if conversation.assistant else None
    return least is not None and reply.confidence is not None and reply.confidence < least


def _say(conversation: Conversation, turn: Turn, reply: Reply, now: datetime, *, overtaken: bool) -> None:
    """The reply is said, and what the model did beside is done. Where it wants a person, or the person said goodbye and
    nothing since, these are the assistant's last words."""
    speaker = _speaker(conversation)
    answers = _newest_seen(conversation, turn) if overtaken else ""
    if reply.text:
        turn.chunk = _speak(conversation, reply.text, now, reply_to=answers)
    else:
        _note_silence(conversation, now)
    note_answered(conversation)
    conversation.reply_owed = overtaken
    conversation.fallback_sent = False
    conversation.replies_failed = 0
    _end(turn, TurnStatus.COMMITTED, now)
    wishes = tool_actions.do(conversation, reply.deeds, speaker)
    if wishes.human:
        outbox.let_go_out(conversation)
        takeover.take(conversation, speaker, now, reason=wishes.why or "the assistant asks for a person")
    elif (wishes.end or turn.rule == phrases.GOODBYE) and not overtaken:
        outbox.let_go_out(conversation)
        closing.end(conversation, ended_by=EndedBy.USER, actor=CONTACT, now=now, reason="said goodbye")


def _speaker(conversation: Conversation) -> Actor:
    """The assistant, for the ledger."""
    return Actor(Kind.ASSISTANT, conversation.assistant.key) if conversation.assistant else ASSISTANT


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
            _drop(turn, conversation, reason, now)
            conversation.save(update_fields=ACTIVITY_FIELDS)
            return turn.status
        _end(turn, TurnStatus.FAILED, now, code=error.code, reason=str(error))
        if error.retryable and turn.attempt < settings.REPLY_ATTEMPTS:
            conversation.reply_due_at = now + backoff(turn.attempt, error.retry_after)
        else:
            _call_staff(conversation, turn, error.code, now)
        conversation.reply_crashes = 0  # it came back
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *takeover.TAKEOVER_FIELDS])
    log.warning("turn failed: conversation=%s attempt=%s code=%s", conversation.pk, turn.attempt, error.code)
    return turn.status


_RUNNING = Select("SELECT {t} FROM conversation_turns t WHERE t.id = $1 AND t.status = 'running' FOR UPDATE", t=Turn)


def _locked(turn_id: UUID) -> tuple[Turn, Conversation] | None:
    """The turn and its conversation, locked, if the turn is still ours and neither was purged."""
    found = row("SELECT conversation_id FROM conversation_turns WHERE id = $1", turn_id)
    try:
        conversation = lock(found[0]) if found else None
    except NotFoundError:
        return None
    running = _RUNNING.first(turn_id) if conversation else None
    if conversation is None or running is None:
        return None
    [turn] = running
    turn.conversation = conversation
    return turn, conversation


def _silenced(conversation: Conversation, *, awaited: bool = False) -> str:
    """Why the assistant may not speak any more, or ''. `awaited`: somebody reads along, and no reply is owed."""
    if not conversation.is_open:
        return "ended"
    if conversation.taken_over_at is not None:
        return "taken_over"
    if opt_outs.is_in_force(conversation):  # as of now: a message may have come with the STOP, and owe a reply
        return outbox.OPTED_OUT
    return "" if conversation.reply_owed or awaited else "answered"


def _speak(conversation: Conversation, text: str, now: datetime, reply_to: str = "") -> Chunk:
    [chunk] = write_chunks(conversation, [(Role.AI, text)], now)
    outbox.queue(conversation, chunk, now, reply_to=reply_to)
    return chunk


def _newest_seen(conversation: Conversation, turn: Turn) -> str:
    """The provider's id of the newest message that the draft has seen: newer ones came since, and quoting it shows what
    is answered. '' where the provider does not know it."""
    account = conversation.channel_account
    theirs = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("-position")
    seen = theirs[conversation.inbound_sequence - turn.inbound_sequence :].first()
    return seen.message_id if account and seen and came_from(account, seen) else ""


def _note_silence(conversation: Conversation, now: datetime) -> None:
    """The other side chose to say nothing: the person hears nothing, and staff may want to."""
    conversation.needs_staff_since = conversation.needs_staff_since or now
    conversation.needs_staff_reason = "The assistant said nothing to the last message."
    record(conversation, "nothing_said", ASSISTANT)


def _call_staff(conversation: Conversation, turn: Turn, code: str, now: datetime) -> None:
    assistant = conversation.assistant
    if not conversation.fallback_sent:
        turn.chunk = _speak(conversation, assistant.fallback if assistant else FALLBACK, now)
        turn.save(update_fields=["chunk"])
        conversation.fallback_sent = True
        record(conversation, "fallback_said", ASSISTANT, cause=code)
    note_answered(conversation)
    conversation.replies_failed += 1
    conversation.needs_staff_since = conversation.needs_staff_since or now
    conversation.needs_staff_reason = f"The assistant could not reply: {code}"
    record(conversation, "needs_staff", SYSTEM, cause=code)
    most = assistant.human_after_failures if assistant else 0
    if code == CRASHED or (most and conversation.replies_failed >= most):
        outbox.let_go_out(conversation)
        takeover.take(
            conversation, SYSTEM, now, reason=f"{conversation.replies_failed} replies in a row failed: {code}"
        )


def _drop(turn: Turn, conversation: Conversation, reason: str, now: datetime) -> None:
    """The turn says nothing; to who opted out nothing is owed either. The caller saves ACTIVITY_FIELDS."""
    _end(turn, TurnStatus.DROPPED, now, code=reason)
    if reason == outbox.OPTED_OUT:
        note_answered(conversation)


def _end(turn: Turn, status: str, now: datetime, code: str = "", reason: str = "") -> None:
    turn.status, turn.ended_at = status, now
    turn.code, turn.reason = code[:40], reason[:500]
    update(turn)
