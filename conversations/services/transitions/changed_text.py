"""Summaries and global memory, made anew where a message reads differently from before."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from conversations.models import Conversation, RollingSummary
from conversations.queue import enqueue
from conversations.services.transitions import ratings
from conversations.services.transitions.details import remember_anew
from memory.models import Memory


def note_changed_text(conversation: Conversation, position: int, now: datetime) -> None:
    """Have memory and summary of the locked conversation made again, because the message at the position has changed.
    Where it is the comment of a rating, that reads as the message does.

    Call it within `locking.saving`. A summary may say the old text in other words, so it is cleared; one that staff
    wrote stays.
    """
    if remember_anew(conversation, now) and not summary_is_by_staff(conversation):
        conversation.summary = ""
    restart_summary(conversation, position)
    ratings.reread_comment(conversation, position)


def summary_is_by_staff(conversation: Conversation) -> bool:
    """Return whether staff wrote the summary of the remembered conversation, or changed it since."""
    kept = (
        Memory.objects.of(conversation.client_id)
        .filter(pk=conversation.pk)
        .values_list("summary", "summary_kind")
        .first()
    )
    return kept is not None and (kept[1] == "staff" or kept[0] != conversation.summary)


def restart_summary(conversation: Conversation, position: int) -> None:
    """Have the summary made anew from the start, because the message at the position has changed.

    Call it within `locking.saving`. Nothing is done where the summary has not got that far.
    """
    rolling = RollingSummary.objects.select_for_update().filter(conversation=conversation).first()
    if rolling is None or conversation.remembered_at is not None:
        return
    rolling.version += 1  # the text that is being written now may contain the old message
    if position <= rolling.upto:
        conversation.summary = ""
        rolling.upto, rolling.attempts = 0, 0
        if conversation.is_open:
            rolling.due_at = timezone.now()
            enqueue("summarise")
    rolling.save()
