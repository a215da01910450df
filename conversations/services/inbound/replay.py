"""Replay unprocessed events: by staff, and by the sweep for those that we failed to process.

It is safe to replay an event twice: a message that is there already is a duplicate, and a receipt moves a message only
forward.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.utils.translation import gettext, gettext_noop

from channels_out import registry
from channels_out.contract import Adapter
from channels_out.errors import InboundError
from channels_out.events import Event, Unhandled
from conversations import log_context
from conversations.models import ChannelAccount, InboundEvent
from conversations.services.core.errors import NotFoundError
from conversations.services.core.rotation import distinct_sql, in_rotation
from conversations.services.core.sql import later, row, rows
from conversations.services.delivery import receipts
from conversations.services.inbound import settling, unprocessed
from conversations.services.inbound.settling import Outcome
from conversations.services.inbound.signatures import active_accounts
from conversations.words import with_values

log = logging.getLogger(__name__)

NO_ADAPTER = with_values("There is no longer an adapter for %(provider)s on %(channel)s.")
FAILS = gettext_noop("The adapter still fails:")
NEITHER = gettext_noop("The event is no message and no receipt.")
NEITHER_BUT = with_values("The event is no message and no receipt: %(kinds)s.")
SOME_FAIL = with_values("%(left)s of %(all)s still fail.")

RETRIES = 9
FIRST_WAIT = timedelta(minutes=5)
RETRIED_AT_ONCE = 200

# Events of no account of ours belong to no client, and have one turn together.
_CLIENTS = f"""{distinct_sql("inbound_events", "client_id", "reason = 'processing_failed' AND settled_at IS NULL")}
    SELECT c.id, c.weight
    FROM waiting w CROSS JOIN LATERAL (SELECT id, weight FROM clients WHERE id = w.id OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT id FROM inbound_events
        WHERE reason = 'processing_failed' AND settled_at IS NULL AND client_id = c.id AND retry_at <= $1
        LIMIT 1) AS due
    UNION ALL
    SELECT NULL, 1"""
# The attempt is counted, and the next one scheduled, before it begins: an event that kills its process is not retried
# forever. Materialised: a sub-select that locks may run again for each row it is joined to, and would claim several.
_CLAIM = f"""
    WITH due AS MATERIALIZED (
        SELECT id FROM inbound_events
        WHERE reason = 'processing_failed' AND settled_at IS NULL AND retry_at <= $1 AND client_id {{client}}
        ORDER BY retry_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE inbound_events e
    SET attempts = e.attempts + 1,
        retry_at = CASE WHEN e.attempts + 1 < $2 THEN {later("$1", "$3::interval * power(2, e.attempts)")} END
    FROM due WHERE e.id = due.id
    RETURNING e.id"""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a replay: whether all of the event is processed now, and a sentence about it."""

    settled: bool
    sentence: str


def replay(event_id: int, now: datetime) -> ReplayResult:
    """Process the event again, store the outcome and return the result. A settled event stays as it is.

    Raises NotFoundError, or UnavailableError if the database is away or too much happens at once.
    """
    event = InboundEvent.objects.select_related("channel_account__client").filter(pk=event_id).first()
    if event is None:
        raise NotFoundError(gettext("This event no longer exists."))
    if event.settled_at:
        return ReplayResult(
            settled=True, sentence=gettext_noop("The event was replayed before. Nothing is left to do.")
        )
    result = _replay(event)
    changes = {"settled_at": now, "retry_at": None} if result.settled else {}
    InboundEvent.objects.filter(pk=event.pk).update(outcome=result.sentence[:200], **changes)
    return result


def retry_failed(now: datetime) -> int:
    """Replay the due events that we failed to process, and return how many are settled now.

    Clients take turns. At most RETRIED_AT_ONCE are replayed; the rest waits for the next sweep.
    """
    settled = 0
    for event_id in islice(in_rotation(partial(_clients, now), partial(_claim, now)), RETRIED_AT_ONCE):
        with log_context.about(event=event_id):
            try:
                settled += replay(event_id, now).settled
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                log.exception("event not replayed: event=%s", event_id)
    return settled


def _clients(now: datetime) -> list[tuple[UUID | None, int]]:
    """Return the clients that have events to be replayed, with their weights, and None for those of no client."""
    return [(pk, weight) for pk, weight in rows(_CLIENTS, now)]


def _claim(now: datetime, client_id: UUID | None) -> int | None:
    """Claim the event of the client that is due longest, and return its id."""
    if client_id is None:
        found = row(_CLAIM.format(client="IS NULL"), now, RETRIES, FIRST_WAIT)
    else:
        found = row(_CLAIM.format(client="= $4"), now, RETRIES, FIRST_WAIT, client_id)
    return found[0] if found else None


def _replay(event: InboundEvent) -> ReplayResult:
    try:
        adapter = _adapter(event)
    except LookupError:
        return ReplayResult(
            settled=False, sentence=NO_ADAPTER % {"provider": event.provider, "channel": event.channel or "-"}
        )
    if event.reason == receipts.UNMATCHED:
        return _replay_receipt(event)
    try:
        events = adapter.parse(adapter.replayed(event.raw))
    except InboundError:
        return ReplayResult(settled=False, sentence=gettext_noop("The adapter still cannot read the event."))
    except Exception as error:
        log.exception("event not parsed: event=%s", event.pk)
        return ReplayResult(settled=False, sentence=f"{FAILS} {type(error).__name__}.")
    theirs = [each for each in events if event.kind == unprocessed.WHOLE_REQUEST or each.account == event.address]
    return _settle(adapter, event, theirs)


def _adapter(event: InboundEvent) -> Adapter:
    """Return the event's adapter, or the provider's first if the event has no channel. Raises LookupError."""
    if event.channel:
        return registry.adapter_for(event.provider, event.channel)
    return next((each for each in registry.ADAPTERS if each.provider == event.provider), None) or registry.adapter_for(
        event.provider, ""
    )


def _replay_receipt(event: InboundEvent) -> ReplayResult:
    account = event.channel_account
    if account and receipts.replay(account, event):
        return ReplayResult(settled=True, sentence=gettext_noop("The receipt found its message."))
    return ReplayResult(
        settled=False, sentence=gettext_noop("The receipt is about a message that Convo does not know.")
    )


def _settle(adapter: Adapter, event: InboundEvent, events: list[Event]) -> ReplayResult:
    """Process the messages, receipts and unapplied address changes among the events.

    Other events of the request were stored beside this one, unless the request could not be parsed at all; then they
    are stored now.
    """
    if _is_stored_in_conversation(adapter, event, events):
        return ReplayResult(settled=True, sentence=gettext_noop("What happened stands in its conversation now."))
    turns = [each for each in events if unprocessed.is_message_or_receipt(each) or _is_unapplied(event, each)]
    others = [
        each
        for each in events
        if isinstance(each, Unhandled) and event.kind == unprocessed.WHOLE_REQUEST and each not in turns
    ]
    if not turns and not others:
        kinds = ", ".join(dict.fromkeys(each.kind for each in events if isinstance(each, Unhandled)))
        return ReplayResult(settled=False, sentence=NEITHER_BUT % {"kinds": kinds} if kinds else NEITHER)
    accounts = _accounts(adapter, event, [*turns, *others])
    outcome, left = Outcome(), 0
    for each in settling.settle_together(adapter, turns, accounts, outcome):
        account = accounts.get(each.account)
        left += account is None or not settling.settle(adapter, account, each, outcome)
    if not left:
        for each in others:
            unprocessed.store_unhandled(adapter, accounts.get(each.account), each, each.reason)
            outcome.recorded += 1
        return ReplayResult(settled=True, sentence=_sentence(outcome))
    if not accounts:
        return ReplayResult(settled=False, sentence=gettext_noop("The event's address still has no active account."))
    return ReplayResult(settled=False, sentence=SOME_FAIL % {"left": left, "all": len(turns)})


def _is_stored_in_conversation(adapter: Adapter, event: InboundEvent, events: list[Event]) -> bool:
    """Return whether the event, stored for its own reason, says what happened in a conversation that is there now."""
    one = events[0] if len(events) == 1 else None
    if not isinstance(one, Unhandled) or one.happened is None or event.reason != one.reason:
        return False
    account = _accounts(adapter, event, [one]).get(one.account)
    return account is not None and settling.store_happened(account, one)


def _is_unapplied(event: InboundEvent, each: Event) -> bool:
    """Return whether the event reports an address change, or what happened, that was not applied yet.

    If it was stored for its own reason, a change of address was applied then, and by now somebody else may have that
    address.
    """
    return isinstance(each, Unhandled) and bool(each.moved or each.happened) and event.reason != each.reason


def _accounts(adapter: Adapter, event: InboundEvent, events: Iterable[Event]) -> dict[str, ChannelAccount]:
    """Return the active accounts of the events by address; only the stored event's own account if it has one."""
    named = {each.account for each in events}
    found = active_accounts(adapter).filter(address__in=named)
    if event.channel_account_id:
        found = found.filter(pk=event.channel_account_id)
    return {account.address: account for account in found}


def _sentence(outcome: Outcome) -> str:
    counts = {
        gettext_noop("Messages:"): outcome.messages,
        gettext_noop("Receipts:"): outcome.receipts,
        gettext_noop("Other events:"): outcome.recorded,
    }
    said = [f"{what} {count}." for what, count in counts.items() if count]
    return " ".join([gettext_noop("Settled."), *said])
