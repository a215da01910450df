"""The transcript of a conversation as a document: JSON for programs, CSV for spreadsheets, a page to read or print."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from conversations.models import (
    Attachment,
    Chunk,
    Conversation,
    ConversationEvent,
    Message,
    Rating,
    Role,
    corrected_text,
)
from conversations.services.core.json import dumps
from conversations.services.export import pages
from conversations.services.export.reading import BATCH, ExportedMessage
from conversations.services.history.beside import beside_chunks
from conversations.services.media import shown
from memory import services as memory

BYTE_ORDER_MARK = "\ufeff"  # without it spreadsheets do not read the file as UTF-8
CSV_COLUMNS = ("position", "at", "role", "by_staff", "text", "original", "delivery", "beside", "files")
# A cell that begins with one of these is a formula to a spreadsheet, also in the full-width forms (OWASP, "CSV
# injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def message_batches(conversation: Conversation) -> Iterator[list[ExportedMessage]]:
    """Yield the conversation's messages in their order, in batches; an archived conversation's come from memory."""
    if conversation.archived_at:
        kept = memory.transcript(conversation.client_id, conversation.pk) or ()
        for start in range(0, len(kept), BATCH):
            entries = kept[start : start + BATCH]
            files = shown.of_archived(conversation, [e.position for e in entries])
            yield [
                ExportedMessage(
                    *(e.position, e.role, e.content, e.at, e.by_staff), files=tuple(files.get(e.position, ()))
                )
                for e in entries
            ]
        return
    chunks = (
        Chunk.objects.filter(conversation=conversation)
        .annotate(words=corrected_text(conversation.client_id))
        .order_by("position")
    )
    last = 0
    while batch := list(chunks.filter(position__gt=last)[:BATCH]):
        deliveries = _deliveries(conversation.client_id, [chunk.pk for chunk in batch if chunk.role == Role.AI])
        notes = beside_chunks(conversation, batch)
        files = shown.of_chunks(conversation.client_id, [chunk.pk for chunk in batch])
        yield [
            ExportedMessage(
                position=chunk.position,
                role=chunk.role,
                text=chunk.words,
                at=chunk.created_at,
                by_staff=chunk.by_staff,
                original=None if chunk.words == chunk.content else chunk.content,
                delivery=deliveries.get(chunk.pk, ()),
                beside=notes[chunk.pk].about + notes[chunk.pk].after,
                files=tuple(files.get(chunk.pk, ())),
            )
            for chunk in batch
        ]
        last = batch[-1].position


def _deliveries(client_id: UUID, chunk_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = defaultdict(tuple)
    sent = Message.objects.filter(client=client_id, chunk__in=chunk_ids).order_by("chunk_id", "part")
    for chunk_id, status in sent.values_list("chunk_id", "status") if chunk_ids else ():
        found[chunk_id] += (status,)
    return found


# --- as JSON ---------------------------------------------------------------------------------------------------------
def as_json(conversation: Conversation) -> Iterator[bytes]:
    """Yield the pieces of one JSON object: the conversation with its contact, steps and corrected `chunks`."""
    yield dumps(_facts(conversation))[:-1] + b',"chunks":['
    separator = b""
    for batch in message_batches(conversation):
        yield separator + b",".join(dumps(_chunk(entry)) for entry in batch)
        separator = b","
    yield b"]}"


def as_api_response(conversation: Conversation) -> Iterator[bytes]:
    """Yield the same JSON in the API's envelope."""
    yield b'{"success":true,"data":'
    yield from as_json(conversation)
    yield b"}"


def _facts(conversation: Conversation) -> dict[str, Any]:
    contact = conversation.contact
    return {
        "id": conversation.pk,
        "client": conversation.client.sub_domain,
        "channel": conversation.channel,
        "status": conversation.status,
        "contact": {"user_id": contact.user_id, "name": contact.shown_name, "phone": contact.phone},
        "assistant": conversation.assistant.key if conversation.assistant else None,
        "goal": conversation.goal,
        "topic": conversation.topic,
        "summary": conversation.summary,
        "started_at": conversation.started_at,
        "last_message_at": conversation.last_message_at,
        "ended_at": conversation.ended_at,
        "ended_by": conversation.ended_by,
        "end_reason": conversation.end_reason,
        "disclosed": _disclosed(conversation),
        "rating": _rating(conversation),
        "steps": [{"description": step.description, "status": step.status} for step in conversation.steps.all()],
    }


_RATED = ("score", "scale", "asked_at", "rated_at", "comment")


def _rating(conversation: Conversation) -> dict[str, Any] | None:
    """Return the person's rating, None where they were not asked."""
    found = Rating.objects.filter(client=conversation.client_id, conversation=conversation)
    rating = found.first()
    return {name: getattr(rating, name) for name in _RATED} if rating else None


def _disclosed(conversation: Conversation) -> list[dict[str, Any]]:
    """Return when, at which position and in which words the assistant said that it is a machine."""
    said = ConversationEvent.objects.filter(conversation=conversation, kind="disclosed").order_by("id")
    return [
        {"at": each.created_at, "position": each.data.get("position"), "sentence": each.data.get("sentence", "")}
        for each in said
    ]


def _chunk(entry: ExportedMessage) -> dict[str, Any]:
    chunk: dict[str, Any] = {
        "position": entry.position,
        "role": entry.role,
        "content": entry.text,
        "by_staff": entry.by_staff,
        "created_at": entry.at,
    }
    if entry.original is not None:
        chunk["original"] = entry.original
    if entry.beside:
        chunk["beside"] = list(entry.beside)
    if entry.files:
        chunk["attachments"] = [_file(row) for row in entry.files]
    return chunk | {"delivery": list(entry.delivery)} if entry.delivery else chunk


def _file(row: Attachment) -> dict[str, Any]:
    return {
        "id": row.pk,
        "type": row.kind,
        "state": row.state,
        "name": shown.safe_name(row),
        "content_type": row.content_type,
        "size": row.size,
        "sha256": row.sha256,
    }


# --- as CSV ----------------------------------------------------------------------------------------------------------
def as_csv(conversation: Conversation) -> Iterator[bytes]:
    """Yield the transcript as CSV, a line for each message: UTF-8 with a byte order mark, without formulas."""
    yield (BYTE_ORDER_MARK + _csv_lines([CSV_COLUMNS])).encode()
    for batch in message_batches(conversation):
        yield _csv_lines(_cells(entry) for entry in batch).encode()


def _cells(entry: ExportedMessage) -> tuple[str, ...]:
    return (
        str(entry.position),
        entry.at.isoformat(timespec="seconds"),
        entry.role,
        "yes" if entry.by_staff else "",
        without_formula(entry.text),
        without_formula(entry.original or ""),
        " ".join(entry.delivery),
        without_formula("; ".join(entry.beside)),
        without_formula("; ".join(entry.files_in_words)),
    )


def without_formula(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip(" \u00a0\u200b\ufeff").startswith(FORMULA) else text


def _csv_lines(lines: Any) -> str:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(lines)
    return written.getvalue()


# --- as a page -------------------------------------------------------------------------------------------------------
def as_page(conversation: Conversation) -> Iterator[bytes]:
    """Yield the transcript as an HTML page to read or print, which loads nothing else."""
    yield pages.begin_page(f"{conversation.contact} on {conversation.channel}")
    yield from page_section(conversation)
    yield pages.end_page()


def page_section(conversation: Conversation) -> Iterator[bytes]:
    """Yield the conversation as a section of a page."""
    yield pages.begin_conversation(conversation)
    for batch in message_batches(conversation):
        yield pages.message_list(batch)
    yield pages.end_conversation()


# --- formats ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Format:
    """A format of transcripts. `is_shown`: a browser shows the file instead of saving it."""

    pieces: Callable[[Conversation], Iterator[bytes]]
    ending: str
    content_type: str
    is_shown: bool = False

    def file_of(self, conversation: Conversation) -> dict[str, Any]:
        """Return the arguments of `http.downloads.Download` for the conversation's transcript."""
        return {
            "pieces": self.pieces(conversation),
            "name": f"transcript-{conversation.pk}.{self.ending}",
            "content_type": self.content_type,
            "shown": self.is_shown,
        }


FORMATS = {
    "json": Format(as_api_response, "json", "application/json"),
    "csv": Format(as_csv, "csv", "text/csv; charset=utf-8"),
    "html": Format(as_page, "html", "text/html; charset=utf-8", is_shown=True),
}
