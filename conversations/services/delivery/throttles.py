"""Throttles: a pause for an account, or for one address from an account, that its provider throttles.

Messages of other accounts and to other addresses do not wait.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from channels_out.errors import SendError
from conversations.models import Message, SendPause
from conversations.services.core.backoff import backoff
from conversations.services.core.cluster import rows_over_all
from conversations.services.core.sql import row

FORGOTTEN_AFTER = timedelta(hours=1)  # a throttle that comes later than that counts as the first

# In SQL: message m of the client is not paused at {now}.
NOT_PAUSED = """NOT EXISTS (
                SELECT FROM send_pauses p
                WHERE p.client_id = {client} AND p.channel_account_id = m.channel_account_id
                  AND p.to_address IN ('', m.to_address)
                  AND p.until > {now} OFFSET 0)"""
# In SQL: account a of the client as a whole is not paused at {now}.
ACCOUNT_NOT_PAUSED = """NOT EXISTS (
          SELECT FROM send_pauses p WHERE p.client_id = {client} AND p.channel_account_id = a.id
            AND p.to_address = '' AND p.until > {now})"""


def pause(message: Message, error: SendError, now: datetime) -> datetime:
    """Pause sending from the message's account, or only to its address if that alone is throttled. Returns until when.

    The pause lasts as long as the provider asks, or else longer each time. Messages that were being sent when it began
    are throttled as well; they count as the same time.
    """
    to = message.to_address if error.throttled == "recipient" else ""
    known = SendPause.objects.filter(
        client_id=message.client_id, channel_account=message.channel_account_id, to_address=to
    ).first()
    times = 1
    if known and known.until > now - FORGOTTEN_AFTER:
        times = known.times if known.until > now else known.times + 1
    # Throttling lasts longer than a network error, and providers rarely say how long.
    wait = timedelta(seconds=error.retry_after) if error.retry_after else backoff(times + 2)
    found = row(
        """
        INSERT INTO send_pauses (client_id, channel_account_id, to_address, until, times) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (client_id, channel_account_id, to_address)
        DO UPDATE SET until = GREATEST(send_pauses.until, EXCLUDED.until), times = EXCLUDED.times
        RETURNING until
        """,
        *(message.client_id, message.channel_account_id, to, now + wait, min(times, 1000)),
    )
    assert found is not None  # noqa: S101 - it returns the row
    until: datetime = found[0]
    return until


def delete_expired(now: datetime) -> None:
    """Delete the pauses that ended more than FORGOTTEN_AFTER ago."""
    over = "DELETE FROM send_pauses p WHERE {only:p} AND p.until < $1::timestamptz - $2::interval RETURNING id"
    rows_over_all(over, now, FORGOTTEN_AFTER)
