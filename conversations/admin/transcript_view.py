"""What a transcript shows of a session: plain values, read in a handful of queries however long the session is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from conversations.models import (
    ChannelAccount,
    Chunk,
    Conversation,
    ConversationEvent,
    Correction,
    Message,
    Role,
    Step,
    Turn,
)
from conversations.services.history import recall
from conversations.services.jobs import overdue
from memory import services as memory

NEWEST = 50
AFTER = 5  # entries that are shown behind one that was looked for
CATCH_UP = 200  # entries at most that one poll brings
LEDGER_LINES = 200
TURNS = 50
LONG_CHARACTERS = 1_200
LONG_LINES = 18
FOLDED = (Role.SYSTEM, Role.MEMORY)

S = Message.Status
DELIVERY = {
    # status: (what staff read, how grave it is)
    S.QUEUED: ("waiting to be sent", "waiting"),
    S.CLAIMED: ("waiting to be sent", "waiting"),
    S.SENDING: ("being sent", "waiting"),
    S.UNKNOWN: ("unclear whether it arrived", "grave"),
    S.SENT: ("sent", "fine"),
    S.DELIVERED: ("delivered", "fine"),
    S.READ: ("read", "fine"),
    S.FAILED: ("failed", "grave"),
    S.CANCELLED: ("not sent", "grave"),
}


WAITS_FOR_ACCOUNT = ("waits: the account is refused by its provider", "grave")

# These turn the reading direction of what follows around, which serves nothing but deceit ("exe.png" for "gnp.exe").
OVERRIDES = {code: f"⟨U+{code:04X}⟩" for code in (0x202D, 0x202E)}


def plainly(text: str) -> str:
    """The text with what would make it read as something else made visible."""
    return text.translate(OVERRIDES)


def title_of(session: Conversation) -> str:
    """Whom the session is with, and where."""
    return f"{plainly(str(session.contact))} on {session.channel}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One part of an entry on its way to the person."""

    message: Message
    label: str
    gravity: str

    @property
    def is_unclear(self) -> bool:
        """Whether it may have arrived or not."""
        return self.message.status == S.UNKNOWN

    @property
    def can_be_resent(self) -> bool:
        """Whether sending it once more is something to offer."""
        return self.message.status in (S.FAILED, S.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Entry:
    """One chunk as a bubble: on the person's `side` ("theirs"), on ours, or folded in the middle ("aside")."""

    chunk: Chunk
    side: str
    who: str
    deliveries: Sequence[Delivery] = ()
    corrections: Sequence[Correction] = ()
    has_receipt: bool = False  # a model wrote it, and its turn says from what

    @property
    def recalled(self) -> list[dict[str, Any]]:
        """For the memory of earlier sessions: from which ones it is, and why from these."""
        told = self.chunk.metadata.get(recall.RECALLED) if self.chunk.role == Role.MEMORY else None
        return [each for each in told or () if isinstance(each, dict) and each.get("session")]

    @property
    def recall_problem(self) -> str:
        """Why nothing was recalled by meaning, where that failed."""
        return str(self.chunk.metadata.get(recall.PROBLEM, "")) if self.chunk.role == Role.MEMORY else ""

    @property
    def text(self) -> str:
        """What it should read like."""
        return plainly(self.corrections[-1].text if self.corrections and not self.redaction else self.chunk.content)

    @property
    def redaction(self) -> Correction | None:
        """Who took the text away, and when."""
        return next((each for each in self.corrections if each.kind == Correction.Kind.REDACTION), None)

    @property
    def is_long(self) -> bool:
        """Whether it is collapsed at first."""
        return len(self.text) > LONG_CHARACTERS or self.text.count("\n") >= LONG_LINES


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring entries, oldest first, and whether there are older ones."""

    entries: Sequence[Entry] = field(default_factory=list)
    more: bool = False

    @property
    def first(self) -> int:
        """The position of the oldest, 0 where there is none."""
        return self.entries[0].chunk.position if self.entries else 0

    @property
    def last(self) -> int:
        """The position of the newest, 0 where there is none."""
        return self.entries[-1].chunk.position if self.entries else 0


def newest(conversation: Conversation) -> Stretch:
    """The newest entries."""
    return before(conversation, conversation.last_position + 1)


def around(conversation: Conversation, position: int) -> Stretch:
    """The entries just before a position, that one, and a few after it; the newest where there is no such position."""
    known = 0 < position <= conversation.last_position
    return before(conversation, position + AFTER + 1) if known else newest(conversation)


def before(conversation: Conversation, position: int) -> Stretch:
    """The entries just before a position; of an archived session, as memory keeps them."""
    if conversation.archived_at:
        return _archived(conversation, position)
    found = conversation.chunks.filter(position__lt=position).select_related("author").order_by("-position")
    chunks = list(found[: NEWEST + 1])
    return Stretch(_entries(conversation, reversed(chunks[:NEWEST])), more=len(chunks) > NEWEST)


def since(conversation: Conversation, position: int) -> Stretch:
    """The entries after a position, and the newest again: what became of them may have changed. In several goes where
    there are many."""
    start = min(position, max(conversation.last_position - NEWEST, 0))
    found = conversation.chunks.filter(position__gt=start).select_related("author").order_by("position")
    return Stretch(_entries(conversation, found[:CATCH_UP]), more=start > 0)


def at(conversation: Conversation, position: int) -> Stretch:
    """The one entry at a position."""
    return Stretch(_entries(conversation, conversation.chunks.filter(position=position).select_related("author")))


def _archived(conversation: Conversation, position: int) -> Stretch:
    kept = [each for each in memory.transcript(conversation.pk) or () if each.position < position]
    entries = []
    for each in kept[-NEWEST:]:
        chunk = Chunk(position=each.position, role=each.role, content=each.content, created_at=each.at)
        side, who = _voice(conversation, chunk)
        entries.append(Entry(chunk, side, "A colleague" if each.by_staff else who))
    return Stretch(entries, more=len(kept) > NEWEST)


def _entries(conversation: Conversation, chunks: Iterable[Chunk]) -> list[Entry]:
    chunks = list(chunks)
    deliveries = _deliveries(conversation, [chunk.pk for chunk in chunks if chunk.role == Role.AI])
    corrections: dict[int, list[Correction]] = defaultdict(list)
    for correction in Correction.objects.filter(chunk__in=chunks).order_by("id"):
        corrections[correction.chunk_id].append(correction)
    written = set(Turn.objects.filter(chunk__in=chunks, prompt__isnull=False).values_list("chunk", flat=True))
    return [
        Entry(
            chunk,
            *_voice(conversation, chunk),
            deliveries.get(chunk.pk, ()),
            corrections.get(chunk.pk, ()),
            has_receipt=chunk.pk in written,
        )
        for chunk in chunks
    ]


def _voice(conversation: Conversation, chunk: Chunk) -> tuple[str, str]:
    """On which side it stands, and who speaks."""
    if chunk.role in FOLDED:
        return "aside", "What the assistant was told" if chunk.role == Role.SYSTEM else "Memory"
    if chunk.role == Role.AI:
        return "ours", _speaker(conversation, chunk)
    return "theirs", plainly(str(conversation.contact))


def _speaker(conversation: Conversation, chunk: Chunk) -> str:
    if chunk.author:
        return chunk.author.get_full_name() or chunk.author.get_username()
    return str(conversation.assistant or "Assistant")


def _deliveries(conversation: Conversation, chunk_ids: Sequence[int]) -> dict[int, list[Delivery]]:
    found: dict[int, list[Delivery]] = defaultdict(list)
    account = conversation.channel_account
    refused = account.pk if account and account.health == ChannelAccount.Health.BROKEN else None
    for message in Message.objects.filter(chunk__in=chunk_ids).order_by("chunk_id", "part"):
        waits = message.status == S.QUEUED and message.channel_account_id == refused is not None
        label, gravity = WAITS_FOR_ACCOUNT if waits else DELIVERY[Message.Status(message.status)]
        if message.status == S.QUEUED and message.due_at and message.due_at < timezone.now() - overdue.UNATTENDED_AFTER:
            label = f"{label}, since {message.due_at:%H:%M}"
        if message.template:
            label = f"template {message.template.partition(' ')[0]} instead of this text: {label}"
        found[message.chunk_id].append(Delivery(message, label, gravity))
    return found


# --- what stands beside the transcript -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Line:
    """One line of the time line: an event of the ledger, in words."""

    at: datetime
    what: str
    who: str
    why: str


def steps_of(conversation: Conversation) -> list[Step]:
    """The steps, in their order."""
    return list(conversation.steps.all())


def ledger_of(conversation: Conversation) -> list[Line]:
    """The newest lines of the ledger, newest first."""
    return [line_of(event) for event in conversation.events.order_by("-id")[:LEDGER_LINES]]


def line_of(event: ConversationEvent) -> Line:
    """An event of the ledger, in words."""
    what = event.kind.replace("_", " ")
    if event.from_status and event.to_status and event.kind not in (event.to_status, "revived"):
        what = f"{what}: {event.from_status} to {event.to_status}"
    who = event.actor_name or event.actor
    return Line(event.created_at, what, f"{who} ({event.actor})" if event.actor_name else who, event.cause)


def turns_of(conversation: Conversation) -> list[Turn]:
    """The newest attempts at replies, newest first, without their prompts; `has_prompt` says whether there is one."""
    found = conversation.turns.defer("prompt", "draft").annotate(has_prompt=Q(prompt__isnull=False))
    return list(found.order_by("-started_at")[:TURNS])


def waits_for(conversation: Conversation) -> str:
    """What the session waits for: a person of ours, a reply of the assistant, or ''."""
    if conversation.waits_for_staff_since:
        return "a person"
    if conversation.is_open and conversation.reply_owed:
        return "a reply"
    return ""


def beside(conversation: Conversation) -> dict[str, Any]:
    """All that stands beside the transcript."""
    turns = turns_of(conversation)
    return {
        "contact": plainly(str(conversation.contact)),
        "steps": steps_of(conversation),
        "ledger": ledger_of(conversation),
        "turns": turns,
        "unattended_since": overdue.unattended_since(conversation, turns, timezone.now()),
        "waits_for": waits_for(conversation),
        "opted_out": conversation.contact.opted_out.get(conversation.channel),
        "waits_since": conversation.waits_for_staff_since,
    }
