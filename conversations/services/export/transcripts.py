"""A session's transcript as a document: JSON for programs, CSV for spreadsheets, a page for people and paper."""

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

BYTE_ORDER_MARK = "\ufeff"  # without it spreadsheets take UTF-8 for something else
CSV_COLUMNS = ("position", "at", "role", "by_staff", "text", "original", "delivery")
# What a spreadsheet takes for a formula, also in the wide forms that it reads like them (OWASP, "CSV injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def entries(session: Conversation) -> Iterator[list[ExportedMessage]]:
    """The session's entries in their order, in batches; of an archived session, as global memory has them."""
    if session.archived_at:
        kept = memory.transcript(session.pk) or ()
        for start in range(0, len(kept), BATCH):
            yield [
                ExportedMessage(e.position, e.role, e.content, e.at, e.by_staff) for e in kept[start : start + BATCH]
            ]
        return
    chunks = Chunk.objects.filter(conversation=session).annotate(words=corrected_text()).order_by("position")
    names = ("pk", "position", "role", "words", "created_at", "author_id", "content")
    last = 0
    while batch := list(chunks.filter(position__gt=last).values_list(*names)[:BATCH]):
        deliveries = _deliveries([pk for pk, _, role, *_ in batch if role == Role.AI])
        yield [
            ExportedMessage(
                position, role, words, at, author is not None, None if words == said else said, deliveries.get(pk, ())
            )
            for pk, position, role, words, at, author, said in batch
        ]
        last = batch[-1][1]


def _deliveries(chunk_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = defaultdict(tuple)
    sent = Message.objects.filter(chunk__in=chunk_ids).order_by("chunk_id", "part")
    for chunk_id, status in sent.values_list("chunk_id", "status") if chunk_ids else ():
        found[chunk_id] += (status,)
    return found


# --- as JSON ---------------------------------------------------------------------------------------------------------
def as_json(session: Conversation) -> Iterator[bytes]:
    """The pieces of one JSON object: the session with its contact, steps, and `chunks` as they should be read."""
    yield dumps(_facts(session))[:-1] + b',"chunks":['
    separator = b""
    for batch in entries(session):
        yield separator + b",".join(dumps(_chunk(entry)) for entry in batch)
        separator = b","
    yield b"]}"


def in_envelope(session: Conversation) -> Iterator[bytes]:
    """The same, as the API answers."""
    yield b'{"success":true,"data":'
    yield from as_json(session)
    yield b"}"


def _facts(session: Conversation) -> dict[str, Any]:
    contact = session.contact
    return {
        "id": session.pk,
        "client": session.client.sub_domain,
        "channel": session.channel,
        "status": session.status,
        "contact": {"user_id": contact.user_id, "name": contact.name, "phone": contact.phone},
        "assistant": session.assistant.key if session.assistant else None,
        "goal": session.goal,
        "topic": session.topic,
        "summary": session.summary,
        "started_at": session.started_at,
        "last_message_at": session.last_message_at,
        "ended_at": session.ended_at,
        "ended_by": session.ended_by,
        "end_reason": session.end_reason,
        "steps": [{"description": step.description, "status": step.status} for step in session.steps.all()],
    }


def _chunk(entry: ExportedMessage) -> dict[str, Any]:
    said: dict[str, Any] = {
        "position": entry.position,
        "role": entry.role,
        "content": entry.text,
        "by_staff": entry.by_staff,
        "created_at": entry.at,
    }
    if entry.original is not None:
        said["original"] = entry.original
    return said | {"delivery": list(entry.delivery)} if entry.delivery else said


# --- as CSV ----------------------------------------------------------------------------------------------------------
def as_csv(session: Conversation) -> Iterator[bytes]:
    """A line for each entry, for a spreadsheet: UTF-8 with its mark, and nothing that is taken for a formula."""
    yield (BYTE_ORDER_MARK + _csv_lines([CSV_COLUMNS])).encode()
    for batch in entries(session):
        yield _csv_lines(_cells(entry) for entry in batch).encode()


def _cells(entry: ExportedMessage) -> tuple[str, ...]:
    return (
        str(entry.position),
        entry.at.isoformat(timespec="seconds"),
        entry.role,
        "yes" if entry.by_staff else "",
        harmless(entry.text),
        harmless(entry.original or ""),
        " ".join(entry.delivery),
    )


def harmless(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.lstrip(" \u00a0\u200b\ufeff").startswith(FORMULA) else text


def _csv_lines(lines: Any) -> str:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(lines)
    return written.getvalue()


# --- as a page -------------------------------------------------------------------------------------------------------
def as_page(session: Conversation) -> Iterator[bytes]:
    """A page of its own, which asks for nothing else, to be read on a screen or printed."""
    yield pages.begin(f"{session.contact} on {session.channel}")
    yield from section(session)
    yield pages.end()


def section(session: Conversation) -> Iterator[bytes]:
    """The session as a part of a page."""
    yield pages.session(session)
    for batch in entries(session):
        yield pages.entries(batch)
    yield pages.end_of_session()


# --- what there is ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript down. `is_shown`: a browser shows it, rather than keeping a file."""

    pieces: Callable[[Conversation], Iterator[bytes]]
    ending: str
    content_type: str
    is_shown: bool = False

    def file_of(self, session: Conversation) -> dict[str, Any]:
        """The session's transcript, for http/downloads.py."""
        return {
            "pieces": self.pieces(session),
            "name": f"transcript-{session.pk}.{self.ending}",
            "content_type": self.content_type,
            "shown": self.is_shown,
        }


FORMATS = {
    "json": Format(in_envelope, "json", "application/json"),
    "csv": Format(as_csv, "csv", "text/csv; charset=utf-8"),
    "html": Format(as_page, "html", "text/html; charset=utf-8", is_shown=True),
}
