"""Overdue work: replies and messages that are due and not begun, which shows that no worker runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext

from conversations.models import Conversation, Turn
from conversations.services.core.cluster import rows_over_all
from conversations.services.delivery.throttles import NOT_PAUSED

LATE_SECONDS = 60
UNATTENDED_AFTER = timedelta(seconds=20)  # a dispatcher looks several times a second


@dataclass(frozen=True, slots=True)
class OverdueWork:
    """The age in seconds of the oldest due reply that nobody has claimed and of the oldest due unsent message."""

    oldest_reply_seconds: float
    oldest_message_seconds: float

    @property
    def late(self) -> str:
        """Return a sentence for staff if something waits for more than LATE_SECONDS, '' if not."""
        if max(self.oldest_reply_seconds, self.oldest_message_seconds) < LATE_SECONDS:
            return ""
        return gettext(
            "Replies or messages are overdue by a minute. Check that the dispatcher runs (manage.py dispatch)."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return both ages by name, for the API."""
        return asdict(self)


def oldest_overdue() -> OverdueWork:
    """Return how long the oldest overdue reply and message have been waiting; 0 for none."""
    found = rows_over_all(
        f"""
        SELECT
            GREATEST((
             SELECT COALESCE(EXTRACT(epoch FROM now() - min(t.lease_until)), 0)::float FROM conversation_turns t
             WHERE {{only:t}} AND t.status = 'running' AND t.streamed AND t.lease_until < now()),
             (SELECT COALESCE(EXTRACT(epoch FROM now() - min(s.reply_due_at)), 0)::float FROM conversations s
             WHERE {{only:s}} AND s.reply_owed AND s.taken_over_at IS NULL AND s.reply_due_at < now() AND NOT EXISTS (
                SELECT FROM conversation_turns t
                WHERE t.client_id = s.client_id AND t.conversation_id = s.id AND t.status = 'running'
                  AND t.lease_until >= now()))),
            (SELECT COALESCE(EXTRACT(epoch FROM now() - min(m.due_at)), 0)::float FROM conversation_messages m
             JOIN channel_accounts a ON a.id = m.channel_account_id AND a.health = 'ok' AND a.is_active
             WHERE {{only:m}} AND m.status = 'queued' AND m.due_at < now()
               AND {NOT_PAUSED.format(now="now()", client="m.client_id")})
        """
    )
    return OverdueWork(*(max(ages, default=0) for ages in zip(*(found or [(0, 0)]), strict=True)))


def unattended_since(conversation: Conversation, turns: Iterable[Turn], now: datetime) -> datetime | None:
    """Return since when the conversation's due reply has been waiting, if that is longer than UNATTENDED_AFTER.

    turns: the conversation's newest turns, newest first

    Returns None if no reply is due, or a dispatcher is still expected to take it.
    """
    running = next((turn for turn in turns if turn.status == Turn.Status.RUNNING), None)
    if running:
        since: datetime | None = running.lease_until
    else:
        is_due = conversation.is_open and conversation.reply_owed and conversation.taken_over_at is None
        since = conversation.reply_due_at if is_due else None
    return since if since and since < now - UNATTENDED_AFTER else None
