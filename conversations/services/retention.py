"""What is deleted because it was kept long enough: daily, in batches of one statement each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from conversations.services import kept_events
from conversations.services.database import rows
from conversations.services.lifecycle import BATCH, alone

# $1: before when the last message must have come. Sessions on the web do not age, so they are open as long as nobody
# closed them; what was closed is remembered and archived as anywhere else.
_DELETE_IDLE_ON_THE_WEB = """
    WITH idle AS (
        SELECT s.id FROM conversations s JOIN contacts p ON p.id = s.contact_id AND p.hold_reason = ''
        WHERE s.channel = 'web' AND s.status IN ('active', 'stale') AND s.last_message_at < $1
        LIMIT $2 FOR UPDATE OF s SKIP LOCKED)
    DELETE FROM conversations s USING idle WHERE s.id = idle.id RETURNING s.id"""


@dataclass(slots=True)
class CleanupReport:
    """How much a cleanup deleted."""

    web_sessions: int = 0
    inbound_events: int = 0
    skipped: bool = False


def clean_up(now: datetime) -> CleanupReport:
    """What is older than it may become is gone. Harmless to repeat and to interrupt; while one runs another returns at
    once, `skipped`."""
    report = CleanupReport()
    with alone("convo.clean_up") as only_one:
        if only_one:
            report.web_sessions = _delete_idle_on_the_web(now)
            report.inbound_events = kept_events.trim(now)
        report.skipped = not only_one
    return report


def _delete_idle_on_the_web(now: datetime) -> int:
    """Sessions on the web in which nothing was said for COPILOT_IDLE_DAYS are gone, with everything below them."""
    deleted = 0
    idle_since = now - timedelta(days=settings.COPILOT_IDLE_DAYS)
    while gone := len(rows(_DELETE_IDLE_ON_THE_WEB, idle_since, BATCH)):
        deleted += gone
    return deleted
