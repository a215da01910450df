"""Arriving files: the rows of a message's files, written in the transaction that stores the message.

Messages without files cost no statement. The files are fetched afterwards (`claims.py`, `fetching.py`). A reply waits
for those that its assistant can see or hear, or its own agent can fetch, up to MEDIA_REPLY_SECONDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings

from channels_out.events import MediaReference
from channels_out.kinds import MediaKind
from conversations.models import Attachment, Client
from conversations.services.core.redaction import rules_of
from conversations.services.core.sql import rows
from conversations.services.media.fetching import Fetch, Fetched, facts_of
from memory.language_models import choosing

MOST_OF_MESSAGE = 20
LONGEST_SOURCE = 4_096
SPOKEN = (MediaKind.AUDIO, MediaKind.VOICE, MediaKind.VIDEO)
SEEN = [MediaKind.IMAGE.value, MediaKind.STICKER.value, MediaKind.DOCUMENT.value]
T = Attachment.Transcription

_INSERT = """
    INSERT INTO attachments
        (id, client_id, conversation_id, chunk_id, channel_account_id, number, kind, source, content_type, name,
         transcription, due_at, created_at, reply_waits_until)
    SELECT m.id, $1, k.conversation_id, k.id, $2, m.number, m.kind, m.source, m.content_type, m.name,
           m.transcription, $3, $3, CASE WHEN m.transcription <> '' OR EXISTS (
               SELECT FROM conversations s JOIN assistants a ON a.id = s.assistant_id
               WHERE s.client_id = $1 AND s.id = k.conversation_id
                 AND (a.engine = 'agent' OR a.sees_files AND m.kind = ANY ($13::text[]))) THEN $4::timestamptz END
    FROM unnest($5::uuid[], $6::bigint[], $7::int[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[])
        AS m (id, chunk_id, number, kind, source, content_type, name, transcription)
    JOIN conversation_chunks k ON k.client_id = $1 AND k.id = m.chunk_id
    RETURNING id"""


def write(
    client: Client, account_id: UUID | None, of_chunks: Iterable[tuple[int, Sequence[MediaReference]]], now: datetime
) -> None:
    """Write the rows of the files of new chunks, in one statement. Call it in the transaction that wrote the chunks.

    of_chunks: the chunk's id and its files; those beyond MOST_OF_MESSAGE are left out
    """
    rules, heard = rules_of(client), T.WANTED.value if transcribes(client) else T.NONE.value
    found: list[tuple[Any, ...]] = [
        (
            *(uuid4(), chunk_id, number, each.kind.value, each.source, each.content_type, rules.clean(each.name)),
            heard if each.kind in SPOKEN else T.NONE.value,
        )
        for chunk_id, media in of_chunks
        for number, each in enumerate(media[:MOST_OF_MESSAGE])
        if len(each.source) <= LONGEST_SOURCE
    ]
    if found:
        waits_until = now + timedelta(seconds=settings.MEDIA_REPLY_SECONDS)
        rows(_INSERT, client.pk, account_id, now, waits_until, *map(list, zip(*found, strict=True)), SEEN)


def write_ours(
    client_id: UUID,
    conversation_id: UUID,
    chunk_id: int | None,
    files: Sequence[tuple[str, str]],
    now: datetime,
    *,
    first: int = 0,
    call: UUID | None = None,
) -> list[Attachment]:
    """Write the rows of files (URL, name) that our new chunk sends, and return them. They are fetched like others.

    Call it in the transaction that wrote the chunk.

    chunk_id: None for files of a tool's answer, whose reply is not written yet
    first: the number of the first of them
    call: the tool call that gave them
    """
    attachments = [
        Attachment(
            client_id=client_id,
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            number=number,
            kind=MediaKind.DOCUMENT,
            source=url,
            name=name,
            call=call,
            due_at=now,
            created_at=now,
        )
        for number, (url, name) in enumerate(files, start=first)
    ]
    return Attachment.objects.bulk_create(attachments)


def write_uploaded(
    client_id: UUID,
    conversation_id: UUID,
    chunk_id: int | None,
    kept: Sequence[tuple[Fetch, Fetched]],
    now: datetime,
    *,
    call: UUID | None = None,
) -> list[Attachment]:
    """Write the rows of files of our new chunk, or of a tool's answer, that are in the storage already.

    Returns them.
    """
    attachments = [
        Attachment(
            id=place.attachment_id,
            client_id=client_id,
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            number=number,
            name=place.name,
            call=call,
            created_at=now,
            ended_at=now,
            **facts_of(place, fetched),
        )
        for number, (place, fetched) in enumerate(kept)
    ]
    return Attachment.objects.bulk_create(attachments)


def transcribes(client: Client) -> bool:
    """Return whether what is said in the client's recordings is to be written down."""
    return client.transcribes and (client.transcription_provider_id is not None or choosing.is_configured())
