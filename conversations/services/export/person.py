"""The export of all that is known of a person: a zip with JSON lines, one file for each kind of row, a page, and the
files of their messages.

Redacted text is not in it: most of it is stored nowhere any more, and what memory holds of a conversation until it is
remembered again is left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.models import F, Model, Q, QuerySet
from django.utils.translation import gettext

from conversations.models import (
    Activity,
    AgentState,
    Attachment,
    CallAnswer,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationEvent,
    ConversationLabel,
    Correction,
    DeskState,
    Draft,
    EngineChat,
    Erasure,
    Feedback,
    IdempotencyKey,
    InboundEvent,
    MailMark,
    Mention,
    Message,
    OrderLink,
    PendingHandover,
    Presence,
    Proposal,
    Rating,
    RollingSummary,
    SeenPosition,
    StaffAction,
    StaffNote,
    Step,
    ToolCall,
    Turn,
    corrected_text,
)
from conversations.services.contacts.details import language_name
from conversations.services.core import files
from conversations.services.core.errors import NotFoundError
from conversations.services.core.json import dumps
from conversations.services.core.ledger import Actor
from conversations.services.core.sql import rows
from conversations.services.export import pages, transcripts
from conversations.services.export.reading import BATCH, column_names, read_in_batches
from conversations.services.export.sessions import record_exported
from conversations.services.export.zipped import zip_pieces
from conversations.services.inbound.unprocessed import SEVERAL, WHOLE_REQUEST
from conversations.services.media.shown import safe_name
from conversations.services.replies.prompt_records import REDACTED
from memory.models import Memory, MemoryVector

Row = Mapping[str, Any]
Progress = Callable[[str, int], None]

# Hashes by which Convo finds a row; they say nothing outside it.
LEFT_OUT = ("fingerprint", "dedupe_key", "document", "callback_hash")
# The tables below a conversation, by file name. A new table belongs here: test_export_contact.py checks it.
OF_CONVERSATION: Mapping[str, type[Model]] = {
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
    "tool_calls": ToolCall,
    "activities": Activity,
    "attachments": Attachment,
    "staff_notes": StaffNote,
    "staff_mentions": Mention,
    "staff_labels": ConversationLabel,
    "staff_states": DeskState,
    "staff_drafts": Draft,
    "staff_seen": SeenPosition,
    "staff_presences": Presence,
    "staff_handovers": PendingHandover,
    "staff_mails": MailMark,
    "ratings": Rating,
    "proposals": Proposal,
}
ROWS_AT_ONCE: Mapping[type[Model], int] = {Turn: 10, Memory: 5}  # batches of tables with large rows
CHUNKS_AT_ONCE = 1_000  # conversations with about so many chunks are read together
PAGE = "index.html"
FILES = "files"


@dataclass(slots=True)
class PersonExport:
    """The export of a person.

    progress    called with a kind of row and how many were written so far
    counts      the rows that were written so far, by kind
    """

    contact: Contact
    at: datetime
    progress: Progress = lambda _kind, _count: None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the file, which says nothing about the person."""
        return f"contact-{self.contact.pk}-{self.at:%Y%m%d-%H%M%S}.zip"

    def pieces(self) -> Iterator[bytes]:
        """Return the pieces of the zip; rows are read as the pieces are taken."""
        at = self.at.astimezone(UTC)
        return zip_pieces(self._files(), (at.year, at.month, at.day, at.hour, at.minute, at.second))

    def _files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        for kind, found in KINDS.items():
            yield f"{kind}.jsonl", self._lines(kind, found(self.contact))
        yield PAGE, self._page()
        yield from self._stored_files()
        facts = {"contact": self.contact.pk, "exported_at": self.at, "rows": self.counts}
        yield "manifest.json", [orjson.dumps(facts, option=orjson.OPT_INDENT_2)]

    def _stored_files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Yield the files of the person's messages, in a folder. One that is deleted meanwhile is empty."""
        for conversation_ids in _conversation_batches(self.contact):
            found = Attachment.objects.filter(client_id=self.contact.client_id, conversation__in=conversation_ids)
            for row in found.filter(state=Attachment.State.READY).order_by("conversation_id", "pk").iterator(BATCH):
                yield f"{FILES}/{row.pk}-{safe_name(row)}", _content_of(row)

    def _lines(self, kind: str, found: Iterable[Row]) -> Iterator[bytes]:
        self.counts[kind] = 0
        for row in found:
            yield dumps(row) + b"\n"
            self.counts[kind] += 1
            if self.counts[kind] % CHUNKS_AT_ONCE == 0:
                self.progress(kind, self.counts[kind])
        self.progress(kind, self.counts[kind])

    def _page(self) -> Iterator[bytes]:
        contact = self.contact
        yield pages.begin_page(str(contact))
        yield pages.person_section(_facts(contact, self.at), list(_addresses(contact)))
        related = ("contact", "client", "assistant")
        for row in _sessions(contact):
            conversation = (
                Conversation.objects.of(contact.client_id).select_related(*related).filter(pk=row["id"]).first()
            )
            if conversation:
                yield from transcripts.page_section(conversation)
        yield pages.end_page()


def _content_of(row: Attachment) -> Iterator[bytes]:
    with suppress(FileNotFoundError):
        yield from files.blocks(row.file)


def export(
    contact_id: UUID,
    *,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
    progress: Progress = lambda _kind, _count: None,
) -> PersonExport:
    """Return the export of the contact and record in the ledger of each of their conversations who took it.

    client: the client whose contact it must be; None for any

    Raises NotFoundError.
    """
    found = Contact.objects.select_related("client", "merged_into__client").filter(pk=contact_id)
    contact = (found.filter(client=client) if client else found).first()
    if contact is None:
        raise NotFoundError(gettext("There is no such contact."))
    contact = contact.merged_into or contact
    for conversation_ids in _conversation_batches(contact):
        record_exported(
            dict.fromkeys(conversation_ids, contact.client_id),
            actor=actor,
            cause="with all that is known of the contact",
        )
    return PersonExport(contact, now, progress)


# --- kinds of rows ---------------------------------------------------------------------------------------------------
def _contact(contact: Contact) -> Iterable[Row]:
    """Return the contact's row, then those of its aliases."""
    theirs = Contact.objects.filter(Q(pk=contact.pk) | Q(merged_into=contact), client=contact.client_id)
    first = theirs.order_by(F("merged_into_id").asc(nulls_first=True), "created_at")
    yield from first.values(*column_names(Contact), client_sub_domain=F("client__sub_domain"))


def _addresses(contact: Contact) -> Iterable[Row]:
    return read_in_batches(ContactIdentity.objects.filter(contact=contact).values(*column_names(ContactIdentity)), "id")


def _sessions(contact: Contact) -> Iterable[Row]:
    return read_in_batches(
        Conversation.objects.filter(contact=contact).values(*column_names(Conversation)), "started_at", "id"
    )


def _conversation_batches(contact: Contact) -> Iterator[list[UUID]]:
    """Yield the conversations' ids in batches of about CHUNKS_AT_ONCE chunks: many short ones, or one long one."""
    batch: list[UUID] = []
    chunks = 0
    for row in read_in_batches(Conversation.objects.filter(contact=contact).values("id", "last_position"), "id"):
        batch.append(row["id"])
        chunks += row["last_position"] + 1
        if chunks >= CHUNKS_AT_ONCE:
            yield batch
            batch, chunks = [], 0
    if batch:
        yield batch


def _below(model: type[Model]) -> Callable[[Contact], Iterator[Row]]:
    """Return a function that reads the table's rows of a contact's conversations."""
    key = "position" if model is Chunk else model._meta.pk.attname
    order = ["conversation_id", *([key] if key != "conversation_id" else [])]

    def found(contact: Contact) -> Iterator[Row]:
        every: QuerySet[Any, Any] = model._default_manager.values(*column_names(model, *LEFT_OUT))
        if model is Chunk:
            every = every.annotate(reads=corrected_text(contact.client_id))
        for conversation_ids in _conversation_batches(contact):
            yield from read_in_batches(
                every.filter(client=contact.client_id, conversation__in=conversation_ids),
                *order,
                batch=ROWS_AT_ONCE.get(model, BATCH),
            )

    return found


def _corrections(contact: Contact) -> Iterator[Row]:
    every = Correction.objects.values(*column_names(Correction), session=F("chunk__conversation_id"))
    for conversation_ids in _conversation_batches(contact):
        yield from read_in_batches(
            every.filter(client=contact.client_id, chunk__conversation__in=conversation_ids), "id"
        )


def _memories(contact: Contact) -> Iterator[Row]:
    """Yield memory's records of the person's conversations, without what was redacted since they were written."""
    known = Memory.objects.of(contact.client_id).filter(contact_id=contact.pk)
    for row in read_in_batches(
        known.values(*column_names(Memory, *LEFT_OUT)), "conversation_id", batch=ROWS_AT_ONCE[Memory]
    ):
        yield _without_redacted(row)


def _without_redacted(row: dict[str, Any]) -> Row:
    conversation_id = row["conversation_id"]
    redacted = Correction.objects.filter(client=row["client_id"], kind=Correction.Kind.REDACTION)
    redacted = redacted.filter(chunk__conversation=conversation_id)
    positions = set(redacted.values_list("chunk__position", flat=True))
    if not positions:
        return row
    for entry in row["transcript"]:
        if entry["position"] in positions:
            entry["content"] = REDACTED
    theirs = Conversation.objects.of(row["client_id"])
    if theirs.filter(pk=conversation_id, remember_due_at__isnull=False).exists():
        row["summary"] = REDACTED  # made before the redaction; it is being made again
    return row


def _vectors(contact: Contact) -> Iterator[Row]:
    for conversation_ids in _conversation_batches(contact):
        known = MemoryVector.objects.filter(client_id=contact.client_id, conversation_id__in=conversation_ids)
        yield from read_in_batches(known.values(*column_names(MemoryVector)), "vector_id")


# $1 the client, $2 the person's names, $3 the last row, $4 how many. A name must be a whole value in the payload: one
# number may be a part of another person's.
_INBOUND = """
    SELECT id FROM inbound_events
    WHERE client_id = $1 AND id > $3
      AND jsonb_path_exists(raw, '$.** ? (@ == $names[*])', jsonb_build_object('names', to_jsonb($2::text[])))
    ORDER BY id LIMIT $4"""


def _inbound_events(contact: Contact) -> Iterator[Row]:
    """Yield the provider events that name the person.

    The raw payload is left out of events whose message is in the chunks, and of events about several people, since the
    text may be another person's.
    """
    last, names = 0, _names(contact)
    while ids := [pk for (pk,) in rows(_INBOUND, contact.client_id, names, last, BATCH)]:
        for row in InboundEvent.objects.filter(pk__in=ids).order_by("id").values(*column_names(InboundEvent)):
            if row["settled_at"] or row["kind"] in (SEVERAL, WHOLE_REQUEST):
                row["raw"] = None
            yield row
        last = ids[-1]


def _names(contact: Contact) -> list[str]:
    """Return the names and addresses of the person in payloads, phones with and without their plus."""
    addresses = ContactIdentity.objects.filter(contact=contact).values_list("address", flat=True)
    aliases = contact.aliases.values_list("user_id", flat=True)
    names = {contact.user_id, contact.phone or "", *addresses, *aliases} - {""}
    return sorted(names | {name.removeprefix("+") for name in names})


def _staff_actions(contact: Contact) -> Iterable[Row]:
    ids = [str(pk) for pk in (contact.pk, *contact.aliases.values_list("pk", flat=True))]
    about = StaffAction.objects.filter(object_type="contact", object_id__in=ids)
    return read_in_batches(about.values(*column_names(StaffAction)), "id")


def _erasures(contact: Contact) -> Iterable[Row]:
    return read_in_batches(
        Erasure.objects.filter(client=contact.client_id, contact=contact.pk).values(*column_names(Erasure)),
        "begun_at",
        "id",
    )


def _matches(contact: Contact) -> Iterable[Row]:
    about = ContactMatch.objects.filter(Q(first=contact) | Q(second=contact), client=contact.client_id)
    return read_in_batches(about.values(*column_names(ContactMatch)), "id")


KINDS: Mapping[str, Callable[[Contact], Iterable[Row]]] = {
    "contact": _contact,
    "identities": _addresses,
    "sessions": _sessions,
    **{kind: _below(model) for kind, model in OF_CONVERSATION.items()},
    "corrections": _corrections,
    "memories": _memories,
    "vectors": _vectors,
    "matches": _matches,
    "inbound_events": _inbound_events,
    "staff_actions": _staff_actions,
    "erasures": _erasures,
}


def _facts(contact: Contact, at: datetime) -> dict[str, str]:
    """Return the page's facts about the person, by label."""
    opted_out = ", ".join(f"{channel} since {wish['since'][:10]}" for channel, wish in contact.opted_out.items())
    facts = {
        "Name": contact.shown_name,
        "Name by the channel": contact.name if contact.staff_name else "",
        "Phone": contact.phone or "",
        "E-mail": contact.email,
        "Language": language_name(contact.language),
        **({key: str(value) for key, value in contact.attributes.items()} if contact.attributes else {}),
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
