"""The rolling summary: what falls out of the prompt's window is absorbed in the background, and no reply waits for it.

reply: entries fell out ─► the row is due ─► task: claim ─► the model (no transaction) ─► written, if still true
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

from conversations.models import SAID, Conversation, RollingSummary, corrected_text
from conversations.queue import enqueue
from conversations.services.core import redaction
from conversations.services.core.backoff import backoff
from conversations.services.core.locking import editing_if_there
from conversations.services.core.sql import column, row
from memory import llm, summaries
from memory.records import TranscriptEntry

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
ABSORB_FROM = 10  # entries outside of the window; until then they stay in the prompt
MOST_OVERHANGING = 40  # entries outside of the window that a prompt shows at most while they wait
BATCH = 50  # entries that one call to the model absorbs at most

_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT conversation_id FROM conversation_summaries WHERE due_at <= $1
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE conversation_summaries s
    SET due_at = $2, attempts = LEAST(s.attempts + 1, 1000)
    FROM due WHERE s.conversation_id = due.conversation_id
    RETURNING s.conversation_id"""

_ASK = """
    INSERT INTO conversation_summaries (conversation_id, upto, wanted, version, due_at, attempts, error)
    SELECT id, 0, $2, 0, now(), 0, '' FROM conversations WHERE id = $1
    ON CONFLICT (conversation_id) DO UPDATE
    SET wanted = GREATEST(conversation_summaries.wanted, EXCLUDED.wanted),
        due_at = COALESCE(conversation_summaries.due_at, EXCLUDED.due_at)
    RETURNING conversation_id"""


def are_possible() -> bool:
    """Whether there is a model to write them. Without one the prompt has the newest entries, and says what it lacks."""
    return llm.is_configured()


def ask_for(conversation: Conversation, wanted: int) -> None:
    """What was said up to position `wanted` is absorbed soon. Asking twice does no more than once."""
    rolling = conversation.rolling
    if rolling and rolling.due_at and rolling.wanted >= wanted:
        return
    with transaction.atomic():
        if row(_ASK, conversation.pk, wanted) and not (rolling and rolling.due_at):
            enqueue("summarise")


def pending() -> bool:
    """Whether any session waits for its summary."""
    return RollingSummary.objects.filter(due_at__isnull=False).exists()


def summarise_due(seconds: float = 300) -> int:
    """What is due is absorbed, session after session, for so long. Returns how many batches were."""
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        done += summarise(claimed[0], until)
    return done


def summarise(conversation_id: UUID, until: float = float("inf")) -> int:
    """All that fell out of the session's window is in its summary. Returns how many batches that took."""
    done = 0
    while time.monotonic() < until:
        conversation = (
            Conversation.objects.select_related("rolling_summary", "client").filter(pk=conversation_id).first()
        )
        rolling = conversation.rolling if conversation else None
        if conversation is None or rolling is None:
            return done
        entries = _next_batch(conversation, rolling) if conversation.is_open else []
        if not entries:
            _settle(rolling)
            return done
        try:
            made = summaries.update_summary(conversation.summary, entries, goal=conversation.goal)
        except llm.LLMError as error:
            log.warning("not summarised yet: conversation=%s code=%s", conversation_id, error.code)
            due_at = timezone.now() + backoff(rolling.attempts, error.retry_after)
            RollingSummary.objects.filter(pk=conversation_id).update(due_at=due_at, error=error.code[:40])
            return done
        done += _write(conversation, rolling, made, entries[-1].position)
    RollingSummary.objects.filter(pk=conversation_id, due_at__isnull=False).update(due_at=timezone.now())
    return done


def _next_batch(conversation: Conversation, rolling: RollingSummary) -> Sequence[TranscriptEntry]:
    """The oldest entries that are wanted and not in yet, as many as the model is shown at once; at least one."""
    after = max(rolling.upto, conversation.history_from or 0)
    said = conversation.chunks.filter(position__gt=after, position__lte=rolling.wanted, role__in=SAID)
    columns = said.annotate(words=corrected_text()).order_by("position")
    found = columns.values_list("position", "role", "words", "created_at", "author_id")[:BATCH]
    clean = redaction.rules_of(conversation.client).clean
    entries = [
        TranscriptEntry(position=position, role=role, content=clean(words), at=at, by_staff=author is not None)
        for position, role, words, at, author in found
    ]
    return entries[: summaries.count_that_fits(entries)]


def _write(conversation: Conversation, rolling: RollingSummary, text: str, upto: int) -> int:
    """The summary is what the model made, unless somebody changed it meanwhile, or what it was made from."""
    with editing_if_there(conversation.pk) as now:
        if now is None:
            return 0
        current = RollingSummary.objects.select_for_update().get(pk=conversation.pk)
        changed = (now.summary, current.version) != (conversation.summary, rolling.version)
        if changed or not now.is_open:
            return 0
        now.summary = redaction.rules_of(now.client).clean(text)
        current.upto, current.version = upto, current.version + 1
        current.attempts, current.error = 0, ""
        current.save(update_fields=["upto", "version", "attempts", "error"])
    return 1


def _settle(rolling: RollingSummary) -> None:
    """Nothing is due, unless more fell out meanwhile."""
    RollingSummary.objects.filter(pk=rolling.pk, wanted=rolling.wanted, version=rolling.version).update(due_at=None)


# --- what makes it out of date ---------------------------------------------------------------------------------------
def note_edited(conversation: Conversation) -> None:
    """Staff wrote the summary of the session, whose row is locked: what the model is writing now is out of date."""
    RollingSummary.objects.filter(pk=conversation.pk).update(version=F("version") + 1)


def start_over(conversation: Conversation, position: int) -> None:
    """Have the summary made anew from the start, because the message at the position has changed.

    Call it within `locking.saving`. Nothing is done where the summary has not got that far.
    """
    rolling = RollingSummary.objects.select_for_update().filter(pk=conversation.pk).first()
    if rolling is None or conversation.remembered_at is not None:
        return
    rolling.version += 1  # also what is being written now may say it
    if position <= rolling.upto:
        conversation.summary = ""
        rolling.upto, rolling.attempts = 0, 0
        if conversation.is_open:
            rolling.due_at = timezone.now()
            enqueue("summarise")
    rolling.save()
