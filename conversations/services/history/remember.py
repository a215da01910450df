"""What an ended session leaves: its final summary, and its transcript in global memory.

The end says that it is due (`remember_due_at`); whoever claims it does it, and tries again later where a model or a
store is away. Every step may be repeated: memory keeps one record a session, under its id.
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

# The lease is the due time itself: whoever dies with it leaves it to be claimed when that has passed.
# Materialised: a sub-select that locks may be run again for each row it is joined to, and would claim several.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM conversations WHERE remember_due_at <= $1
        ORDER BY remember_due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE conversations s
    SET remember_due_at = $2, remember_attempts = s.remember_attempts + 1
    FROM due WHERE s.id = due.id
    RETURNING s.id"""


def remember_ended(seconds: float = 300) -> int:
    """Whatever is due is remembered, one session after the other, for so long. Returns how many were."""
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        done += remember(claimed[0])
    return done


def pending() -> int:
    """How many ended sessions are not remembered yet."""
    return Conversation.objects.filter(remember_due_at__isnull=False).count()


def remember(conversation_id: UUID) -> bool:
    """The ended session is in global memory and has its final summary; or says why not, and when it is tried again."""
    due = Conversation.objects.select_related("client").filter(pk=conversation_id, remember_due_at__isnull=False)
    conversation = due.first()
    if conversation is None:
        return False
    try:
        if conversation.remembered_at and not conversation.summary:
            memory.forget(conversation_id)  # what it was made from was redacted: no word of it may survive in the old
        remembered = memory.remember(_record(conversation))
    except Exception as error:
        log.warning("not remembered yet: conversation=%s error=%s", conversation_id, _word(error))
        _postpone(conversation, error)
        return False
    if not Conversation.objects.filter(pk=conversation_id).exists():
        memory.forget(conversation_id)  # the person was erased meanwhile
        return False
    with transaction.atomic():
        # Only if it is still due: it may have been remembered by another after our lease. And only as the person's that
        # it still is: after a merger it stays due, and is remembered as the other's.
        still = Conversation.objects.filter(pk=conversation_id, contact=conversation.contact_id)
        changed = still.filter(remember_due_at__isnull=False).update(
            summary=remembered.summary, remembered_at=timezone.now(), remember_due_at=None, remember_error=""
        )
        if changed:
            record(conversation_id, "remembered", SYSTEM, cause=remembered.summary_kind)
    return bool(changed)


def _record(conversation: Conversation) -> ConversationRecord:
    pending = conversation.steps.filter(status=Step.Status.PENDING)
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
        open_points=list(pending.values_list("description", flat=True)),
        summary=conversation.summary if conversation.remembered_at and summary_is_staffs(conversation) else "",
        rules=redaction.rules_of(conversation.client),
    )


def _entries(conversation: Conversation) -> Sequence[TranscriptEntry]:
    """The transcript as it is to be read; of an archived session, as memory has it already."""
    if conversation.archived_at:
        return memory.transcript(conversation.pk) or ()
    said = conversation.chunks.annotate(words=corrected_text()).order_by("position")
    columns = said.values_list("position", "role", "words", "created_at", "author_id")
    return [
        TranscriptEntry(position=position, role=role, content=words, at=at, by_staff=author is not None)
        for position, role, words, at, author in columns
    ]


def summary_is_staffs(conversation: Conversation) -> bool:
    """Whether a person wrote the summary of the remembered session, or changed it since."""
    kept = Memory.objects.filter(pk=conversation.pk).values_list("summary", "summary_kind").first()
    return kept is not None and (kept[1] == "staff" or kept[0] != conversation.summary)


def _postpone(conversation: Conversation, error: Exception) -> None:
    due_at = timezone.now() + backoff(conversation.remember_attempts, getattr(error, "retry_after", None))
    Conversation.objects.filter(pk=conversation.pk, remember_due_at__isnull=False).update(
        remember_due_at=due_at, remember_error=_word(error)[:200]
    )


def _word(error: Exception) -> str:
    """The error's code, or its class: its sentence may quote what somebody wrote."""
    return str(getattr(error, "code", "") or type(error).__name__)
