"""The events that a forecast names, and the words that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from conversations.models import Conversation
from conversations.queue import SCHEDULES
from conversations.services.core.durations import in_words

DISPATCHER = "dispatcher"
SWEEP, ARCHIVE, CLEAN_UP, HAND_OVER = "sweep", "archive", "clean_up", "hand_over"


@dataclass(frozen=True, slots=True)
class UpcomingEvent:
    """One event that will happen to a conversation.

    what     a word: reply, send, stale, expired, handed_back, remembered, archived, deleted …
    says     the same as a sentence for staff
    at       when it is due; None if no time is set
    rule     the rule that sets the time
    setting  the setting that the rule reads, with its value
    job      the job that does it
    held_by  what prevents it although its time comes; '' for nothing
    after    the `what` of the event that must happen before; '' for none
    """

    what: str
    says: str
    at: datetime | None
    rule: str
    setting: str
    job: str
    held_by: str = ""
    after: str = ""


def scheduled(job: str) -> str:
    """Return the job with the time between its runs, in words."""
    return _("%(job)s, every %(time)s") % {"job": job, "time": in_words(timedelta(minutes=SCHEDULES[job]))}


def colleague(conversation: Conversation) -> str:
    """Return the name of the colleague who has the conversation, or words for nobody."""
    return conversation.taken_over_name or _("nobody yet")
