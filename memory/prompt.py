"""The values of a prompt: what it is built from (memory/context.py does that), its messages and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """One chunk of the conversation, as the prompt shows it.

    role        user, voice or ai
    by_staff    a member of staff wrote this ai chunk
    position    the chunk's position in its conversation; it appears in `Prompt.parts` only
    author      that member's name; '' if it is not known
    delivery    why this ai chunk was not delivered as it stands, in the words of memory/marks.py; '' if it was, or
                waits to be sent
    about       what the message quotes or is about, as phrases for notes
    after       what the person did with it or after it, as phrases for notes
    """

    role: str
    content: str
    by_staff: bool = False
    position: int = 0
    author: str = ""
    delivery: str = ""
    about: Sequence[str] = ()
    after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ConversationView:
    """Everything that a prompt can say of one conversation.

    entries     the newest entries, oldest first
    budget      the size of the prompt, in tokens
    ratio       the model's tokens per estimated token, as learned of it
    window      the model's context window in its own tokens; 0 if it is not known
    reserve     tokens of the window that are kept for the answer
    now         date and time in the client's time zone; None if the prompt should not say it
    contact     facts about the person, as (label, value): their name, their language, whether a phone is known
    variables   values that the conversation was opened with, as (name, value): a due date, an amount
    older       the number of older entries that are neither among `entries` nor in the summary
    own_steps   pending steps that the assistant itself set: it may have taken their words from the person's
    notes       the assistant's own notes, as (label, value): the topic, what the person wants
    begins      True if nothing was said yet, so that the assistant speaks first
    """

    system_prompt: str
    goal: str = ""
    summary: str = ""
    memory: str = ""
    pending_steps: Sequence[str] = ()
    own_steps: Sequence[str] = ()
    notes: Sequence[tuple[str, str]] = ()
    entries: Sequence[PromptEntry] = ()
    budget: int = 8_000
    contact: Sequence[tuple[str, str]] = ()
    variables: Sequence[tuple[str, str]] = ()
    older: int = 0
    begins: bool = False
    ratio: float = 1.0
    window: int = 0
    reserve: int = 0
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One part of the prompt and its size.

    name        system, goal, steps, opening, contact, variables, memory, notes, own_steps, summary, now, entry, or
                stand_in for a message of Convo's in the person's place
    tokens      estimated
    note        why the part was shortened or left out; '' if it is whole
    message     the number of the message that holds its text, from 0; -1 if none does
    start, end  the text's offsets in that message, in characters
    position    the entry's position in its conversation; 0 if the part is no entry, or stands for several
    mark        what stands before the entry's text: who wrote it, what became of it
    """

    name: str
    tokens: int
    note: str = ""
    message: int = -1
    start: int = 0
    end: int = 0
    position: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The chat messages for the model (`role` system, user or assistant) and a list of their parts.

    The parts' tokens add up to at least the messages' estimated tokens, and never to more than the budget.
    """

    messages: tuple[dict[str, str], ...]
    parts: tuple[PromptPart, ...]
