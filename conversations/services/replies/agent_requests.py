"""The request to a client's own agent: what was said and is known of the conversation, as plain values for JSON.

docs/own-agent.md lists the fields. All texts are cleaned by the client's rules of redaction.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from channels_out.kinds import ActivityKind
from channels_out.phones import REACHED_BY_PHONE
from conversations.engines.contract import AgentCall
from conversations.models import (
    SAID,
    Activity,
    Assistant,
    Attachment,
    Chunk,
    Conversation,
    Role,
    Step,
    Turn,
    corrected_text,
)
from conversations.services.core import redaction
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.opening import NOTHING_KNOWN
from conversations.services.media import shown
from conversations.services.replies.prompt_context import SUPERSEDED
from memory.context import Prompt, PromptPart
from memory.text import estimate_tokens

MOST_MESSAGES = 100  # that are not answered yet
MOST_CHARACTERS = 200_000  # of the messages, and of the history; the newest of each is whole in any case
GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A request to an agent, what the turn keeps of it, and the hash of its token."""

    call: AgentCall
    prompt: Prompt
    token_hash: str


def prepare_call(turn: Turn, steps: Sequence[Step], now: datetime) -> PreparedCall | None:
    """Return the request for the turn's reply; None if the assistant's engine is another one.

    Read the turn with its conversation, assistant, contact and client. Each request has a token of its own, of which
    only the hash is kept.
    """
    conversation = turn.conversation
    assistant = conversation.assistant
    if assistant is None or assistant.engine != Assistant.EngineName.AGENT:
        return None
    token = secrets.token_urlsafe(32)
    deadline = now + timedelta(seconds=assistant.agent_deadline_seconds)
    messages, history = _said(conversation, assistant)
    files = _files_of([*messages, *history])
    clean = redaction.rules_of(conversation.client).clean
    known = _known(conversation, steps, clean)
    body = {
        "type": "reply.requested",
        "conversation_id": str(conversation.pk),
        "client_id": str(conversation.client_id),
        "assistant": assistant.key,
        "channel": conversation.channel,
        "contact": _contact(conversation),
        **known,
        "messages": [_message(chunk, clean, files) for chunk in messages],
        "history": [_message(chunk, clean, files) for chunk in history],
        "idempotency_key": idempotency_key(conversation),
        "turn_id": str(turn.pk),
        "turn_token": token,
        "deadline": deadline.isoformat(),
    }
    call = AgentCall(
        url=assistant.agent_url,
        secrets=tuple(
            assistant.agent_secrets[name] for name in ("current", "before") if name in assistant.agent_secrets
        ),
        seconds=assistant.agent_timeout_seconds,
        deadline=deadline,
        request_id=f"turn_{turn.pk.hex}_{turn.attempt}",
        body=body,
    )
    return PreparedCall(
        call, _as_prompt(known, sorted([*history, *messages], key=lambda chunk: chunk.position), clean), hash_of(token)
    )


def hash_of(token: str) -> str:
    """Return the hash by which a turn knows its token."""
    return hashlib.sha256(token.encode()).hexdigest()


def idempotency_key(conversation: Conversation) -> str:
    """Return the key of the next reply: the same until something more is said in the conversation."""
    return str(uuid5(NAMESPACE_URL, f"{conversation.pk}:{conversation.last_position}"))


def _contact(conversation: Conversation) -> dict[str, Any]:
    contact = conversation.contact
    known = {"id": str(contact.pk), "user_id": contact.user_id, "name": contact.shown_name}
    if conversation.channel in REACHED_BY_PHONE and contact.phone:
        known["phone"] = contact.phone
    language = contact.language or conversation.metadata.get("language")
    return {**known, "locale": language} if isinstance(language, str) else known


def _known(conversation: Conversation, steps: Sequence[Step], clean: Callable[[str], str]) -> dict[str, Any]:
    """Return what is known of the conversation beside what was said."""
    opening = Chunk.objects.filter(conversation=conversation, position__lte=2, role=Role.MEMORY)
    memory = (
        opening.annotate(words=corrected_text(conversation.client_id)).values_list("words", flat=True).first() or ""
    )
    goal = conversation.current_goal
    wanted = goal.get("description", "") if isinstance(goal, dict) else goal
    return {
        "goal": clean(conversation.goal),
        "topic": clean(conversation.topic),
        "current_goal": clean(wanted) if isinstance(wanted, str) else "",
        "steps": [{"id": step.pk, "description": clean(step.description)} for step in steps],
        "summary": clean(conversation.summary),
        "memory": "" if memory == NOTHING_KNOWN else clean(memory),
        "variables": {name: clean(value) for name, value in conversation.variables.items()},
    }


def _said(conversation: Conversation, assistant: Assistant) -> tuple[list[Chunk], list[Chunk]]:
    """Return what the agent has not answered yet, and the newest of what was said beside that; oldest first.

    A message that came while the last answer was written, and was not seen by it, is not answered by it.
    """
    own = Turn.objects.filter(conversation=conversation, status=Turn.Status.COMMITTED, chunk__isnull=False)
    last = own.order_by("-started_at").values_list("inbound_sequence", flat=True).first()
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__gt=conversation.history_from or 0)
    newest = (
        said.exclude(metadata__has_key=SUPERSEDED)
        .annotate(words=corrected_text(conversation.client_id))
        .order_by("-position")
    )
    unanswered = newest.exclude(pk__in=own.values("chunk"))
    if last is not None:
        seen = newest.filter(role__in=SPOKEN_BY_PEOPLE)[max(conversation.inbound_sequence - last, 0) :]
        unanswered = unanswered.filter(position__gt=seen.values_list("position", flat=True).first() or 0)
    messages = list(unanswered[:MOST_MESSAGES])
    history = list(newest.exclude(pk__in=[chunk.pk for chunk in messages])[: assistant.history_length])
    fitting = list(_fitting(messages)), list(_fitting(history))
    return fitting[0][::-1], fitting[1][::-1]


def _fitting(newest: Sequence[Any]) -> Iterator[Any]:
    """Yield the newest chunks, as many as fit."""
    room = MOST_CHARACTERS
    for chunk in newest:
        if len(chunk.words) > room and room < MOST_CHARACTERS:
            return
        room -= len(chunk.words)
        yield chunk


def _files_of(chunks: Sequence[Chunk]) -> dict[int, list[Attachment]]:
    """Return the files of the chunks, by chunk; none of a message that the person deleted."""
    if not chunks:
        return {}
    client_id, ids = chunks[0].client_id, [chunk.pk for chunk in chunks]
    found = shown.of_chunks(client_id, ids)
    if found:
        gone = Activity.objects.filter(client=client_id, chunk__in=list(found), kind=ActivityKind.DELETION)
        for chunk_id in gone.values_list("chunk_id", flat=True):
            found.pop(chunk_id or 0, None)
    return found


def _file(row: Attachment) -> dict[str, Any]:
    file = shown.with_links(row)
    return {
        "type": row.kind,
        "state": row.state,
        "content_type": row.content_type,
        "size": row.size,
        "name": file.name,
        "link": file.link,
    }


def _message(chunk: Any, clean: Callable[[str], str], files: Mapping[int, Sequence[Attachment]]) -> dict[str, Any]:
    media, attached = chunk.metadata.get("media"), files.get(chunk.pk, ())
    return {
        "position": chunk.position,
        "role": chunk.role,
        "content": clean(chunk.words),
        "by_staff": chunk.by_staff,
        "created_at": chunk.created_at.isoformat(),
        **({"media": media} if isinstance(media, list) and media else {}),
        **({"attachments": [_file(row) for row in attached]} if attached else {}),
    }


def _as_prompt(known: dict[str, Any], said: Sequence[Any], clean: Callable[[str], str]) -> Prompt:
    """Return what the agent was given, as a turn keeps it: in parts that staff read, and that can be redacted."""
    lines = {
        **known,
        "steps": "\n".join(f"- {step['description']} [step {step['id']}]" for step in known["steps"]),
        "variables": "\n".join(f"{name}: {value}" for name, value in known["variables"].items()),
    }
    parts = [PromptPart(name, estimate_tokens(text)) for name, text in lines.items() if text]
    texts = [text for text in lines.values() if text]
    for chunk in said:
        texts.append(clean(chunk.words))
        parts.append(PromptPart("entry", estimate_tokens(texts[-1]), position=chunk.position))
    placed, start = [], 0
    for part, text in zip(parts, texts, strict=True):
        placed.append(replace(part, message=0, start=start, end=start + len(text)))
        start += len(text) + len(GAP)
    return Prompt(({"role": "user", "content": GAP.join(texts)},), tuple(placed))
