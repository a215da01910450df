"""Remembering: give an ended conversation its final summary and put its transcript into global memory.

Closing sets `remember_due_at`. A worker claims what is due, and tries again later if a model or a store is away. Every
step may be repeated: memory keeps one record for each conversation, under its id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from conversations.models import Conversation, Step, corrected_text
from conversations.services.core import redaction
from conversations.services.core.backoff import backoff
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.sql import column
from memory import services as memory
from memory.models import Memory
from memory.records import ConversationRecord, TranscriptEntry

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
SUMMARY_ATTEMPTS = 5  # after which a summary is an extract, if the model's answers are paid for and of no use

# The lease is the due time itself: if a worker dies, its conversation is claimed again when that time has passed.
# Materialised: a sub-select that locks may run again for each row it is joined to, and would claim several.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM conversations WHERE remember_due_at <= $1
        ORDER BY remember_due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE conversations s
    SET remember_due_at = $2, remember_attempts = LEAST(s.remember_attempts + 1, 1000)
    FROM due WHERE s.id = due.id
    RETURNING s.id"""


def remember_ended(seconds: float = 300) -> int:
    """Remember the due conversations, one after the other, for at most `seconds`. Returns how many were remembered."""
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        done += remember(claimed[0])
    return done


def count_pending() -> int:
    """Return how many ended conversations are waiting to be remembered."""
    return Conversation.objects.filter(remember_due_at__isnull=False).count()


def remember(conversation_id: UUID) -> bool:
    """Put the due conversation into global memory and store its final summary. Returns whether that was done.

    If a model or a store fails, the conversation gets the error and the time of the next attempt.
    """
    due = Conversation.objects.select_related("client").filter(pk=conversation_id, remember_due_at__isnull=False)
    conversation = due.first()
    if conversation is None:
        return False
    try:
        if conversation.remembered_at and not conversation.summary:
            memory.forget(conversation_id)  # its texts were redacted: the old record must not survive
        is_last_try = conversation.remember_attempts >= SUMMARY_ATTEMPTS
        remembered = memory.remember(_record(conversation), is_last_try=is_last_try)
    except Exception as error:
        log.warning("not remembered yet: conversation=%s error=%s", conversation_id, _word(error))
        _postpone(conversation, error)
        return False
    if not Conversation.objects.filter(pk=conversation_id).exists():
        memory.forget(conversation_id)  # the person was erased meanwhile
        return False
    with transaction.atomic():
        # Only if it is still due: another worker may have remembered it after our lease. And only if it still is the
        # same contact's: after a merger it stays due, and is remembered as the other's.
        still = Conversation.objects.filter(pk=conversation_id, contact=conversation.contact_id)
        changed = still.filter(remember_due_at__isnull=False).update(
            summary=remembered.summary, remembered_at=timezone.now(), remember_due_at=None, remember_error=""
        )
        if changed:
            record(conversation_id, "remembered", SYSTEM, cause=remembered.summary_kind)
    return bool(changed)


def _record(conversation: Conversation) -> ConversationRecord:
    open_steps = conversation.steps.filter(status=Step.Status.PENDING)
    return ConversationRecord(
        conversation_id=conversation.pk,
        client_id=conversation.client_id,
        contact_id=conversation.contact_id,
        channel=conversation.channel,
        started_at=conversation.started_at,
        ended_at=conversation.ended_at or timezone.now(),
        entries=_entries(conversation),
        goal=conversation.goal,
        summary_so_far=conversation.summary,
        open_points=list(open_steps.values_list("description", flat=True)),
        summary=conversation.summary if conversation.remembered_at and summary_is_by_staff(conversation) else "",
        rules=redaction.rules_of(conversation.client),
    )


def _entries(conversation: Conversation) -> Sequence[TranscriptEntry]:
    """Return the transcript with corrections; of an archived conversation, the one that memory has already."""
    if conversation.archived_at:
        return memory.transcript(conversation.pk) or ()
    said = conversation.chunks.annotate(words=corrected_text()).order_by("position")
    columns = said.values_list("position", "role", "words", "created_at", "author_id")
    return [
        TranscriptEntry(position=position, role=role, content=words, at=at, by_staff=author is not None)
        for position, role, words, at, author in columns
    ]


def summary_is_by_staff(conversation: Conversation) -> bool:
    """Return whether staff wrote the summary of the remembered conversation, or changed it since."""
    kept = Memory.objects.filter(pk=conversation.pk).values_list("summary", "summary_kind").first()
    return kept is not None and (kept[1] == "staff" or kept[0] != conversation.summary)


def _postpone(conversation: Conversation, error: Exception) -> None:
    due_at = timezone.now() + backoff(conversation.remember_attempts, getattr(error, "retry_after", None))
    Conversation.objects.filter(pk=conversation.pk, remember_due_at__isnull=False).update(
        remember_due_at=due_at, remember_error=_word(error)[:200]
    )


def _word(error: Exception) -> str:
    """Return the error's code, or its class. Its sentence is not stored: it may quote a message."""
    return str(getattr(error, "code", "") or type(error).__name__)
