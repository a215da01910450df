"""Circuit breakers: an account whose provider hangs or cannot be reached is tried by one probe at a time.

Nobody opens or closes one by hand: failures in a row open it, and a probe that arrives closes it (models/send_circuit).
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from conversations.models import ChannelAccount, SendCircuit
from conversations.services.core.backoff import backoff
from conversations.services.core.sql import row

log = logging.getLogger(__name__)

OPEN_AFTER = 3  # failures in a row
NOT_REACHED = {"connect", "timeout", "connection_lost"}  # codes of SendError
MOST = 1_000  # counts go no further

# In SQL, for an account `a` of the client: $1 is now.
JOIN = "LEFT JOIN send_circuits o ON o.client_id = {client} AND o.channel_account_id = a.id AND o.opened_at IS NOT NULL"
MAY_SEND = "(o.probe_at IS NULL OR o.probe_at <= $1)"
IS_OPEN = "o.channel_account_id IS NOT NULL"


def note_failure(client_id: UUID, account_id: UUID, message_id: UUID, code: str, now: datetime) -> None:
    """Count a send that did not reach the provider.

    The failure of a send that was begun before the circuit opened tells nothing new.

    code: one of NOT_REACHED
    """
    with transaction.atomic():
        circuit = _lock(client_id, account_id)
        if circuit is None:
            return
        circuit.failures, circuit.code = min(circuit.failures + 1, MOST), code
        if circuit.opened_at is None and circuit.failures >= OPEN_AFTER:
            circuit.opened_at, circuit.probe_at = now, now + backoff(1)
            log.warning("account not reached, sends wait: account=%s code=%s", account_id, code)
        elif circuit.probe == message_id:
            circuit.probes = min(circuit.probes + 1, MOST)
            circuit.probe, circuit.probe_at = None, now + backoff(circuit.probes + 1)
        circuit.save()


def _lock(client_id: UUID, account_id: UUID) -> SendCircuit | None:
    """Lock the account's circuit, which is made if there is none. None if the account is deleted."""
    if not ChannelAccount.objects.filter(client_id=client_id, pk=account_id).exists():
        return None
    SendCircuit.objects.bulk_create(
        [SendCircuit(channel_account_id=account_id, client_id=client_id)], ignore_conflicts=True
    )
    return SendCircuit.objects.select_for_update().filter(client_id=client_id, pk=account_id).first()


def note_success(client_id: UUID, account_id: UUID) -> None:
    """Close the account's circuit: its provider was reached."""
    found = row(
        "DELETE FROM send_circuits WHERE client_id = $1 AND channel_account_id = $2 RETURNING opened_at",
        *(client_id, account_id),
    )
    if found and found[0]:
        log.info("account reached again: account=%s", account_id)


def lock_for_probe(client_id: UUID, account_id: UUID, now: datetime) -> bool:
    """Lock the open circuit and return whether it is time for a probe. Call it in the transaction that claims one."""
    found = row(
        """
        SELECT 1 FROM send_circuits WHERE client_id = $3 AND channel_account_id = $1 AND probe_at <= $2
        FOR UPDATE SKIP LOCKED
        """,
        *(account_id, now, client_id),
    )
    return found is not None


def begin_probe(client_id: UUID, account_id: UUID, message_id: UUID, now: datetime) -> None:
    """Make the claimed message the probe of the locked circuit."""
    over = now + timedelta(seconds=2 * settings.PROVIDER_TIMEOUT_SECONDS + settings.LEASE_SECONDS)
    SendCircuit.objects.filter(client_id=client_id, pk=account_id).update(probe=message_id, probe_at=over)


def give_up_probe(client_id: UUID, message_id: UUID, now: datetime) -> None:
    """Let another message be the probe at once, if this one is one and is not sent after all."""
    SendCircuit.objects.filter(client_id=client_id, probe=message_id).update(probe=None, probe_at=now)
