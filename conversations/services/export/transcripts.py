"""The transcript of a conversation as a document: JSON for programs, CSV for spreadsheets, a page to read or print."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conversations.models import Chunk, Conversation, Message, Role, corrected_text
from conversations.services.core.json import dumps
from conversations.services.export import pages
from conversations.services.export.reading import BATCH, ExportedMessage
from memory import services as memory

BYTE_ORDER_MARK = "\ufeff"  # without it spreadsheets do not read the file as UTF-8
CSV_COLUMNS = ("position", "at", "role", "by_staff", "text", "original", "delivery")
# A cell that begins with one of these is a formula to a spreadsheet, also in the full-width forms (OWASP, "CSV
# injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def message_batches(conversation: Conversation) -> Iterator[list[ExportedMessage]]:
    """Yield the conversation's messages in their order, in batches; an archived conversation's come from memory."""
    if conversation.archived_at:
        kept = memory.transcript(conversation.pk) or ()
        for start in range(0, len(kept), BATCH):
            yield [
                ExportedMessage(e.position, e.role, e.content, e.at, e.by_staff) for e in kept[start : start + BATCH]
            ]
        return
    chunks = Chunk.objects.filter(conversation=conversation).annotate(words=corrected_text()).order_by("position")
    names = ("pk", "position", "role", "words", "created_at", "author_id", "content")
    last = 0
    while batch := list(chunks.filter(position__gt=last).values_list(*names)[:BATCH]):
        deliveries = _deliveries([pk for pk, _, role, *_ in batch if role == Role.AI])
        yield [
            ExportedMessage(
                position, role, words, at, author is not None, None if words == text else text, deliveries.get(pk, ())
            )
            for pk, position, role, words, at, author, text in batch
        ]
        last = batch[-1][1]


def _deliveries(chunk_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = defaultdict(tuple)
    sent = Message.objects.filter(chunk__in=chunk_ids).order_by("chunk_id", "part")
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
        "contact": {"user_id": contact.user_id, "name": contact.name, "phone": contact.phone},
        "assistant": conversation.assistant.key if conversation.assistant else None,
        "goal": conversation.goal,
        "topic": conversation.topic,
        "summary": conversation.summary,
        "started_at": conversation.started_at,
        "last_message_at": conversation.last_message_at,
        "ended_at": conversation.ended_at,
        "ended_by": conversation.ended_by,
        "end_reason": conversation.end_reason,
        "steps": [{"description": step.description, "status": step.status} for step in conversation.steps.all()],
    }


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
    return chunk | {"delivery": list(entry.delivery)} if entry.delivery else chunk


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
