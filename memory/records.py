"""The plain values that global memory takes and returns. They know no database and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from memory.redaction import CARDS_ONLY, RedactionRules
from memory.text import storable

EXTRACTIVE = "extractive"  # the kind of a summary that quotes the transcript and adds nothing to it
SPOKEN_ROLES = frozenset({"user", "voice", "ai"})  # system and memory entries only prepare the prompt


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """One entry of a conversation as it is archived.

    role        system, user, ai, memory or voice
    at          aware of its time zone
    by_staff    a member of staff wrote this ai entry
    """

    position: int
    role: str
    content: str
    at: datetime
    by_staff: bool = False

    @property
    def is_spoken(self) -> bool:
        """Return whether the entry is the person's or the assistant's, and not blank."""
        return self.role in SPOKEN_ROLES and bool(self.content.strip())

    @property
    def is_from_person(self) -> bool:
        """Return whether the entry is the person's."""
        return self.role in {"user", "voice"}

    def as_json(self) -> dict[str, Any]:
        """Return the entry as `memories.transcript` stores it."""
        return {
            "position": self.position,
            "role": self.role,
            "content": self.content,
            "at": self.at.isoformat(),
            "by_staff": self.by_staff,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TranscriptEntry:
        """Return the entry that `as_json` wrote."""
        return cls(**{**data, "at": datetime.fromisoformat(data["at"])})


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """An ended conversation, to be remembered.

    entries         the whole transcript, in any order; corrected and redacted entries have their current text
    goal            the conversation's goal
    summary_so_far  the rolling summary from the time when it was open; '' if there is none
    open_points     the steps that were still to do
    summary         the final summary, if it is given (staff wrote it); '' means that one is to be made
    summary_kind    who wrote `summary`: staff, llm or extractive
    language        the person's, as a tag ("de", "pt-BR"); '' means that it is to be guessed
    rules           the redaction of all texts
    """

    conversation_id: UUID
    client_id: UUID
    contact_id: UUID
    channel: str
    started_at: datetime
    ended_at: datetime
    entries: Sequence[TranscriptEntry]
    goal: str = ""
    summary_so_far: str = ""
    open_points: Sequence[str] = ()
    summary: str = ""
    summary_kind: str = "staff"
    language: str = ""
    rules: RedactionRules = CARDS_ONLY

    @property
    def spoken_entries(self) -> list[TranscriptEntry]:
        """Return the entries of the person and the assistant."""
        return [entry for entry in self.entries if entry.is_spoken]

    @property
    def searchable_summary(self) -> str:
        """Return the summary; '' if it only quotes the transcript, which a search finds anyway."""
        return "" if self.summary_kind == EXTRACTIVE else self.summary

    def normalised(self) -> ConversationRecord:
        """Return the record with its entries in order and every text redacted and storable."""

        def kept(text: str) -> str:
            return self.rules.clean(storable(text))

        entries = sorted(self.entries, key=lambda entry: entry.position)
        return replace(
            self,
            entries=tuple(replace(entry, content=kept(entry.content)) for entry in entries),
            goal=kept(self.goal).strip(),
            summary_so_far=kept(self.summary_so_far).strip(),
            open_points=tuple(kept(point) for point in self.open_points),
            summary=kept(self.summary).strip(),
        )


@dataclass(frozen=True, slots=True)
class RememberedConversation:
    """The result of remembering a conversation.

    summary_kind    llm, extractive or staff
    vectors         the number of its vectors at Pinecone; 0 if Pinecone is not configured
    """

    conversation_id: UUID
    summary: str
    summary_kind: str
    remembered_at: datetime
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class PastConversation:
    """The part of an earlier conversation that a later one may know."""

    conversation_id: UUID
    channel: str
    started_at: datetime
    ended_at: datetime
    summary: str
    summary_kind: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Limits a search: to a contact, a channel, and conversations that ended in [ended_from, ended_before)."""

    contact_id: UUID | None = None
    channel: str = ""
    ended_from: datetime | None = None
    ended_before: datetime | None = None


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class StoreHit:
    """A conversation that a store found.

    score           higher is better; comparable within one answer of one store
    first_position, last_position   of the passage that fits best; 0 if the store does not know it
    """

    conversation_id: UUID
    score: float
    first_position: int = 0
    last_position: int = 0


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A conversation that a search found.

    score       higher is better; comparable within one answer
    position    of the entry that fits best; None if the summary fits best
    snippet     part of that entry or of the summary, as plain text with anything a person can write
    highlights  pairs of offsets into the snippet, one for each word that was searched for
    by          how it was found: "text", "meaning", or "both"
    """

    conversation_id: UUID
    contact_id: UUID
    channel: str
    started_at: datetime
    ended_at: datetime
    summary: str
    score: float
    position: int | None
    snippet: str
    highlights: tuple[tuple[int, int], ...]
    by: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a search, best first.

    problem     the code of the error if the search by meaning failed; '' if it succeeded or is not configured
    """

    items: tuple[SearchHit, ...] = ()
    problem: str = ""
