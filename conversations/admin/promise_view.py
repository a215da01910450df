"""The clock of a promise, and the hand-over that waits for the next opening, as the inbox shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.models import Conversation
from conversations.services.tenants import client_hours, promises
from conversations.services.tenants.promises import Kind, Promise
from conversations.services.transitions import pending_handovers

NAMES = {
    Kind.FIRST_RESPONSE: gettext_lazy("First response"),
    Kind.ANSWER: gettext_lazy("Answer"),
    Kind.RESOLUTION: gettext_lazy("Resolution"),
}
SOON = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Clock:
    """A promise that is to be kept: what, until when, and how it reads now: "due in 12 min", "5 min late".

    is_soon: it is due within SOON
    """

    name: str
    due_at: datetime
    is_late: bool
    is_soon: bool
    words: str


def shown(promise: Promise | None, now: datetime) -> Clock | None:
    """Return the clock of the promise, or None where there is none to keep."""
    if promise is None:
        return None
    is_late = promise.is_late(now)
    left = span(abs(promise.due_at - now))
    words = _("%(span)s late") % {"span": left} if is_late else _("due in %(span)s") % {"span": left}
    return Clock(str(NAMES[promise.kind]), promise.due_at, is_late, not is_late and promise.due_at - now < SOON, words)


def span(length: timedelta) -> str:
    """Return the length in its largest unit, as the inbox's script writes it: "12 min", "3 h", "2 d"."""
    minutes = int(length.total_seconds() // 60)
    if minutes < 60:
        return _("%(number)s min") % {"number": max(minutes, 1)}
    if minutes < 60 * 24:
        return _("%(number)s h") % {"number": minutes // 60}
    return _("%(number)s d") % {"number": minutes // (60 * 24)}


def beside(conversation: Conversation, now: datetime) -> dict[str, Any]:
    """Return what the head of the open conversation shows: `promise`, and when it is handed over, `handover`."""
    found = (
        promises.promises(conversation.client_id, [conversation.pk]).get(conversation.pk)
        if conversation.is_open
        else None
    )
    pending = pending_handovers.of(conversation) if conversation.is_open else None
    when = ""
    if pending:
        when = client_hours.when_in_words(client_hours.terms(conversation.client_id), pending.due_at, now=now)
    return {"promise": shown(found.next if found else None, now), "handover": pending, "handover_when": when}
