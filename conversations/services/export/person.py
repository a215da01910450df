"""All that is known of a person: a zip with JSON lines, one file a kind, and a page to read.

What was redacted is in none of them: most of it is nowhere any more, and what global memory holds of a session until it
is remembered anew is left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.models import F, Model, Q, QuerySet

from conversations.models import (
    AgentState,
    CallAnswer,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationEvent,
    Correction,
    EngineChat,
    Erasure,
    Feedback,
    IdempotencyKey,
    InboundEvent,
    Message,
    OrderLink,
    RollingSummary,
    StaffAction,
    Step,
    Turn,
    corrected_text,
)
from conversations.services.core.errors import NotFoundError
from conversations.services.core.json import dumps
from conversations.services.core.ledger import Actor
from conversations.services.core.sql import rows
from conversations.services.export import pages, transcripts
from conversations.services.export.reading import BATCH, columns, in_order
from conversations.services.export.sessions import note_taken
from conversations.services.export.zipped import zipped
from conversations.services.inbound.unprocessed import SEVERAL, WHOLE_REQUEST
from conversations.services.replies.prompt_records import REDACTED
from memory.models import Memory, MemoryVector

Row = Mapping[str, Any]
Progress = Callable[[str, int], None]

# Of no use to anybody outside: hashes by which we find a row.
LEFT_OUT = ("fingerprint", "dedupe_key", "document")
# What hangs on a session, by file. A table that is added belongs here: test_export_contact.py asks for it.
BELOW: Mapping[str, type[Model]] = {
    "chunks": Chunk,
    "steps": Step,
    "messages": Message,
    "turns": Turn,
    "ledger": ConversationEvent,
    "rolling_summaries": RollingSummary,
    "agent_states": AgentState,
    "orders": OrderLink,
    "engine_chats": EngineChat,
    "call_answers": CallAnswer,
    "feedback": Feedback,
    "answers": IdempotencyKey,
}
LARGE: Mapping[type[Model], int] = {Turn: 10, Memory: 5}  # of rows that can be large, so many at a time
TOGETHER = 1_000  # entries of sessions that are looked at at once
PAGE = "index.html"


@dataclass(slots=True)
class Export:
    """The export of a person: `pieces` of a zip, and how many rows of which kind have been written so far."""

    contact: Contact
    at: datetime
    progress: Progress = lambda _kind, _count: None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the file is called. It says nothing of the person."""
        return f"contact-{self.contact.pk}-{self.at:%Y%m%d-%H%M%S}.zip"

    def pieces(self) -> Iterator[bytes]:
        """The zip, as it comes."""
        at = self.at.astimezone(UTC)
        return zipped(self._files(), (at.year, at.month, at.day, at.hour, at.minute, at.second))

    def _files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        for kind, found in KINDS.items():
            yield f"{kind}.jsonl", self._lines(kind, found(self.contact))
        yield PAGE, self._page()
        facts = {"contact": self.contact.pk, "exported_at": self.at, "rows": self.counts}
        yield "manifest.json", [orjson.dumps(facts, option=orjson.OPT_INDENT_2)]

    def _lines(self, kind: str, found: Iterable[Row]) -> Iterator[bytes]:
        self.counts[kind] = 0
        for row in found:
            yield dumps(row) + b"\n"
            self.counts[kind] += 1
            if self.counts[kind] % TOGETHER == 0:
                self.progress(kind, self.counts[kind])
        self.progress(kind, self.counts[kind])

    def _page(self) -> Iterator[bytes]:
        contact = self.contact
        yield pages.begin(str(contact))
        yield pages.person(_facts(contact, self.at), list(_addresses(contact)))
        related = ("contact", "client", "assistant")
        for row in _sessions(contact):
            session = Conversation.objects.select_related(*related).filter(pk=row["id"]).first()
            if session:
                yield from transcripts.section(session)
        yield pages.end()


def export(
    contact_id: UUID,
    *,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
    progress: Progress = lambda _kind, _count: None,
) -> Export:
    """All that is known of the client's (any client's, if None) contact, ready to be written. The ledger of each of
    their sessions says who took it. Raises NotFoundError."""
    found = Contact.objects.select_related("client", "merged_into__client").filter(pk=contact_id)
    contact = (found.filter(client=client) if client else found).first()
    if contact is None:
        raise NotFoundError("There is no such contact.")
    contact = contact.merged_into or contact
    for sessions in _together(contact):
        note_taken(sessions, actor=actor, cause="with all that is known of the contact")
    return Export(contact, now, progress)


# --- what there is ---------------------------------------------------------------------------------------------------
def _contact(contact: Contact) -> Iterable[Row]:
    """The person first, then the aliases."""
    theirs = Contact.objects.filter(Q(pk=contact.pk) | Q(merged_into=contact))
    first = theirs.order_by(F("merged_into_id").asc(nulls_first=True), "created_at")
    yield from first.values(*columns(Contact), client_sub_domain=F("client__sub_domain"))


def _addresses(contact: Contact) -> Iterable[Row]:
    return in_order(ContactIdentity.objects.filter(contact=contact).values(*columns(ContactIdentity)), "id")


def _sessions(contact: Contact) -> Iterable[Row]:
    return in_order(Conversation.objects.filter(contact=contact).values(*columns(Conversation)), "started_at", "id")


def _together(contact: Contact) -> Iterator[list[UUID]]:
    """The sessions' ids, as many at once as have about TOGETHER entries: many short ones, or one long one."""
    some: list[UUID] = []
    entries = 0
    for row in in_order(Conversation.objects.filter(contact=contact).values("id", "last_position"), "id"):
        some.append(row["id"])
        entries += row["last_position"] + 1
        if entries >= TOGETHER:
            yield some
            some, entries = [], 0
    if some:
        yield some


def _below(model: type[Model]) -> Callable[[Contact], Iterator[Row]]:
    """The rows of the table that hang on the person's sessions."""
    key = "position" if model is Chunk else model._meta.pk.attname
    order = ["conversation_id", *([key] if key != "conversation_id" else [])]

    def found(contact: Contact) -> Iterator[Row]:
        every: QuerySet[Any, Any] = model._default_manager.values(*columns(model, *LEFT_OUT))
        if model is Chunk:
            every = every.annotate(reads=corrected_text())
        for sessions in _together(contact):
            yield from in_order(every.filter(conversation__in=sessions), *order, batch=LARGE.get(model, BATCH))

    return found


def _corrections(contact: Contact) -> Iterator[Row]:
    every = Correction.objects.values(*columns(Correction), session=F("chunk__conversation_id"))
    for sessions in _together(contact):
        yield from in_order(every.filter(chunk__conversation__in=sessions), "id")


def _memories(contact: Contact) -> Iterator[Row]:
    """What global memory holds of the person's sessions, without what was redacted since it was written."""
    known = Memory.objects.of(contact.client_id).filter(contact_id=contact.pk)
    for row in in_order(known.values(*columns(Memory, *LEFT_OUT)), "conversation_id", batch=LARGE[Memory]):
        yield _without_redacted(row)


def _without_redacted(row: dict[str, Any]) -> Row:
    session = row["conversation_id"]
    redacted = Correction.objects.filter(chunk__conversation=session, kind=Correction.Kind.REDACTION)
    positions = set(redacted.values_list("chunk__position", flat=True))
    if not positions:
        return row
    for entry in row["transcript"]:
        if entry["position"] in positions:
            entry["content"] = REDACTED
    if Conversation.objects.filter(pk=session, remember_due_at__isnull=False).exists():
        row["summary"] = REDACTED  # of before: it is being made anew
    return row


def _vectors(contact: Contact) -> Iterator[Row]:
    for sessions in _together(contact):
        known = MemoryVector.objects.filter(conversation_id__in=sessions)
        yield from in_order(known.values(*columns(MemoryVector)), "vector_id")


# $1 the client, $2 what the person is called, $3 the last row, $4 how many. A name must be a whole value: one number
# may be a part of somebody else's.
_INBOUND = """
    SELECT id FROM inbound_events
    WHERE client_id = $1 AND id > $3
      AND jsonb_path_exists(raw, '$.** ? (@ == $names[*])', jsonb_build_object('names', to_jsonb($2::text[])))
    ORDER BY id LIMIT $4"""


def _inbound_events(contact: Contact) -> Iterator[Row]:
    """Events that name the person. What brought a message is in the chunks, and of what tells of several people the
    words may be anybody's: of those the raw payload is left out."""
    last, names = 0, _names(contact)
    while ids := [pk for (pk,) in rows(_INBOUND, contact.client_id, names, last, BATCH)]:
        for row in InboundEvent.objects.filter(pk__in=ids).order_by("id").values(*columns(InboundEvent)):
            if row["settled_at"] or row["kind"] in (SEVERAL, WHOLE_REQUEST):
                row["raw"] = None
            yield row
        last = ids[-1]


def _names(contact: Contact) -> list[str]:
    """What the person is called in payloads, with and without the plus of a phone."""
    addresses = ContactIdentity.objects.filter(contact=contact).values_list("address", flat=True)
    aliases = contact.aliases.values_list("user_id", flat=True)
    names = {contact.user_id, contact.phone or "", *addresses, *aliases} - {""}
    return sorted(names | {name.removeprefix("+") for name in names})


def _staff_actions(contact: Contact) -> Iterable[Row]:
    ids = [str(pk) for pk in (contact.pk, *contact.aliases.values_list("pk", flat=True))]
    about = StaffAction.objects.filter(object_type="contact", object_id__in=ids)
    return in_order(about.values(*columns(StaffAction)), "id")


def _erasures(contact: Contact) -> Iterable[Row]:
    return in_order(Erasure.objects.filter(contact=contact.pk).values(*columns(Erasure)), "begun_at", "id")


def _matches(contact: Contact) -> Iterable[Row]:
    about = ContactMatch.objects.filter(Q(first=contact) | Q(second=contact))
    return in_order(about.values(*columns(ContactMatch)), "id")


KINDS: Mapping[str, Callable[[Contact], Iterable[Row]]] = {
    "contact": _contact,
    "identities": _addresses,
    "sessions": _sessions,
    **{kind: _below(model) for kind, model in BELOW.items()},
    "corrections": _corrections,
    "memories": _memories,
    "vectors": _vectors,
    "matches": _matches,
    "inbound_events": _inbound_events,
    "staff_actions": _staff_actions,
    "erasures": _erasures,
}


def _facts(contact: Contact, at: datetime) -> dict[str, str]:
    """What the page says of the person."""
    opted_out = ", ".join(f"{channel} since {wish['since'][:10]}" for channel, wish in contact.opted_out.items())
    facts = {
        "Name": contact.name,
        "Phone": contact.phone or "",
        "User id": contact.user_id,
        "Contact": str(contact.pk),
        "With": contact.client.name,
        "Known since": f"{contact.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        "Guest": "yes" if contact.is_guest else "",
        "Opted out": opted_out,
        "On hold": contact.hold_reason,
        "Exported": f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return {name: fact for name, fact in facts.items() if fact}
