"""Corrections, which are stored beside the original text, and redactions, which remove the text for good."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch
from django.utils.translation import gettext

from channels_out.kinds import ActivityKind
from conversations.models import (
    Activity,
    Chunk,
    Client,
    Contact,
    Conversation,
    Correction,
    Message,
    Proposal,
    Role,
    ToolCall,
    Turn,
)
from conversations.services.core import idempotency, redaction
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import client_of, editing, lock_contact_of
from conversations.services.engine_chats import chats
from conversations.services.history import recall
from conversations.services.media import removals as media_removals
from conversations.services.replies.prompt_records import REDACTED, redact_prompt, redact_text
from conversations.services.retention import holds
from conversations.services.staff_actions.edit_details import DETAILS
from conversations.services.transitions.changed_text import note_changed_text
from memory.notes import excerpt

NO_POSITION = 2**31  # after every message


def correct(
    conversation_id: UUID | str,
    position: int,
    text: str,
    *,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
) -> Correction | None:
    """Let the chunk read as `text` for staff, prompts and memory, and return the correction. The original stays stored.

    A correction of the memory chunk also goes into what later conversations of the contact begin with.

    Returns None if the chunk read as `text` already. Raises NotFoundError, or ConflictError (`redacted`).
    """
    with _editing(conversation_id, position, client) as (conversation, chunk):
        done = list(Correction.objects.filter(chunk=chunk))
        text = text if chunk.role == Role.SYSTEM else redaction.rules_of(conversation.client).clean(text)
        if any(correction.kind == Correction.Kind.REDACTION for correction in done):
            raise ConflictError(gettext("This message is redacted. It cannot be corrected."), code="redacted")
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
    """Remove the chunk's text for good and return the redaction.

    The text is removed from the chunk, its corrections and messages, from the conversation's prompts, drafts, steps,
    goal, topic and summary, and from what later conversations recall of it; the chunk's files are deleted. Messages
    that are not sent yet are cancelled.

    Redacting a redacted chunk changes nothing. Raises NotFoundError, or ConflictError (`on_hold`) where a legal hold
    keeps the conversation as it is.
    """
    with _editing(conversation_id, position, client) as (conversation, chunk):
        holds.refuse_if_held(conversation.client_id, conversation.pk)
        done = list(Correction.objects.filter(chunk=chunk))
        redacted = next((each for each in done if each.kind == Correction.Kind.REDACTION), None)
        if redacted:
            return redacted
        proposed = Proposal.objects.filter(conversation=conversation, chunk_id=chunk.pk).values_list("text", flat=True)
        texts = [text for text in (chunk.content, *(each.text for each in done), *proposed) if text.strip()]
        chunk.content, chunk.metadata = REDACTED, {}
        chunk.save(update_fields=["content", "metadata"])
        Correction.objects.filter(chunk=chunk).update(text=REDACTED)
        Activity.objects.filter(chunk=chunk, kind=ActivityKind.EDIT).update(text=REDACTED, metadata={})
        media_removals.delete_of_chunk(conversation.client_id, chunk.pk)
        redaction = _keep(chunk, Correction.Kind.REDACTION, "", reason, actor, now)
        _redact_messages(chunk)
        chats.delete_analysis(conversation)
        _redact_turns(conversation, [*texts, *map(excerpt, texts)], position, now)
        _redact_proposals(conversation, chunk, texts)
        for name in DETAILS:
            setattr(conversation, name, redact_text(getattr(conversation, name), texts))
        _redact_model_notes(conversation, texts)
        _redact_recalled(conversation, chunk, texts)
        idempotency.change_text(conversation, lambda text: redact_text(text, texts))
        for step in conversation.steps.all():
            step.description = redact_text(step.description, texts)
            step.save(update_fields=["description"])
        _note(conversation, "chunk_redacted", actor, now, position, cause=reason)
    return redaction


def _redact_proposals(conversation: Conversation, chunk: Chunk, texts: list[str]) -> None:
    """Redact what assistants proposed in the conversation, and the whole of the proposal that became the chunk."""
    for each in Proposal.objects.filter(conversation=conversation):
        text = REDACTED if each.chunk_id == chunk.pk else redact_text(each.text, texts)
        if text != each.text:
            metadata = {} if each.chunk_id == chunk.pk else _redact_values(each.metadata, texts)
            each.text, each.metadata = text, metadata
            each.save(update_fields=["text", "metadata"])


def _redact_model_notes(conversation: Conversation, texts: list[str]) -> None:
    """Redact the current goal, and the reasons for which the assistant asked for a person."""
    goal = conversation.current_goal
    if isinstance(goal, dict) and isinstance(goal.get("description"), str):
        conversation.current_goal = {**goal, "description": redact_text(goal["description"], texts)}
    conversation.needs_staff_reason = redact_text(conversation.needs_staff_reason, texts)[:200]
    for event in conversation.events.filter(actor=Kind.ASSISTANT).exclude(cause=""):
        event.cause = redact_text(event.cause, texts)[:200]
        event.save(update_fields=["cause"])


def _redact_recalled(conversation: Conversation, chunk: Chunk, texts: list[str]) -> None:
    """Redact the memory chunks of the contact's other conversations, and the corrections of these."""
    if chunk.role == Role.MEMORY:
        recall.delete_correction(conversation)
    theirs = Contact.objects.filter(client=conversation.client_id, pk=conversation.contact_id)
    contact = theirs.get()
    if (known := redact_text(contact.known, texts)) != contact.known:
        theirs.update(known=known)
    memories = Chunk.objects.filter(
        client=conversation.client_id, conversation__contact=contact, role=Role.MEMORY
    ).exclude(pk=chunk.pk)
    for each in memories.prefetch_related(
        Prefetch("corrections", Correction.objects.filter(client=conversation.client_id))
    ):
        for correction in each.corrections.all():
            correction.text = redact_text(correction.text, texts)
            correction.save(update_fields=["text"])
        if (content := redact_text(each.content, texts)) != each.content:
            each.content = content
            each.save(update_fields=["content"])
            _redact_in_turns(each.client_id, each.conversation_id, texts)


def _redact_in_turns(client_id: UUID, conversation_id: UUID, texts: Iterable[str], position: int = NO_POSITION) -> None:
    """Redact the prompts, drafts and tool calls that the conversation's turns keep."""
    texts = list(texts)
    theirs = Turn.objects.filter(client=client_id, conversation=conversation_id)
    kept = theirs.only("prompt", "draft", "tool_calls")
    for turn in kept.iterator(chunk_size=100):
        draft, prompt = redact_text(turn.draft, texts), redact_prompt(turn.prompt, texts, position)
        calls = _redact_calls(turn.tool_calls, texts)
        if (draft, prompt, calls) != (turn.draft, turn.prompt, turn.tool_calls):
            theirs.filter(pk=turn.pk).update(draft=draft, prompt=prompt, tool_calls=calls)
    for call in ToolCall.objects.select_for_update().filter(client=client_id, conversation=conversation_id):
        _redact_call(call, texts)


def _redact_call(call: ToolCall, texts: list[str]) -> None:
    """Redact the locked call, whose answer may be written by a reply at the same time."""
    redacted = {
        "arguments": _redact_values(call.arguments, texts),
        "answer": redact_text(call.answer, texts),
        "reason": redact_text(call.reason, texts)[:200],
    }
    changed = [name for name, value in redacted.items() if value != getattr(call, name)]
    for name in changed:
        setattr(call, name, redacted[name])
    if changed:
        call.save(update_fields=changed)


@contextmanager
def _editing(conversation_id: UUID | str, position: int, client: Client | None) -> Iterator[tuple[Conversation, Chunk]]:
    """Lock the contact and then the conversation, yield the conversation and its chunk, and save what changed."""
    with transaction.atomic():
        client_id = client.pk if client else client_of(conversation_id)
        if client_id is None:
            raise NotFoundError(gettext("There is no such conversation."))
        lock_contact_of(conversation_id, client_id)
        with editing(conversation_id, client_id) as conversation:
            chunk = conversation.chunks.filter(position=position).first()
            if chunk is None:
                raise NotFoundError(gettext("There is no such message in this conversation."))
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
    """Record the change in the ledger without the text, and have memory and summary made again."""
    note_changed_text(conversation, position, now)
    record(conversation, kind, actor, cause=cause or f"message {position}", position=position)


def _redact_messages(chunk: Chunk) -> None:
    unsent = Message.objects.filter(chunk=chunk, status__in=[Message.Status.QUEUED, Message.Status.CLAIMED])
    unsent.update(status=Message.Status.CANCELLED, code="redacted", lease_until=None, lease_token=None)
    Message.objects.filter(chunk=chunk).update(text=REDACTED)


def _redact_turns(conversation: Conversation, texts: Iterable[str], position: int, now: datetime) -> None:
    """Redact what the turns keep, and abandon a running turn, which may be about to store a prompt read before.

    The reply stays owed, and the next turn reads the transcript as it is now.
    """
    Turn.objects.filter(conversation=conversation, status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code="redacted"
    )
    _redact_in_turns(conversation.client_id, conversation.pk, texts, position)


def _redact_calls(calls: Any, texts: Iterable[str]) -> Any:
    """Return the tool calls with arguments and answers redacted, however the model escaped the JSON of the first."""
    return calls and [
        {**call, "arguments": _redact_json(call["arguments"], texts), "answer": redact_text(call["answer"], texts)}
        for call in calls
    ]


def _redact_values(value: Any, texts: list[str]) -> Any:
    """Return the JSON value with its texts redacted, and its numbers that are one of the texts."""
    if isinstance(value, dict):
        return {name: _redact_values(each, texts) for name, each in value.items()}
    if isinstance(value, list):
        return [_redact_values(each, texts) for each in value]
    if isinstance(value, str):
        return redact_text(value, texts)
    return REDACTED if str(value) in texts else value


def _redact_json(arguments: str, texts: Iterable[str]) -> str:
    with suppress(ValueError, RecursionError):
        arguments = json.dumps(json.loads(arguments), ensure_ascii=False)
    removed = [each for text in texts for each in (text, json.dumps(text, ensure_ascii=False)[1:-1])]
    return redact_text(arguments, removed)
