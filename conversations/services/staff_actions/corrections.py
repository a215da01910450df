"""Corrections, kept beside what was said, and redactions, which take it away for good."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import Chunk, Client, Contact, Conversation, Correction, Message, Role, Turn
from conversations.services.core import idempotency, redaction
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import editing, lock_contact_of
from conversations.services.engine_chats import chats
from conversations.services.history import recall
from conversations.services.history.remember import summary_is_by_staff
from conversations.services.replies.prompt_records import REDACTED, prompt_without, without
from conversations.services.replies.summaries import start_over
from conversations.services.retention import holds
from conversations.services.staff_actions.edit_details import DETAILS
from conversations.services.transitions.details import remember_anew

NO_POSITION = 2**31  # behind every entry


def correct(
    conversation_id: UUID | str,
    position: int,
    text: str,
    *,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
) -> Correction | None:
    """The chunk reads like `text` from now on, for staff, prompts and memory; what was said stays beside it. Where it
    is what the session began with, later sessions of the contact begin with `text`.

    Returns None where it read like that already. Raises NotFoundError, or ConflictError (`redacted`).
    """
    with _editing(conversation_id, position, client) as (conversation, chunk):
        done = list(Correction.objects.filter(chunk=chunk))
        text = text if chunk.role == Role.SYSTEM else redaction.rules_of(conversation.client).clean(text)
        if any(correction.kind == Correction.Kind.REDACTION for correction in done):
            raise ConflictError("This was redacted: there is nothing left to correct.", code="redacted")
        if text == (done[-1].text if done else chunk.content):
            return None
        correction = _keep(chunk, Correction.Kind.CORRECTION, text, "", actor, now)
        if chunk.role == Role.MEMORY:
            recall.store_correction(conversation, text, actor, now)
        _note(conversation, "chunk_corrected", actor, now, position)
    return correction


def redact(
    conversation_id: UUID | str,
    position: int,
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    client: Client | None = None,
) -> Correction:
    """The chunk's text is gone: from the chunk, its corrections and messages, and where it occurs in the session's
    prompts, drafts, steps, goal, topic and summary, and in what later sessions recall of it. What of it was not sent
    yet is cancelled.

    Redacting what is redacted changes nothing. Raises NotFoundError, or ConflictError (`on_hold`) where the session
    must be kept as it is.
    """
    with _editing(conversation_id, position, client) as (conversation, chunk):
        holds.refuse_if_held(conversation.pk)
        done = list(Correction.objects.filter(chunk=chunk))
        redacted = next((each for each in done if each.kind == Correction.Kind.REDACTION), None)
        if redacted:
            return redacted
        texts = [text for text in (chunk.content, *(each.text for each in done)) if text.strip()]
        chunk.content, chunk.metadata = REDACTED, {}
        chunk.save(update_fields=["content", "metadata"])
        Correction.objects.filter(chunk=chunk).update(text=REDACTED)
        redaction = _keep(chunk, Correction.Kind.REDACTION, "", reason, actor, now)
        _redact_messages(chunk)
        chats.delete_analysis(conversation)
        _redact_turns(conversation, texts, position, now)
        for name in DETAILS:
            setattr(conversation, name, without(getattr(conversation, name), texts))
        _redact_what_the_model_noted(conversation, texts)
        _redact_what_is_recalled(conversation, chunk, texts)
        idempotency.change_text(conversation, lambda text: without(text, texts))
        for step in conversation.steps.all():
            step.description = without(step.description, texts)
            step.save(update_fields=["description"])
        _note(conversation, "chunk_redacted", actor, now, position, cause=reason)
    return redaction


def _redact_what_the_model_noted(conversation: Conversation, texts: list[str]) -> None:
    """The current goal, and why it asked for a person."""
    goal = conversation.current_goal
    if isinstance(goal, dict) and isinstance(goal.get("description"), str):
        conversation.current_goal = {**goal, "description": without(goal["description"], texts)}
    conversation.needs_staff_reason = without(conversation.needs_staff_reason, texts)[:200]
    for event in conversation.events.filter(actor=Kind.ASSISTANT).exclude(cause=""):
        event.cause = without(event.cause, texts)[:200]
        event.save(update_fields=["cause"])


def _redact_what_is_recalled(conversation: Conversation, chunk: Chunk, texts: list[str]) -> None:
    """What other sessions of the contact were told of it, and what staff made of that."""
    if chunk.role == Role.MEMORY:
        recall.delete_correction(conversation)
    contact = Contact.objects.get(pk=conversation.contact_id)
    if (known := without(contact.known, texts)) != contact.known:
        Contact.objects.filter(pk=contact.pk).update(known=known)
    told = Chunk.objects.filter(conversation__contact=contact, role=Role.MEMORY).exclude(pk=chunk.pk)
    for each in told.prefetch_related("corrections"):
        for correction in each.corrections.all():
            correction.text = without(correction.text, texts)
            correction.save(update_fields=["text"])
        if (content := without(each.content, texts)) != each.content:
            each.content = content
            each.save(update_fields=["content"])
            _forget_in_turns(each.conversation_id, texts)


def _forget_in_turns(conversation_id: UUID, texts: Iterable[str], position: int = NO_POSITION) -> None:
    """What the session's turns keep of prompts, drafts and tool calls says none of it."""
    texts = list(texts)
    kept = Turn.objects.filter(conversation=conversation_id).only("prompt", "draft", "tool_calls")
    for turn in kept.iterator(chunk_size=100):
        draft, prompt = without(turn.draft, texts), prompt_without(turn.prompt, texts, position)
        calls = _calls_without(turn.tool_calls, texts)
        if (draft, prompt, calls) != (turn.draft, turn.prompt, turn.tool_calls):
            Turn.objects.filter(pk=turn.pk).update(draft=draft, prompt=prompt, tool_calls=calls)


@contextmanager
def _editing(conversation_id: UUID | str, position: int, client: Client | None) -> Iterator[tuple[Conversation, Chunk]]:
    """The conversation, locked after its contact and saved at the end, and its chunk at the position."""
    with transaction.atomic():
        lock_contact_of(conversation_id)
        with editing(conversation_id, client) as conversation:
            chunk = conversation.chunks.filter(position=position).first()
            if chunk is None:
                raise NotFoundError("There is no such message in this conversation.")
            yield conversation, chunk


def _keep(chunk: Chunk, kind: str, text: str, reason: str, actor: Actor, now: datetime) -> Correction:
    return Correction.objects.create(
        chunk=chunk,
        kind=kind,
        text=text,
        reason=reason,
        author_id=actor.user_id,
        author_name=actor.name,
        created_at=now,
    )


def _note(conversation: Conversation, kind: str, actor: Actor, now: datetime, position: int, cause: str = "") -> None:
    """In the ledger, without a word of the text; and what is remembered of the session is out of date.

    So is a summary that was made of it: it may say the same in other words. One that staff wrote stands.
    """
    if remember_anew(conversation, now) and not summary_is_by_staff(conversation):
        conversation.summary = ""
    start_over(conversation, position)
    record(conversation, kind, actor, cause=cause or f"entry {position}", position=position)


def _redact_messages(chunk: Chunk) -> None:
    unsent = Message.objects.filter(chunk=chunk, status__in=[Message.Status.QUEUED, Message.Status.CLAIMED])
    unsent.update(status=Message.Status.CANCELLED, code="redacted", lease_until=None, lease_token=None)
    Message.objects.filter(chunk=chunk).update(text=REDACTED)


def _redact_turns(conversation: Conversation, texts: Iterable[str], position: int, now: datetime) -> None:
    """A turn that runs is given up: it may be about to write down a prompt that it read before. The reply stays owed,
    and the next turn reads the transcript as it is now."""
    Turn.objects.filter(conversation=conversation, status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code="redacted"
    )
    _forget_in_turns(conversation.pk, texts, position)


def _calls_without(calls: Any, texts: Iterable[str]) -> Any:
    """Tool calls whose arguments do not say what is gone, however the model wrote their JSON."""
    return calls and [{**call, "arguments": _json_without(call["arguments"], texts)} for call in calls]


def _json_without(arguments: str, texts: Iterable[str]) -> str:
    with suppress(ValueError, RecursionError):
        arguments = json.dumps(json.loads(arguments), ensure_ascii=False)
    gone = [each for text in texts for each in (text, json.dumps(text, ensure_ascii=False)[1:-1])]
    return without(arguments, gone)
