"""Chats that an engine keeps itself (Retell): what each has heard. How they end: chat_endings.py.

What must survive a crash is written before the network is asked: a new chat before it is told anything, and what it is
about to be told before it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from conversations.engines.contract import ChatProgress, EngineChatState, EngineError, ReplyRequest
from conversations.models import (
    SAID,
    Assistant,
    Chunk,
    Conversation,
    ConversationEvent,
    EngineChat,
    Role,
    Turn,
    corrected_text,
)
from conversations.queue import enqueue
from conversations.services.core import redaction
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.core.opening import NOTHING_KNOWN
from conversations.services.engine_chats import removals
from memory.context import PromptEntry
from memory.text import one_line, shorten

S = EngineChat.Status
MOST_UNHEARD = 50  # entries that a chat is told at once
CARRIED_ENTRIES = 12  # that a chat which begins in the middle is told of
CARRIED_TOKENS = 1_500
LONGEST_VARIABLE = 2_000  # characters
AGENT = Actor(ConversationEvent.Actor.ASSISTANT, "Retell")


# --- a reply ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Book:
    """Writes down for the turn what its engine must not forget. `write` runs the work where rows may be written."""

    turn_id: UUID
    agent_id: str
    write: Callable[..., Any]

    def record_opened(self, chat_id: str) -> None:
        """The session goes on in this chat; one before it is replaced."""
        self.write(opened, self.turn_id, chat_id, self.agent_id)

    def record_asking(self, chat_id: str, upto: int) -> None:
        """The chat is about to hear all up to there."""
        self.write(asking, self.turn_id, chat_id, upto)


def writing_with(request: ReplyRequest, write: Callable[..., Any]) -> ReplyRequest:
    """The request, whose book writes by `write(work, *values)`: on a thread that has a connection."""
    if request.chat is None or not isinstance(request.chat.recorder, Book):
        return request
    return replace(request, chat=replace(request.chat, recorder=replace(request.chat.recorder, write=write)))


def so_far(conversation: Conversation, assistant: Assistant, turn_id: UUID, steps: Iterable[str]) -> EngineChatState:
    """The session's chat, and what it has not heard. The book writes on the thread that asks."""
    chat = EngineChat.objects.filter(pk=conversation.chat_id).first() if conversation.chat_id else None
    if chat and chat.status != S.ONGOING:
        told, chat = chat.told, None  # the next message begins another
    else:
        told = chat.told if chat else _last_answered(conversation)
    unheard, carried = _said_after(conversation, told), _said_before(conversation, told)
    nothing_said = not unheard and not carried
    clean = redaction.rules_of(conversation.client).clean
    return EngineChatState(
        recorder=Book(turn_id, assistant.retell_agent_id, lambda work, *values: work(*values)),
        agent_id=assistant.retell_agent_id,
        chat_id=chat.chat_id if chat else "",
        turns=chat.turns if chat else 0,
        told=told,
        asked=chat.asked if chat else None,
        unheard=tuple(replace(entry, content=clean(entry.content)) for entry in unheard),
        carried=clean(_carried(conversation, carried)),
        begins=nothing_said,
        opener=assistant.opener,
        metadata={
            **conversation.variables,
            "conversation_id": str(conversation.pk),
            "client_id": str(conversation.client_id),
            "channel": conversation.channel,
        },
        variables={name: clean(value) for name, value in _variables(conversation, steps).items()},
    )


def _last_answered(conversation: Conversation) -> int:
    """The position of the newest thing that was said on our side: a chat that begins now is told what came after."""
    ours = Chunk.objects.filter(conversation=conversation, role=Role.AI).order_by("-position")
    return ours.values_list("position", flat=True).first() or 0


def _said_after(conversation: Conversation, told: int) -> list[PromptEntry]:
    """What the agent has not heard: the person's messages, and what others said in its place; its own words it has."""
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__gt=told)
    own = Turn.objects.filter(conversation=conversation, chunk__isnull=False).values("chunk")
    columns = said.exclude(role=Role.AI, pk__in=own).order_by("-position").annotate(words=corrected_text())
    newest = columns.values_list("role", "words", "author_id", "position")[:MOST_UNHEARD]
    return [PromptEntry(role, words, author is not None, position) for role, words, author, position in newest][::-1]


def _said_before(conversation: Conversation, told: int) -> list[str]:
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__lte=told).order_by("-position")
    newest = said.annotate(words=corrected_text()).values_list("role", "words")[:CARRIED_ENTRIES]
    return [f"{'agent' if role == Role.AI else 'person'}: {one_line(words, 500)}" for role, words in newest][::-1]


def _carried(conversation: Conversation, lines: list[str]) -> str:
    summary = [one_line(conversation.summary, LONGEST_VARIABLE)] if conversation.summary and lines else []
    return shorten("\n".join([*summary, *lines]), CARRIED_TOKENS)


def _variables(conversation: Conversation, steps: Iterable[str]) -> dict[str, str]:
    """All as text, for Retell takes nothing else. What the session was opened with goes before what we know."""
    memory = Chunk.objects.filter(conversation=conversation, position__lte=2, role=Role.MEMORY)
    known = memory.annotate(words=corrected_text()).values_list("words", flat=True).first() or ""
    return {
        "name": conversation.contact.name,
        "goal": one_line(conversation.goal, LONGEST_VARIABLE),
        "steps": "; ".join(one_line(step, 200) for step in steps)[:LONGEST_VARIABLE],
        "memory": "" if known == NOTHING_KNOWN else known[:LONGEST_VARIABLE],
        **conversation.variables,
    }


def opened(turn_id: UUID, chat_id: str, agent_id: str) -> None:
    """The turn's session goes on in this chat, which has heard nothing yet. Raises EngineError (`lost`); then nobody
    knows the chat, and it is deleted at Retell."""
    try:
        _opened(turn_id, chat_id, agent_id)
    except (EngineError, NotFoundError):
        removals.ask_for([chat_id])
        raise


def _opened(turn_id: UUID, chat_id: str, agent_id: str) -> None:
    with _editing_of(turn_id) as conversation:
        before = EngineChat.objects.filter(pk=conversation.chat_id).first() if conversation.chat_id else None
        EngineChat.objects.filter(conversation=conversation, status=S.ONGOING).update(status=S.REPLACED, due_at=None)
        told = before.told if before else _last_answered(conversation)
        EngineChat.objects.create(chat_id=chat_id, conversation=conversation, agent_id=agent_id[:100], told=told)
        conversation.chat_id = chat_id
        record(conversation, "chat_replaced" if before else "chat_opened", AGENT, cause=chat_id)


def asking(turn_id: UUID, chat_id: str, upto: int) -> None:
    """The chat is about to hear all up to there. Raises EngineError (`lost`)."""
    with _editing_of(turn_id):
        EngineChat.objects.filter(pk=chat_id).update(asked=upto)


@contextmanager
def _editing_of(turn_id: UUID) -> Iterator[Conversation]:
    """The turn's conversation, locked, if the turn still runs. Raises EngineError (`lost`)."""
    running = Turn.objects.filter(pk=turn_id, status=Turn.Status.RUNNING)
    conversation_id = running.values_list("conversation_id", flat=True).first()
    if conversation_id is None:
        raise _lost()
    with editing(conversation_id) as conversation:
        if not running.exists():
            raise _lost()
        yield conversation


def _lost() -> EngineError:
    return EngineError("The turn is not ours any more.", code="lost", retryable=True)


def note_told(told: ChatProgress) -> None:
    """The chat has heard this much, and what it answered was said, or is not to be said any more."""
    chat = EngineChat.objects.filter(pk=told.chat_id)
    chat.update(told=told.upto, turns=told.turns, asked=None)
    if told.ended:
        chat.filter(status=S.ONGOING).update(status=S.ENDED, ended_by_agent=True, ended_at=timezone.now())


# --- its end ---------------------------------------------------------------------------------------------------------
def end_soon(conversation: Conversation, now: datetime) -> None:
    """The session, whose row is locked, is over: its chat is ended at Retell as well, in the background."""
    if not conversation.chat_id:
        return
    if EngineChat.objects.filter(conversation=conversation, status=S.ONGOING).update(due_at=now, attempts=0):
        enqueue("settle_chats")


def forget_analysis(conversation: Conversation) -> None:
    """Something was redacted: what Retell made of the session may say it."""
    EngineChat.objects.filter(conversation=conversation).update(analysis=None)
