"""What goes into memory and what comes out of it: plain values, and nothing that knows a database or a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from memory.redaction import CARDS_ALONE, Rules
from memory.text import storable

EXTRACTIVE = "extractive"  # the kind of a summary that quotes the transcript and adds nothing to it
SAID = frozenset({"user", "voice", "ai"})  # the roles that speak; system and memory entries only prepare the prompt


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """One entry of a session as it is archived. `role` is system, user, ai, memory or voice; `at` is aware of its time
    zone; `by_staff` marks an ai entry that a person wrote."""

    position: int
    role: str
    content: str
    at: datetime
    by_staff: bool = False

    @property
    def is_said(self) -> bool:
        """Whether the person or the assistant said it, and said something."""
        return self.role in SAID and bool(self.content.strip())

    @property
    def is_person(self) -> bool:
        """Whether these are the person's words."""
        return self.role in {"user", "voice"}

    def as_json(self) -> dict[str, Any]:
        """How it stands in `memories.transcript`."""
        return {
            "position": self.position,
            "role": self.role,
            "content": self.content,
            "at": self.at.isoformat(),
            "by_staff": self.by_staff,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TranscriptEntry:
        """The entry that `as_json` wrote."""
        return cls(**{**data, "at": datetime.fromisoformat(data["at"])})


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """An ended session, as whoever keeps sessions hands it over.

    entries         all of it, in any order; what was corrected or redacted is given as it is to be read
    goal            what the session was to achieve
    summary_so_far  what was noted while it was open, if anything
    open_points     steps that were still to do
    summary         the final summary, if there is one that stands (a person wrote it); '' has one made
    summary_kind    who wrote that: staff, llm or extractive
    language        of the person, as a tag ("de", "pt-BR"); '' has it guessed
    rules           what is removed from all of it
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
    rules: Rules = CARDS_ALONE

    @property
    def said(self) -> list[TranscriptEntry]:
        """What the person and the assistant said."""
        return [entry for entry in self.entries if entry.is_said]

    @property
    def telling_summary(self) -> str:
        """The summary, if it says something in words of its own: what a search should find besides the transcript."""
        return "" if self.summary_kind == EXTRACTIVE else self.summary

    def tidied(self) -> SessionRecord:
        """The same, with its entries in order and every text as PostgreSQL can keep it, without what is not kept."""

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
class Remembered:
    """What is now in memory of a session. `summary_kind` is llm, extractive or staff; `vectors` counts those at
    Pinecone (0 where it is not configured)."""

    conversation_id: UUID
    summary: str
    summary_kind: str
    remembered_at: datetime
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class PastSession:
    """What a later session may know of an earlier one."""

    conversation_id: UUID
    channel: str
    started_at: datetime
    ended_at: datetime
    summary: str
    summary_kind: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Narrows a search: to a contact, a channel, sessions that ended from one moment on and before another."""

    contact_id: UUID | None = None
    channel: str = ""
    ended_from: datetime | None = None
    ended_before: datetime | None = None


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class Hit:
    """What a store found: a session, how well it fits (more is better; comparable within one answer of one store), and
    the positions of the passage that fits best, where the store knows it."""

    conversation_id: UUID
    score: float
    first_position: int = 0
    last_position: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A session that answers a search.

    score       more is better; comparable within one answer
    position    of the entry that fits best; None where that is the summary
    snippet     of that entry or the summary, as plain text that may hold anything a person can write
    highlights  pairs of offsets into the snippet: the words that were asked for
    by          "text", "meaning", or "both"
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
    """The answer to a search, best first. `problem` is the code of why nothing was searched by meaning although that is
    configured, '' where all went well."""

    items: tuple[Found, ...] = ()
    problem: str = ""
