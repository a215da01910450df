"""Who is sent nothing for a while: an account, or one address from an account, that its provider throttles. Nobody else
waits for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from channels_out.errors import SendError
from conversations.models import SendPause
from conversations.services.core.backoff import backoff
from conversations.services.core.sql import row, rows

FORGOTTEN_AFTER = timedelta(hours=1)  # throttled again later than that is throttled for the first time

# In SQL: message m is not paused at $1.
NOT_PAUSED = """NOT EXISTS (
                SELECT FROM send_pauses p
                WHERE p.channel_account_id = m.channel_account_id AND p.to_address IN ('', m.to_address)
                  AND p.until > {now})"""


def begin(account_id: UUID, to_address: str, error: SendError, now: datetime) -> datetime:
    """Nothing is sent from the account (to the address, if only that is throttled) for as long as the provider asks, or
    else longer each time. Returns until when.

    What was on its way when the pause began is throttled as well: that counts as the same time.
    """
    to = to_address if error.throttled == "recipient" else ""
    known = SendPause.objects.filter(channel_account=account_id, to_address=to).first()
    times = 1
    if known and known.until > now - FORGOTTEN_AFTER:
        times = known.times if known.until > now else known.times + 1
    # Throttling passes later than a hiccup, and providers rarely say when.
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


def in_force(account_id: UUID, to_address: str, now: datetime) -> bool:
    """Whether nothing is sent there now."""
    paused = "SELECT FROM send_pauses WHERE channel_account_id = $1 AND to_address IN ('', $2) AND until > $3"
    return bool(rows(paused, account_id, to_address, now))


def forget(now: datetime) -> None:
    """Pauses that are long over are gone."""
    rows("DELETE FROM send_pauses WHERE until < $1::timestamptz - $2::interval RETURNING id", now, FORGOTTEN_AFTER)
