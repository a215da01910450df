"""Transcripts: what is said in a recording is written down, before the reply if that is in time.

    fetching.record_fetched ─► begin (rows) ─► write_down (waits for the provider) ─► record (rows)

The message then reads as "[voice] Transcript: …", by a correction: prompts, search, memory and exports read messages by
them. A reply that is being written without it begins anew. It is safe to repeat.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from conversations.models import Attachment, Chunk, Conversation, Correction, Turn
from conversations.services.core import files, redaction
from conversations.services.core.backoff import backoff
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import editing_if_there, lock_contact_of
from conversations.services.media import content
from conversations.services.media.fetching import ended, ours
from conversations.services.tenants import model_providers
from conversations.services.transitions.changed_text import note_changed_text
from memory.language_models import transcription
from memory.language_models.choosing import Purpose
from memory.language_models.contract import LLMError, ModelAccess

log = logging.getLogger(__name__)

TRIES = 3
REASON = "transcript"  # of the correction
MARK = "Transcript: "
T = Attachment.Transcription


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to be written down now: all that the network call needs, nothing of the database."""

    client_id: UUID
    attachment_id: UUID
    token: UUID
    tries: int
    access: ModelAccess
    file: str
    name: str


def begin(client_id: UUID, attachment_id: UUID, token: UUID, now: datetime) -> Recording | None:
    """Return what it takes to write the claimed recording down. None if the claim was lost, or nothing is to be done.

    Where no provider is configured any more, or it was tried often enough, the recording stays without a transcript.
    """
    found = ours(client_id, attachment_id, token).first()
    if found is None or found.state != Attachment.State.READY:
        return None
    access = model_providers.access_for(client_id, Purpose.TRANSCRIPTION)
    too_large = (found.size or 0) > transcription.MOST_BYTES
    if access is None or too_large or found.tries > TRIES:
        _give_up(client_id, attachment_id, token, "too_large" if too_large else "no_transcription", now)
        return None
    name = f"recording{content.ENDINGS.get(found.content_type, '.bin')}"
    return Recording(client_id, attachment_id, token, found.tries, access, found.file, name)


def write_down(recording: Recording) -> str | LLMError:
    """Return what is said in the recording, or the error."""
    try:
        sound = b"".join(files.blocks(recording.file))
        seconds = min(recording.access.seconds, settings.MEDIA_FETCH_SECONDS)
        return transcription.transcribe(recording.access, sound, recording.name, seconds=seconds)
    except LLMError as error:
        return error
    except Exception as error:
        log.exception("recording not read: attachment=%s", recording.attachment_id)
        return LLMError("The recording could not be read.", code=type(error).__name__[:40], retryable=True)


def record_written(recording: Recording, text: str, now: datetime) -> None:
    """Let the message read with the transcript, cleaned by the client's redaction rules."""
    attachment = ours(recording.client_id, recording.attachment_id, recording.token).first()
    if attachment is None:
        return
    with transaction.atomic():
        lock_contact_of(attachment.conversation_id, recording.client_id)
        with editing_if_there(attachment.conversation_id, recording.client_id) as conversation:
            mine = ours(recording.client_id, recording.attachment_id, recording.token)
            if conversation is None or not mine.update(transcription=T.DONE, code="", **ended(now)):
                return
            chunk = conversation.chunks.filter(pk=attachment.chunk_id or 0).first()
            if chunk and text:
                _let_read(conversation, chunk, text, now)


def record_failed(recording: Recording, error: LLMError, now: datetime) -> None:
    """Record that the recording could not be written down: it is tried again soon, or stays without a transcript."""
    if error.retryable and recording.tries < TRIES:
        due_at = now + backoff(recording.tries, error.retry_after)
        mine = ours(recording.client_id, recording.attachment_id, recording.token)
        mine.update(due_at=due_at, claim=None, code=error.code[:40])
    else:
        _give_up(recording.client_id, recording.attachment_id, recording.token, error.code, now)


def _let_read(conversation: Conversation, chunk: Chunk, text: str, now: datetime) -> None:
    """Let the message read with the transcript after its own words, unless it is redacted or deleted."""
    done = list(Correction.objects.filter(chunk=chunk))
    if any(each.kind == Correction.Kind.REDACTION for each in done) or _is_deleted(chunk):
        return
    clean = redaction.rules_of(conversation.client).clean
    words = f"{done[-1].text if done else chunk.content} {MARK}{clean(text)}"
    Correction.objects.create(
        chunk=chunk, kind=Correction.Kind.CORRECTION, text=words, reason=REASON, author_name="", created_at=now
    )
    Turn.objects.filter(conversation=conversation, status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code=REASON
    )
    note_changed_text(conversation, chunk.position, now)
    record(conversation, "transcribed", SYSTEM, cause=f"message {chunk.position}", position=chunk.position)


def _is_deleted(chunk: Chunk) -> bool:
    return chunk.activities.filter(kind="deletion").exists()


def _give_up(client_id: UUID, attachment_id: UUID, token: UUID, code: str, now: datetime) -> None:
    ours(client_id, attachment_id, token).update(transcription=T.FAILED, code=code[:40], **ended(now))
    log.info("no transcript: attachment=%s code=%s", attachment_id, code)
