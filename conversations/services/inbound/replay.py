"""What was kept because it did not become a chunk, given another try: by staff, and by the sweep where we had failed.

Replaying twice does no more than once: a message that is there already is a duplicate, a receipt moves forward only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError

from channels_out import registry
from channels_out.contract import Adapter
from channels_out.errors import InboundError
from channels_out.events import Event, Unhandled
from conversations.models import ChannelAccount, InboundEvent
from conversations.services.core.errors import NotFoundError
from conversations.services.core.sql import column
from conversations.services.delivery import receipts
from conversations.services.inbound import provider_events, unprocessed
from conversations.services.inbound.provider_events import Outcome

log = logging.getLogger(__name__)

RETRIES = 9
FIRST_WAIT = timedelta(minutes=5)
RETRIED_AT_ONCE = 200

# The try is counted, and the next one set, before it begins: what takes its process down does not do so for ever.
_CLAIM = """
    UPDATE inbound_events e
    SET attempts = e.attempts + 1,
        retry_at = CASE WHEN e.attempts + 1 < $3 THEN $1::timestamptz + $4::interval * power(2, e.attempts) END
    FROM (
        SELECT id FROM inbound_events
        WHERE reason = 'processing_failed' AND settled_at IS NULL AND retry_at <= $1
        ORDER BY retry_at LIMIT $2 FOR UPDATE SKIP LOCKED) due
    WHERE e.id = due.id
    RETURNING e.id"""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Whether all of it is where it belongs now, and in a sentence what became of it."""

    settled: bool
    sentence: str


def replay(event_id: int, now: datetime) -> Replayed:
    """The event was tried once more, and says what came of it. One that is settled stays as it is.

    Raises NotFoundError, or UnavailableError where the database is away or too much happens at once.
    """
    event = InboundEvent.objects.select_related("channel_account__client").filter(pk=event_id).first()
    if event is None:
        raise NotFoundError("There is no such event any more.")
    if event.settled_at:
        return Replayed(settled=True, sentence="It was replayed before: nothing was left to do.")
    result = _replay(event)
    changes = {"settled_at": now, "retry_at": None} if result.settled else {}
    InboundEvent.objects.filter(pk=event.pk).update(outcome=result.sentence[:200], **changes)
    return result


def retry_failed(now: datetime) -> int:
    """What we failed to process and is due was tried once more. Returns how many of these are settled."""
    settled = 0
    for event_id in column(_CLAIM, now, RETRIED_AT_ONCE, RETRIES, FIRST_WAIT):
        try:
            settled += replay(event_id, now).settled
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            log.exception("event not replayed: event=%s", event_id)
    return settled


def _replay(event: InboundEvent) -> Replayed:
    try:
        adapter = _adapter(event)
    except LookupError:
        return Replayed(
            settled=False, sentence=f"There is no adapter for {event.provider} on {event.channel} any more."
        )
    if event.reason == receipts.UNMATCHED:
        return _replay_receipt(event)
    try:
        events = adapter.parse(adapter.replayed(event.raw))
    except InboundError:
        return Replayed(settled=False, sentence="It still makes no sense to the adapter.")
    except Exception as error:
        log.exception("event not parsed: event=%s", event.pk)
        return Replayed(settled=False, sentence=f"The adapter still fails: {type(error).__name__}.")
    theirs = [each for each in events if event.kind == unprocessed.WHOLE or each.account == event.address]
    return _settle(adapter, event, theirs)


def _adapter(event: InboundEvent) -> Adapter:
    """Raises LookupError. An event that was kept before its channel was noted: the provider's first."""
    if event.channel:
        return registry.adapter_for(event.provider, event.channel)
    return next((each for each in registry.ADAPTERS if each.provider == event.provider), None) or registry.adapter_for(
        event.provider, ""
    )


def _replay_receipt(event: InboundEvent) -> Replayed:
    account = event.channel_account
    if account and receipts.replay(account, event):
        return Replayed(settled=True, sentence="The receipt found its message.")
    return Replayed(settled=False, sentence="It is about no message that we know of.")


def _settle(adapter: Adapter, event: InboundEvent, events: list[Event]) -> Replayed:
    """Each of the events that is a turn, or says of an address what was not heeded yet. What else a request brought was
    kept beside it, unless none of it was read."""
    turns = [each for each in events if unprocessed.is_turn(each) or _says_who_moved(event, each)]
    others = [
        each for each in events if isinstance(each, Unhandled) and event.kind == unprocessed.WHOLE and each not in turns
    ]
    if not turns and not others:
        kinds = ", ".join(dict.fromkeys(each.kind for each in events if isinstance(each, Unhandled)))
        return Replayed(settled=False, sentence=f"It is still no turn of a conversation ({kinds or 'nothing'}).")
    accounts = _accounts(adapter, event, [*turns, *others])
    outcome, left = Outcome(), 0
    for each in turns:
        account = accounts.get(each.account)
        left += account is None or not provider_events.settle(adapter, account, each, outcome)
    if not left:
        for each in others:
            unprocessed.keep_unhandled(adapter, accounts.get(each.account), each, each.reason)
            outcome.recorded += 1
        return Replayed(settled=True, sentence=_what_came(outcome))
    if not accounts:
        return Replayed(settled=False, sentence="There is still no active account that it is for.")
    return Replayed(settled=False, sentence=f"{left} of {len(turns)} still fail.")


def _says_who_moved(event: InboundEvent, each: Event) -> bool:
    """Not where it was kept for what it is: then it was heeded, and by now somebody else may have that address."""
    return isinstance(each, Unhandled) and bool(each.moved) and event.reason != each.reason


def _accounts(adapter: Adapter, event: InboundEvent, events: Iterable[Event]) -> dict[str, ChannelAccount]:
    """The active accounts that the events are for; only the event's own where it had one."""
    named = {each.account for each in events}
    found = provider_events.active_accounts(adapter).filter(address__in=named)
    if event.channel_account_id:
        found = found.filter(pk=event.channel_account_id)
    return {account.address: account for account in found}


def _what_came(outcome: Outcome) -> str:
    counts = {"message": outcome.messages, "receipt": outcome.receipts, "other event": outcome.recorded}
    said = [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
    return f"Settled: {', '.join(said)}."
