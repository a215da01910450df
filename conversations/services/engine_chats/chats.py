"""Engine chats (Retell): record which chunks of a conversation each chat has received. They end in
replies/chat_endings.py.

Whatever must survive a crash is stored before the network call: a new chat before it receives anything, and how far it
is about to receive the conversation before it does.
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
    COLLEAGUE,
    SAID,
    Assistant,
    Chunk,
    Conversation,
    ConversationEvent,
    EngineChat,
    Role,
    Turn,
    corrected_text,
    is_by_staff,
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
MOST_UNHEARD = 50  # entries that a chat receives at once
CARRIED_ENTRIES = 12  # earlier entries that a chat receives which begins in the middle of a conversation
CARRIED_TOKENS = 1_500
LONGEST_VARIABLE = 2_000  # characters
AGENT = Actor(ConversationEvent.Actor.ASSISTANT, "Retell")


# --- a reply ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TurnRecorder:
    """Records the progress of an engine chat for a turn.

    `write(work, *values)` runs the work on a thread that may use the database.
    """

    client_id: UUID
    turn_id: UUID
    agent_id: str
    write: Callable[..., Any]

    def record_opened(self, chat_id: str) -> None:
        """Record that the conversation continues in this chat; an earlier one is replaced."""
        self.write(record_opened, self.client_id, self.turn_id, chat_id, self.agent_id)

    def record_asking(self, chat_id: str, upto: int) -> None:
        """Record that the chat is about to receive all chunks up to this position."""
        self.write(record_asking, self.client_id, self.turn_id, chat_id, upto)


def with_writer(request: ReplyRequest, write: Callable[..., Any]) -> ReplyRequest:
    """Return the request with a recorder that writes by `write(work, *values)`, on a thread with a connection."""
    if request.chat is None or not isinstance(request.chat.recorder, TurnRecorder):
        return request
    return replace(request, chat=replace(request.chat, recorder=replace(request.chat.recorder, write=write)))


def chat_state(
    conversation: Conversation, assistant: Assistant, turn_id: UUID, steps: Iterable[str]
) -> EngineChatState:
    """Return the conversation's chat and the chunks it has not received. Its recorder writes on the calling thread."""
    theirs = EngineChat.objects.filter(client=conversation.client_id)
    chat = theirs.filter(pk=conversation.chat_id).first() if conversation.chat_id else None
    if chat and chat.status != S.ONGOING:
        told, chat = chat.told, None  # the next message opens another chat
    else:
        told = chat.told if chat else _last_answered(conversation)
    unheard, carried = _said_after(conversation, told), _said_before(conversation, told)
    nothing_said = not unheard and not carried
    clean = redaction.rules_of(conversation.client).clean
    return EngineChatState(
        recorder=TurnRecorder(
            conversation.client_id, turn_id, assistant.retell_agent_id, lambda work, *values: work(*values)
        ),
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
    """Return the position of our newest message: a chat that begins now receives what came after it."""
    ours = Chunk.objects.filter(conversation=conversation, role=Role.AI).order_by("-position")
    return ours.values_list("position", flat=True).first() or 0


def _said_after(conversation: Conversation, told: int) -> list[PromptEntry]:
    """Return the messages that the agent has not received: the person's, and those of staff, but not its own."""
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__gt=told)
    own = Turn.objects.filter(conversation=conversation, chunk__isnull=False).values("chunk")
    columns = (
        said.exclude(role=Role.AI, pk__in=own)
        .order_by("-position")
        .annotate(words=corrected_text(conversation.client_id))
    )
    newest = columns.values_list("role", "words", "author_id", f"metadata__{COLLEAGUE}", "position")[:MOST_UNHEARD]
    return [
        PromptEntry(role, words, is_by_staff(role, author, elsewhere), position)
        for role, words, author, elsewhere, position in newest
    ][::-1]


def _said_before(conversation: Conversation, told: int) -> list[str]:
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__lte=told).order_by("-position")
    newest = said.annotate(words=corrected_text(conversation.client_id)).values_list("role", "words")[:CARRIED_ENTRIES]
    return [f"{'agent' if role == Role.AI else 'person'}: {one_line(words, 500)}" for role, words in newest][::-1]


def _carried(conversation: Conversation, lines: list[str]) -> str:
    summary = [one_line(conversation.summary, LONGEST_VARIABLE)] if conversation.summary and lines else []
    return shorten("\n".join([*summary, *lines]), CARRIED_TOKENS)


def _variables(conversation: Conversation, steps: Iterable[str]) -> dict[str, str]:
    """Return the chat's variables, all as text, because Retell takes nothing else.

    The values that the conversation was opened with overrule ours.
    """
    memory = Chunk.objects.filter(conversation=conversation, position__lte=2, role=Role.MEMORY)
    known = memory.annotate(words=corrected_text(conversation.client_id)).values_list("words", flat=True).first() or ""
    return {
        "name": conversation.contact.shown_name,
        "goal": one_line(conversation.goal, LONGEST_VARIABLE),
        "steps": "; ".join(one_line(step, 200) for step in steps)[:LONGEST_VARIABLE],
        "memory": "" if known == NOTHING_KNOWN else known[:LONGEST_VARIABLE],
        **conversation.variables,
    }


def record_opened(client_id: UUID, turn_id: UUID, chat_id: str, agent_id: str) -> None:
    """Record that the turn's conversation continues in this chat, which has received nothing yet.

    Raises EngineError (`lost`); then the chat is recorded nowhere else, so its deletion at Retell is requested.
    """
    try:
        _store_opened(client_id, turn_id, chat_id, agent_id)
    except (EngineError, NotFoundError):
        removals.request_removal(client_id, [chat_id])
        raise


def _store_opened(client_id: UUID, turn_id: UUID, chat_id: str, agent_id: str) -> None:
    with _editing_of(client_id, turn_id) as conversation:
        theirs = EngineChat.objects.filter(client=client_id)
        before = theirs.filter(pk=conversation.chat_id).first() if conversation.chat_id else None
        EngineChat.objects.filter(conversation=conversation, status=S.ONGOING).update(status=S.REPLACED, due_at=None)
        told = before.told if before else _last_answered(conversation)
        EngineChat.objects.create(chat_id=chat_id, conversation=conversation, agent_id=agent_id[:100], told=told)
        conversation.chat_id = chat_id
        record(conversation, "chat_replaced" if before else "chat_opened", AGENT, cause=chat_id)


def record_asking(client_id: UUID, turn_id: UUID, chat_id: str, upto: int) -> None:
    """Record that the chat is about to receive all chunks up to this position. Raises EngineError (`lost`)."""
    with _editing_of(client_id, turn_id):
        EngineChat.objects.filter(client=client_id, pk=chat_id).update(asked=upto)


@contextmanager
def _editing_of(client_id: UUID, turn_id: UUID) -> Iterator[Conversation]:
    """Lock the conversation of the turn while it runs. Raises EngineError (`lost`) if it does not."""
    running = Turn.objects.filter(client=client_id, pk=turn_id, status=Turn.Status.RUNNING)
    conversation_id = running.values_list("conversation_id", flat=True).first()
    if conversation_id is None:
        raise _lost()
    with editing(conversation_id, client_id) as conversation:
        if not running.exists():
            raise _lost()
        yield conversation


def _lost() -> EngineError:
    return EngineError("This turn is no longer running.", code="lost", retryable=True)


def record_told(client_id: UUID, told: ChatProgress) -> None:
    """Record how much the chat has received. Its answer was committed, or will not be any more."""
    chat = EngineChat.objects.filter(client=client_id, pk=told.chat_id)
    chat.update(told=told.upto, turns=told.turns, asked=None)
    if told.ended:
        chat.filter(status=S.ONGOING).update(status=S.ENDED, ended_by_agent=True, ended_at=timezone.now())


# --- the end of a chat -----------------------------------------------------------------------------------------------
def schedule_end(conversation: Conversation, now: datetime) -> None:
    """Schedule the end of the ended conversation's chat at Retell, in the background. Call it with the row locked."""
    if not conversation.chat_id:
        return
    if EngineChat.objects.filter(conversation=conversation, status=S.ONGOING).update(due_at=now, attempts=0):
        enqueue("settle_chats")


def delete_analysis(conversation: Conversation) -> None:
    """Delete Retell's analysis of the conversation, because it may quote a text that was redacted."""
    EngineChat.objects.filter(conversation=conversation).update(analysis=None)
