"""Settling: each event of a batch becomes a chunk, moves a message on, or is stored for staff.

Many events are settled together (`messages_bulk.py`, `receipts_bulk.py`), and one by one what those leave over. A
provider waits for its answer. So where too many are left over, the rest is stored, and the sweep replays it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from channels_out.contract import Adapter, InboundRequest
from channels_out.events import (
    Activity,
    ColleagueMessage,
    Event,
    InboundMessage,
    Receipt,
    Sender,
    Unhandled,
    WatermarkReceipt,
)
from conversations import traces
from conversations.models import ChannelAccount
from conversations.services.contacts import address_changes
from conversations.services.core import spans, threads
from conversations.services.core.dedupe import TOMBSTONES_LAST, dedupe_key, is_first_time
from conversations.services.core.errors import UnavailableError
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, BusyError, Statements, UnclearError, finish
from conversations.services.delivery import opt_outs, receipts, receipts_bulk
from conversations.services.inbound import activities, colleagues, messages, messages_bulk, placeholders, unprocessed

log = logging.getLogger(__name__)

MOST_ONE_BY_ONE = 250  # events of one webhook: each costs up to 20 ms


@dataclass(slots=True)
class Outcome:
    """Counts for a batch: messages settled, receipts applied, and events stored: as activities, or for staff to see."""

    messages: int = 0
    receipts: int = 0
    recorded: int = 0


def settle_all(
    adapter: Adapter,
    request: InboundRequest,
    events: list[Event],
    accounts: Mapping[str, ChannelAccount],
    outcome: Outcome | None = None,
    *,
    tried: bool = False,
) -> Outcome:
    """Settle or store the events and return `outcome`, in which they are counted.

    accounts: those that signed the request, by address
    tried: the fast way was tried for the events in vain
    """
    outcome = outcome or Outcome()
    unsettled: dict[tuple[str, str], list[Event]] = {}
    left = settle_together(adapter, events, accounts, outcome, tried=tried)
    now = timezone.now()
    one_by_one = 0
    for event in left:
        account = accounts.get(event.account)
        if account is None and isinstance(event, Unhandled):
            unprocessed.store_unhandled(adapter, None, event, unprocessed.UNKNOWN_ACCOUNT)
            outcome.recorded += 1
            continue
        reason = unprocessed.PROCESSING_FAILED
        if account is None:
            reason = unprocessed.UNKNOWN_ACCOUNT
        elif isinstance(event, InboundMessage) and is_too_old(event, now) and not _is_stored(account, event):
            reason = unprocessed.TOO_OLD
        elif one_by_one < MOST_ONE_BY_ONE:
            one_by_one += 1
            if _settle_one_of(events, adapter, account, event, outcome, tried=tried):
                continue
        unsettled.setdefault((event.account, reason), []).append(event)
    for (address, reason), those in unsettled.items():
        unprocessed.store_events(adapter, accounts.get(address), request, those, reason)
        outcome.recorded += len(those)
    return outcome


def settle_together(
    adapter: Adapter,
    events: list[Event],
    accounts: Mapping[str, ChannelAccount],
    outcome: Outcome,
    *,
    tried: bool = False,
) -> list[Event]:
    """Settle what can be settled in bulk, count it in `outcome`, and return the other events in their order."""
    left = events if tried else _without_simple_receipts(events, accounts, outcome)
    if len(left) < messages_bulk.AT_LEAST:
        return left
    now = timezone.now()
    settled: set[int] = set()
    by_account: dict[ChannelAccount | None, list[int]] = {}
    for number, event in enumerate(left):
        by_account.setdefault(accounts.get(event.account), []).append(number)
    for account, theirs in by_account.items():
        others = {
            n: each
            for n in theirs
            if isinstance(each := left[n], Unhandled) and not (each.moved or each.happened or each.marketing)
        }
        done = _picked(others, messages_bulk.store_unhandled(adapter, account, list(others.values())))
        if account:
            reported = {n: each for n in theirs if isinstance(each := left[n], Receipt)}
            done |= _picked(reported, messages_bulk.store_unmatched(adapter, account, list(reported.values())))
        outcome.recorded += len(done)
        if account:
            said = {
                n: inbound_text(account, each, now)
                for n in theirs
                if isinstance(each := left[n], InboundMessage) and not is_too_old(each, now)
            }
            stored = _picked(said, messages_bulk.settle_messages(account.client, list(said.values())))
            outcome.messages += len(stored)
            done |= stored
        settled |= done
    return [event for number, event in enumerate(left) if number not in settled]


def _picked(numbered: Mapping[int, object], indexes: Set[int]) -> set[int]:
    """The numbers at these indexes."""
    return {number for index, number in enumerate(numbered) if index in indexes}


def _without_simple_receipts(
    events: Iterable[Event], accounts: Mapping[str, ChannelAccount], outcome: Outcome
) -> list[Event]:
    """Apply and count the receipts that only move messages on, and return the other events."""
    left: list[Event] = []
    said: dict[str, list[Receipt]] = {}
    for event in events:
        if isinstance(event, Receipt) and event.account in accounts:
            said.setdefault(event.account, []).append(event)
        else:
            left.append(event)
    for address, theirs in said.items():
        unclear = finish(apply_simple_receipts(THIS_THREAD, theirs, accounts[address]))
        outcome.receipts += len(theirs) - len(unclear)
        left += unclear
    return left


async def apply_simple_receipts(
    statements: Statements, reported: list[Receipt], account: ChannelAccount, version: str | None = None
) -> list[Receipt]:
    """Apply the receipts that only move messages on, all at once, and return the others."""
    simple = receipts_bulk.simple_receipts(reported)
    try:
        applied = (
            await receipts_bulk.apply(statements, account.client_id, account.pk, simple, version) if simple else set()
        )
    except (OperationalError, InterfaceError, BusyError, UnclearError):
        raise
    except Exception:
        log.exception("receipts not applied at once: account=%s", account.pk)
        return reported
    if traces.is_on() and applied:
        said = [(each.provider_message_id, each.status.value) for each in simple if each.provider_message_id in applied]
        statements.soon(spans.note_receipts, account.client_id, account.pk, said, time.time())
    return [each for each in reported if each.provider_message_id not in applied]


def _settle_one_of(
    events: list[Event], adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome, *, tried: bool
) -> bool:
    """Settle one event of a batch. What never comes to rest keeps a batch from nothing: it is stored, and replayed."""
    try:
        return settle(adapter, account, event, outcome, tried=tried)
    except UnavailableError:
        if len(events) == 1:
            raise  # the provider delivers it again sooner
        log.warning("event not settled, too much happens at once: account=%s", account.pk)
        return False


def settle(adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome, *, tried: bool = False) -> bool:
    """Settle one event of the account, count it in `outcome` and return whether that succeeded.

    tried: the fast way was tried for it in vain

    Raises what means that the provider should deliver it again: OperationalError, InterfaceError, UnavailableError.
    """
    try:
        _settle(adapter, account, event, outcome, tried=tried)
    except (OperationalError, InterfaceError, UnavailableError):
        raise
    except Exception:
        log.exception("event not settled: account=%s", account.pk)
        return False
    return True


def _settle(adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome, *, tried: bool = False) -> None:
    if isinstance(event, InboundMessage):
        messages.settle(account.client, inbound_text(account, event, timezone.now()), append_tried=tried)
        outcome.messages += 1
    elif isinstance(event, Receipt):
        if receipts.apply(account, event, keep=lambda: unprocessed.store_receipt(adapter, account, event)):
            outcome.receipts += 1
            said = [(event.provider_message_id, event.status.value)]
            spans.note_receipts(account.client_id, account.pk, said, time.time())
        else:
            outcome.recorded += 1
    elif isinstance(event, WatermarkReceipt):
        receipts.apply_watermark(account, event, keep=lambda: unprocessed.store_watermark(adapter, account, event))
        outcome.receipts += 1
    else:
        _follow(account, event)
        if not store_happened(account, event):
            unprocessed.store_unhandled(adapter, account, event, event.reason)
        outcome.recorded += 1


def store_happened(account: ChannelAccount, event: Unhandled) -> bool:
    """Store what the event says that happened in the conversation that it belongs to; False if there is none."""
    if isinstance(event.happened, Activity):
        return activities.store(account, event.happened, timezone.now())
    if isinstance(event.happened, ColleagueMessage):
        return colleagues.store(account, event.happened, timezone.now())
    return False


def _follow(account: ChannelAccount, event: Unhandled) -> None:
    """Follow the changes of address and the choice about marketing that the event reports, once: when it is delivered
    again, the old address may be somebody else's, and the person may have chosen otherwise."""
    if choice := event.marketing:
        key = dedupe_key(f"{account.pk} marketing", choice.change_id)
        with transaction.atomic():
            if key is None or is_first_time(account.client_id, key, timezone.now()):
                person = _person(choice.sender)
                opt_outs.choose_marketing(account.client, account.channel, person, stop=choice.stop, now=timezone.now())
    for moved in event.moved:
        key = dedupe_key(f"{account.pk} {moved.before}", event.message_id)
        with transaction.atomic():
            if key is None or is_first_time(account.client_id, key, timezone.now()):
                address_changes.change_address(account.client, account.channel, moved, event.message_id)


def is_too_old(event: InboundMessage, now: datetime) -> bool:
    """Return whether the message was sent so long ago that a tombstone of it would have expired.

    No provider delivers it as late as that. A captured webhook that somebody posts again would open a conversation with
    a message that was deleted.
    """
    return event.occurred_at is not None and now - event.occurred_at > TOMBSTONES_LAST


def _is_stored(account: ChannelAccount, event: InboundMessage) -> bool:
    return messages.is_stored(account.client_id, inbound_text(account, event, timezone.now()))


def inbound_text(account: ChannelAccount, event: InboundMessage, now: datetime) -> messages.InboundText:
    """Return the message that the provider's event brings to the account."""
    sender = event.sender
    return messages.InboundText(
        channel=account.channel,
        person=_person(sender),
        text=event.text,
        message_id=event.message_id,
        at=now,
        scope=account.key,
        thread=threads.thread_of(account),
        metadata=dict(event.metadata) | _manner(event, now),
        intent=event.intent,
        account=account,
        media=event.media,
    )


def _person(sender: Sender) -> Person:
    return Person(
        address=sender.address,
        kind=sender.kind,
        phone=sender.phone,
        name=sender.name or "",
        aliases=tuple((kind.value, address) for kind, address in sender.aliases),
    )


def _manner(event: InboundMessage, now: datetime) -> dict[str, str]:
    """Metadata: the kind of a message that is no text, and the time of sending of a late one."""
    manner = {"kind": event.kind} if event.kind != "text" else {}
    return manner | placeholders.sent_late(event.occurred_at, now)
