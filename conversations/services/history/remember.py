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

from conversations import log_context
from conversations.models import COLLEAGUE, Conversation, Step, corrected_text, is_by_staff
from conversations.services.core import redaction
from conversations.services.core.backoff import backoff
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.rotation import Waiting, in_rotation
from conversations.services.core.sql import row
from conversations.services.transitions.changed_text import summary_is_by_staff
from memory import services as memory
from memory.records import ConversationRecord, TranscriptEntry

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
SUMMARY_ATTEMPTS = 5  # after which a summary is an extract, if the model's answers are paid for and of no use

_CLIENTS = Waiting(
    *("conversations", "client_id", "remember_due_at IS NOT NULL"),
    """
    SELECT c.id, c.weight
    FROM {each} (SELECT id, weight FROM clients WHERE id = {id} OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT s.id FROM conversations s WHERE s.client_id = {client} AND s.remember_due_at <= $1 LIMIT 1) AS due""",
)
# The lease is the due time itself: if a worker dies, its conversation is claimed again when that time has passed.
# Materialised: a sub-select that locks may run again for each row it is joined to, and would claim several.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM conversations WHERE client_id = $3 AND remember_due_at <= $1
        ORDER BY remember_due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE conversations s
    SET remember_due_at = $2, remember_attempts = LEAST(s.remember_attempts + 1, 1000)
    FROM due WHERE s.client_id = $3 AND s.id = due.id
    RETURNING s.client_id, s.id"""


def remember_ended(seconds: float = 300) -> int:
    """Remember the due conversations, one after the other, for at most `seconds`. Returns how many were remembered.

    Clients take turns, so that nobody's memory waits for another's backlog.
    """
    done, until = 0, time.monotonic() + seconds
    for client_id, conversation_id in in_rotation(_clients, _claim, until):
        with log_context.about(conversation=conversation_id):
            done += remember(client_id, conversation_id)
    return done


def _clients() -> list[tuple[UUID, int]]:
    """Return the clients that have something to be remembered, with their weights."""
    return [(pk, weight) for pk, weight in _CLIENTS.rows(timezone.now())]


def _claim(client_id: UUID) -> tuple[UUID, UUID] | None:
    """Claim the client's conversation that is due longest, and return the client's id and its own."""
    now = timezone.now()
    found = row(_CLAIM, now, now + LEASE, client_id)
    return (found[0], found[1]) if found else None


def count_pending() -> int:
    """Return how many ended conversations are waiting to be remembered."""
    return Conversation.objects.filter(remember_due_at__isnull=False).count()


def remember(client_id: UUID, conversation_id: UUID) -> bool:
    """Put the due conversation into global memory and store its final summary. Returns whether that was done.

    If a model or a store fails, the conversation gets the error and the time of the next attempt.
    """
    theirs = Conversation.objects.of(client_id).filter(pk=conversation_id)
    conversation = theirs.select_related("client").filter(remember_due_at__isnull=False).first()
    if conversation is None:
        return False
    try:
        if conversation.remembered_at and not conversation.summary:
            memory.forget(client_id, conversation_id)  # its texts were redacted: the old record must not survive
        is_last_try = conversation.remember_attempts >= SUMMARY_ATTEMPTS
        remembered = memory.remember(_record(conversation), is_last_try=is_last_try)
    except Exception as error:
        log.warning("not remembered yet: conversation=%s error=%s", conversation_id, _word(error))
        _postpone(conversation, error)
        return False
    if not theirs.exists():
        memory.forget(client_id, conversation_id)  # the person was erased meanwhile
        return False
    with transaction.atomic():
        # Only if it is still due: another worker may have remembered it after our lease. And only if it still is the
        # same contact's: after a merger it stays due, and is remembered as the other's.
        still = theirs.filter(contact=conversation.contact_id)
        changed = still.filter(remember_due_at__isnull=False).update(
            summary=remembered.summary, remembered_at=timezone.now(), remember_due_at=None, remember_error=""
        )
        if changed:
            record(conversation, "remembered", SYSTEM, cause=remembered.summary_kind)
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
        return memory.transcript(conversation.client_id, conversation.pk) or ()
    said = conversation.chunks.annotate(words=corrected_text(conversation.client_id)).order_by("position")
    columns = said.values_list("position", "role", "words", "created_at", "author_id", f"metadata__{COLLEAGUE}")
    return [
        TranscriptEntry(position=position, role=role, content=words, at=at, by_staff=is_by_staff(role, author, app))
        for position, role, words, at, author, app in columns
    ]


def _postpone(conversation: Conversation, error: Exception) -> None:
    due_at = timezone.now() + backoff(conversation.remember_attempts, getattr(error, "retry_after", None))
    Conversation.objects.of(conversation.client_id).filter(pk=conversation.pk, remember_due_at__isnull=False).update(
        remember_due_at=due_at, remember_error=_word(error)[:200]
    )


def _word(error: Exception) -> str:
    """Return the error's code, or its class. Its sentence is not stored: it may quote a message."""
    return str(getattr(error, "code", "") or type(error).__name__)
