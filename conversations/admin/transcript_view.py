"""The messages of the transcript page, as plain values. The panel beside them is in `transcript_panel.py`.

They are read in a fixed number of queries, however long the conversation is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext

from conversations.admin.channel_names import name_of
from conversations.models import (
    COLLEAGUE,
    ChannelAccount,
    Chunk,
    Conversation,
    Correction,
    Message,
    Proposal,
    Role,
    Turn,
)
from conversations.services.delivery import outbox
from conversations.services.history import recall
from conversations.services.history.beside import NOTHING, Beside, beside_chunks
from conversations.services.jobs import overdue
from conversations.services.media import shown
from conversations.services.media.shown import ShownFile
from conversations.services.replies.sinks import FINISH
from conversations.services.staff_actions.proposals import PROPOSAL
from conversations.words import lazy as _
from memory import services as memory

PAGE_SIZE = 50
SHOWN_AFTER = 5  # messages that are shown after one that was looked for
MOST_NEW = 200  # messages that one poll returns at most
LONG_CHARACTERS = 1_200
LONG_LINES = 18
FOLDED = (Role.SYSTEM, Role.MEMORY)

S = Message.Status
DELIVERY = {
    # status: (label for staff, severity)
    S.QUEUED: (_("waiting to be sent"), "waiting"),
    S.CLAIMED: (_("waiting to be sent"), "waiting"),
    S.SENDING: (_("being sent"), "waiting"),
    S.UNKNOWN: (_("unclear whether it arrived"), "grave"),
    S.SENT: (_("sent"), "fine"),
    S.DELIVERED: (_("delivered"), "fine"),
    S.READ: (_("read"), "fine"),
    S.FAILED: (_("failed"), "grave"),
    S.CANCELLED: (_("not sent"), "grave"),
}


FINISHES = {"length": _("cut off at the longest answer"), "refused": _("the model refused")}
WAITS_FOR_ACCOUNT = (_("waits: the account is refused by its provider"), "grave")

# Unicode's direction overrides. They can make a text read as another one ("exe.png" for "gnp.exe").
OVERRIDES = {code: f"⟨U+{code:04X}⟩" for code in (0x202D, 0x202E)}


def plain_text(text: str) -> str:
    """Return the text with direction overrides written out, so that it reads as what it is."""
    return text.translate(OVERRIDES)


def has_templates(conversation: Conversation) -> bool:
    """Return whether the conversation's account has templates, which can be sent at any time."""
    adapter = outbox.adapter_or_none(conversation.channel_account)
    return adapter is not None and adapter.lists_templates


def title_of(conversation: Conversation) -> str:
    """Return the contact and the channel: "Ann on WhatsApp"."""
    return gettext("%(contact)s on %(channel)s") % {
        "contact": plain_text(str(conversation.contact)),
        "channel": name_of(conversation.channel),
    }


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery state of one part of a message."""

    message: Message
    label: str
    gravity: str

    @property
    def is_unclear(self) -> bool:
        """Return whether nobody knows if it arrived."""
        return self.message.status == S.UNKNOWN

    @property
    def can_be_resent(self) -> bool:
        """Return whether staff are offered to send it again."""
        return self.message.status in (S.FAILED, S.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Bubble:
    """One chunk as the page shows it.

    side: "theirs" (the contact), "ours" (the assistant or staff), or "aside" (folded: system prompt and memory).
    has_prompt: a model wrote it, and its turn keeps what the model was given.
    beside: what it quotes or is about, and what the person did with it or after it.
    files: its pictures, recordings and documents.
    proposed: what the assistant proposed, where a colleague edited it.
    """

    chunk: Chunk
    side: str
    who: str
    deliveries: Sequence[Delivery] = ()
    corrections: Sequence[Correction] = ()
    has_prompt: bool = False
    beside: Beside = NOTHING
    files: Sequence[ShownFile] = ()
    proposed: str = ""

    @property
    def proposal(self) -> dict[str, Any] | None:
        """Return who sent it (`by`) and whether they edited it (`edited`), where the assistant proposed it."""
        told = self.chunk.metadata.get(PROPOSAL) if self.chunk.role == Role.AI else None
        return told if isinstance(told, dict) else None

    @property
    def recalled(self) -> list[dict[str, Any]]:
        """Return the earlier conversations that a memory message was made from, each with the reason."""
        told = self.chunk.metadata.get(recall.RECALLED) if self.chunk.role == Role.MEMORY else None
        return [each for each in told or () if isinstance(each, dict) and each.get("session")]

    @property
    def recall_problem(self) -> str:
        """Return why the search by meaning failed, or an empty string."""
        return str(self.chunk.metadata.get(recall.PROBLEM, "")) if self.chunk.role == Role.MEMORY else ""

    @property
    def finish(self) -> str:
        """Return why the model did not end its reply as it should, or an empty string."""
        return FINISHES.get(str(self.chunk.metadata.get(FINISH, "")), "")

    @property
    def text(self) -> str:
        """Return the newest correction, or else the text as it was written."""
        return plain_text(self.corrections[-1].text if self.corrections and not self.redaction else self.chunk.content)

    @property
    def redaction(self) -> Correction | None:
        """Return the redaction of the text, or None."""
        return next((each for each in self.corrections if each.kind == Correction.Kind.REDACTION), None)

    @property
    def choices(self) -> list[str]:
        """Return the titles of the choices that the message offers, or of the buttons of its template."""
        if self.chunk.role != Role.AI or self.redaction:
            return []
        found, template = outbox.choices_of(self.chunk), self.chunk.metadata.get(outbox.TEMPLATE)
        buttons = template.get("buttons") if isinstance(template, dict) else None
        titles = [each.title for each in found.options] if found else buttons
        return [plain_text(each) for each in titles if isinstance(each, str)] if isinstance(titles, list) else []

    @property
    def read_instead(self) -> str:
        """Return what the person read in a template in place of the text; '' if nothing, or it is not known."""
        if outbox.TEMPLATE in self.chunk.metadata or self.redaction:
            return ""
        kept = [(each.message.content or {}).get(outbox.TEMPLATE) or {} for each in self.deliveries]
        return next((plain_text(text) for each in kept if isinstance(text := each.get("text"), str) and text), "")

    @property
    def is_long(self) -> bool:
        """Return whether the text is collapsed at first."""
        return len(self.text) > LONG_CHARACTERS or self.text.count("\n") >= LONG_LINES


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages of a transcript, oldest first. has_older: there are messages before the first."""

    bubbles: Sequence[Bubble] = field(default_factory=list)
    has_older: bool = False

    @property
    def first(self) -> int:
        """Return the position of the oldest message, or 0 if there is none."""
        return self.bubbles[0].chunk.position if self.bubbles else 0

    @property
    def last(self) -> int:
        """Return the position of the newest message, or 0 if there is none."""
        return self.bubbles[-1].chunk.position if self.bubbles else 0


def newest(conversation: Conversation) -> Page:
    """Return the newest messages."""
    return before(conversation, conversation.last_position + 1)


def around(conversation: Conversation, position: int) -> Page:
    """Return a page that ends a few messages after the position, or the newest page if there is no such position."""
    known = 0 < position <= conversation.last_position
    return before(conversation, position + SHOWN_AFTER + 1) if known else newest(conversation)


def before(conversation: Conversation, position: int) -> Page:
    """Return the messages just before a position. Those of an archived conversation are read from memory."""
    if conversation.archived_at:
        return _archived(conversation, position)
    found = conversation.chunks.filter(position__lt=position).select_related("author").order_by("-position")
    chunks = list(found[: PAGE_SIZE + 1])
    return Page(_bubbles(conversation, reversed(chunks[:PAGE_SIZE])), has_older=len(chunks) > PAGE_SIZE)


def since(conversation: Conversation, position: int) -> Page:
    """Return the messages after a position, at most MOST_NEW of them.

    The newest page is always included, because deliveries and corrections may have changed.
    """
    start = min(position, max(conversation.last_position - PAGE_SIZE, 0))
    found = conversation.chunks.filter(position__gt=start).select_related("author").order_by("position")
    return Page(_bubbles(conversation, found[:MOST_NEW]), has_older=start > 0)


def at(conversation: Conversation, position: int) -> Page:
    """Return a page with the one message at the position, or an empty page."""
    return Page(_bubbles(conversation, conversation.chunks.filter(position=position).select_related("author")))


def _archived(conversation: Conversation, position: int) -> Page:
    kept = [
        each for each in memory.transcript(conversation.client_id, conversation.pk) or () if each.position < position
    ]
    bubbles = []
    files = shown.of_archived(conversation, [each.position for each in kept[-PAGE_SIZE:]])
    for each in kept[-PAGE_SIZE:]:
        chunk = Chunk(position=each.position, role=each.role, content=each.content, created_at=each.at)
        side, who = _voice(conversation, chunk)
        theirs = [ShownFile(row) for row in files.get(each.position, ())]
        bubbles.append(Bubble(chunk, side, gettext("A colleague") if each.by_staff else who, files=theirs))
    return Page(bubbles, has_older=len(kept) > PAGE_SIZE)


def _bubbles(conversation: Conversation, chunks: Iterable[Chunk]) -> list[Bubble]:
    chunks = list(chunks)
    ours = [chunk for chunk in chunks if chunk.role == Role.AI]
    templates = {chunk.pk for chunk in ours if outbox.TEMPLATE in chunk.metadata}
    deliveries = _deliveries(conversation, [chunk.pk for chunk in ours], templates)
    corrections: dict[int, list[Correction]] = defaultdict(list)
    for correction in Correction.objects.filter(client=conversation.client_id, chunk__in=chunks).order_by("id"):
        corrections[correction.chunk_id].append(correction)
    beside = beside_chunks(conversation, chunks)
    proposed = _proposed(conversation, ours)
    files = shown.of_chunks(conversation.client_id, [chunk.pk for chunk in chunks])
    prompted = Turn.objects.filter(client=conversation.client_id, chunk__in=chunks, prompt__isnull=False)
    written = set(prompted.values_list("chunk", flat=True))
    return [
        Bubble(
            chunk,
            *_voice(conversation, chunk),
            deliveries.get(chunk.pk, ()),
            corrections.get(chunk.pk, ()),
            has_prompt=chunk.pk in written,
            beside=beside[chunk.pk],
            files=[ShownFile(row) for row in files.get(chunk.pk, ())],
            proposed=proposed.get(chunk.pk, ""),
        )
        for chunk in chunks
    ]


def _proposed(conversation: Conversation, chunks: Sequence[Chunk]) -> dict[int, str]:
    """Return what the assistant proposed for each chunk that a colleague edited before it was sent."""
    edited = [
        chunk.pk
        for chunk in chunks
        if isinstance(told := chunk.metadata.get(PROPOSAL), dict) and told.get("edited") is True
    ]
    if not edited:
        return {}
    found = Proposal.objects.filter(conversation=conversation, chunk_id__in=edited).values_list("chunk_id", "text")
    return {pk: plain_text(text) for pk, text in found if pk is not None}


def _voice(conversation: Conversation, chunk: Chunk) -> tuple[str, str]:
    """Return the side of the chunk and the name of who speaks."""
    if chunk.role in FOLDED:
        return "aside", gettext("What the assistant was told") if chunk.role == Role.SYSTEM else gettext("Memory")
    if chunk.role == Role.AI:
        return "ours", _speaker(conversation, chunk)
    return "theirs", plain_text(str(conversation.contact))


def _speaker(conversation: Conversation, chunk: Chunk) -> str:
    if chunk.author:
        return chunk.author.get_full_name() or chunk.author.get_username()
    elsewhere = chunk.metadata.get(COLLEAGUE)
    return (
        gettext("A colleague (%(who)s)") % {"who": elsewhere}
        if elsewhere
        else str(conversation.assistant or gettext("Assistant"))
    )


def _template_label(message: Message, *, is_template: bool, label: str) -> str:
    name = message.template.partition(" ")[0]
    said = (
        gettext("template %(name)s: %(label)s")
        if is_template
        else gettext("template %(name)s instead of this text: %(label)s")
    )
    return said % {"name": name, "label": label}


def _deliveries(
    conversation: Conversation, chunk_ids: Sequence[int], templates: Collection[int]
) -> dict[int, list[Delivery]]:
    """Return the deliveries of each chunk. templates: the chunks that are templates themselves"""
    found: dict[int, list[Delivery]] = defaultdict(list)
    account = conversation.channel_account
    refused = account.pk if account and account.health == ChannelAccount.Health.BROKEN else None
    sent = Message.objects.filter(client=conversation.client_id, chunk__in=chunk_ids)
    for message in sent.order_by("chunk_id", "part"):
        waits = message.status == S.QUEUED and message.channel_account_id == refused is not None
        label, gravity = WAITS_FOR_ACCOUNT if waits else DELIVERY[Message.Status(message.status)]
        if message.status == S.QUEUED and message.due_at and message.due_at < timezone.now() - overdue.UNATTENDED_AFTER:
            label = gettext("%(label)s, since %(at)s") % {
                "label": label,
                "at": f"{timezone.localtime(message.due_at):%H:%M}",
            }
        if message.template:
            label = _template_label(message, is_template=message.chunk_id in templates, label=label)
        found[message.chunk_id].append(Delivery(message, label, gravity))
    return found
