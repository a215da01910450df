"""The rolling summary: a background task summarises messages that have left the prompt; no reply waits for it.

reply: messages left the prompt ─► the row is due ─► task: claim ─► model (no transaction) ─► write, unless changed
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from conversations import log_context
from conversations.models import COLLEAGUE, SAID, Assistant, Conversation, RollingSummary, corrected_text, is_by_staff
from conversations.queue import enqueue
from conversations.services.core import redaction
from conversations.services.core.backoff import backoff
from conversations.services.core.cluster import exists, rows_over_all
from conversations.services.core.locking import editing_if_there
from conversations.services.core.rotation import in_rotation
from conversations.services.core.sql import row
from conversations.services.tenants import model_providers
from memory import summaries
from memory.language_models import choosing
from memory.language_models.choosing import Purpose
from memory.language_models.contract import LLMError
from memory.records import TranscriptEntry

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
ATTEMPTS = 5  # after which notes are made of quotations, if the model's answers are paid for and of no use
ABSORB_FROM = 10  # messages older than the history; fewer stay in the prompt
MOST_UNSUMMARISED = 40  # messages older than the history that a prompt shows at most until they are summarised
BATCH = 50  # messages that one call to the model absorbs at most

_CLIENTS = """
    SELECT c.id, c.weight
    FROM (SELECT DISTINCT r.client_id AS id FROM conversation_summaries r WHERE {only:r} AND r.due_at <= $1) w
    JOIN clients c ON c.id = w.id"""
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT r.conversation_id FROM conversation_summaries r
        WHERE r.client_id = $3 AND r.due_at <= $1
        ORDER BY r.due_at LIMIT 1 FOR UPDATE OF r SKIP LOCKED)
    UPDATE conversation_summaries s
    SET due_at = $2, attempts = LEAST(s.attempts + 1, 1000)
    FROM due WHERE s.client_id = $3 AND s.conversation_id = due.conversation_id
    RETURNING s.client_id, s.conversation_id"""

_ASK = """
    INSERT INTO conversation_summaries (client_id, conversation_id, upto, wanted, version, due_at, attempts, error)
    SELECT client_id, id, 0, $2, 0, now(), 0, '' FROM conversations WHERE client_id = $3 AND id = $1
    ON CONFLICT (client_id, conversation_id) DO UPDATE
    SET wanted = GREATEST(conversation_summaries.wanted, EXCLUDED.wanted),
        due_at = COALESCE(conversation_summaries.due_at, EXCLUDED.due_at)
    RETURNING conversation_id"""


def can_summarise(conversation: Conversation, assistant: Assistant | None) -> bool:
    """Return whether a model is configured that writes the conversation's summary.

    Without one the prompt has the newest messages and says how many it leaves out.
    """
    return model_providers.can_summarise(conversation.client, assistant)


def request_summary(conversation: Conversation, wanted: int) -> None:
    """Have the messages up to the position `wanted` summarised soon. Asking twice does no more than once."""
    rolling = conversation.rolling
    if rolling and rolling.due_at and rolling.wanted >= wanted:
        return
    with transaction.atomic():
        if row(_ASK, conversation.pk, wanted, conversation.client_id) and not (rolling and rolling.due_at):
            enqueue("summarise")


def is_pending() -> bool:
    """Return whether any conversation waits for its summary."""
    return exists(RollingSummary.objects.filter(due_at__isnull=False))


def summarise_due(seconds: float = 300) -> int:
    """Summarise what is due, one conversation after another, and return the number of batches. Clients take turns.

    seconds: how long to go on at most
    """
    done, until = 0, time.monotonic() + seconds
    for client_id, conversation_id in in_rotation(_clients, _claim, until):
        with log_context.about(conversation=conversation_id):
            done += summarise(client_id, conversation_id, until)
    return done


def _clients() -> list[tuple[UUID, int]]:
    """Return the clients that have something to be summarised, with their weights."""
    return [(pk, weight) for pk, weight in rows_over_all(_CLIENTS, timezone.now())]


def _claim(client_id: UUID) -> tuple[UUID, UUID] | None:
    now = timezone.now()
    found = row(_CLAIM, now, now + LEASE, client_id)
    return (found[0], found[1]) if found else None


def summarise(client_id: UUID, conversation_id: UUID, until: float = float("inf")) -> int:
    """Summarise all that was requested of the conversation and return the number of batches.

    until: the value of `time.monotonic()` at which to stop; the rest stays due
    """
    done = 0
    while time.monotonic() < until:
        conversation = (
            Conversation.objects.of(client_id)
            .select_related("rolling_summary", "client")
            .filter(pk=conversation_id)
            .first()
        )
        rolling = conversation.rolling if conversation else None
        if conversation is None or rolling is None:
            return done
        entries = _next_batch(conversation, rolling) if conversation.is_open else []
        if not entries:
            _settle(rolling)
            return done
        access = choosing.access_for(conversation.client_id, Purpose.SUMMARIES)
        if access is None:
            _settle(rolling)
            return done
        try:
            made = summaries.update_summary(
                access,
                conversation.summary,
                entries,
                goal=conversation.goal,
                is_last_try=rolling.attempts >= ATTEMPTS,
                client_id=conversation.client_id,
            )
        except LLMError as error:
            log.warning("not summarised yet: conversation=%s code=%s", conversation_id, error.code)
            due_at = timezone.now() + backoff(rolling.attempts, error.retry_after)
            RollingSummary.objects.filter(client=client_id, pk=conversation_id).update(
                due_at=due_at, error=error.code[:40]
            )
            return done
        done += _write(conversation, rolling, made, entries[-1].position)
    RollingSummary.objects.filter(client=client_id, pk=conversation_id, due_at__isnull=False).update(
        due_at=timezone.now()
    )
    return done


def _next_batch(conversation: Conversation, rolling: RollingSummary) -> Sequence[TranscriptEntry]:
    """Return the oldest messages that are requested and not summarised yet, as many as one call to the model takes."""
    after = max(rolling.upto, conversation.history_from or 0)
    chunks = conversation.chunks.filter(position__gt=after, position__lte=rolling.wanted, role__in=SAID)
    columns = chunks.annotate(words=corrected_text(conversation.client_id)).order_by("position")
    found = columns.values_list("position", "role", "words", "created_at", "author_id", f"metadata__{COLLEAGUE}")[
        :BATCH
    ]
    clean = redaction.rules_of(conversation.client).clean
    entries = [
        TranscriptEntry(
            position=position, role=role, content=clean(words), at=at, by_staff=is_by_staff(role, author, elsewhere)
        )
        for position, role, words, at, author, elsewhere in found
    ]
    return entries[: summaries.count_that_fits(entries)]


def _write(conversation: Conversation, rolling: RollingSummary, text: str, upto: int) -> int:
    """Store the model's summary, unless the old one or its messages changed meanwhile; return 1 if it is stored."""
    with editing_if_there(conversation.pk, conversation.client_id) as locked:
        if locked is None:
            return 0
        current = RollingSummary.objects.select_for_update().get(client=conversation.client_id, pk=conversation.pk)
        changed = (locked.summary, current.version) != (conversation.summary, rolling.version)
        if changed or not locked.is_open:
            return 0
        locked.summary = redaction.rules_of(locked.client).clean(text)
        current.upto, current.version = upto, current.version + 1
        current.attempts, current.error = 0, ""
        current.save(update_fields=["upto", "version", "attempts", "error"])
    return 1


def _settle(rolling: RollingSummary) -> None:
    """Mark the summary as done, unless more was requested meanwhile."""
    RollingSummary.objects.filter(
        client=rolling.client_id, pk=rolling.pk, wanted=rolling.wanted, version=rolling.version
    ).update(due_at=None)


# --- changes that make it out of date --------------------------------------------------------------------------------
def note_summary_edited(conversation: Conversation) -> None:
    """Discard what the model is writing now, because staff wrote the summary of the locked conversation."""
    RollingSummary.objects.filter(conversation=conversation).update(version=F("version") + 1)
