"""Throttles: a pause for an account, or for one address from an account, that its provider throttles.

Messages of other accounts and to other addresses do not wait.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from channels_out.errors import SendError
from conversations.models import SendPause
from conversations.services.core.backoff import backoff
from conversations.services.core.sql import row, rows

FORGOTTEN_AFTER = timedelta(hours=1)  # a throttle that comes later than that counts as the first

# In SQL: message m is not paused at $1.
NOT_PAUSED = """NOT EXISTS (
                SELECT FROM send_pauses p
                WHERE p.channel_account_id = m.channel_account_id AND p.to_address IN ('', m.to_address)
                  AND p.until > {now})"""


def pause(account_id: UUID, to_address: str, error: SendError, now: datetime) -> datetime:
    """Pause sending from the account, or only to the address if that alone is throttled. Returns until when.

    The pause lasts as long as the provider asks, or else longer each time. Messages that were being sent when it began
    are throttled as well; they count as the same time.
    """
    to = to_address if error.throttled == "recipient" else ""
    known = SendPause.objects.filter(channel_account=account_id, to_address=to).first()
    times = 1
    if known and known.until > now - FORGOTTEN_AFTER:
        times = known.times if known.until > now else known.times + 1
    # Throttling lasts longer than a network error, and providers rarely say how long.
    wait = timedelta(seconds=error.retry_after) if error.retry_after else backoff(times + 2)
    found = row(
        """
        INSERT INTO send_pauses (channel_account_id, to_address, until, times) VALUES ($1, $2, $3, $4)
        ON CONFLICT (channel_account_id, to_address)
        DO UPDATE SET until = GREATEST(send_pauses.until, EXCLUDED.until), times = EXCLUDED.times
        RETURNING until
        """,
        *(account_id, to, now + wait, min(times, 1000)),
    )
    assert found is not None  # noqa: S101 - it returns the row
    until: datetime = found[0]
    return until


def delete_expired(now: datetime) -> None:
    """Delete the pauses that ended more than FORGOTTEN_AFTER ago."""
    rows("DELETE FROM send_pauses WHERE until < $1::timestamptz - $2::interval RETURNING id", now, FORGOTTEN_AFTER)
