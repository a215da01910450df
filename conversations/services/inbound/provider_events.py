"""What providers deliver: whose it is, whether it is signed, and each event of the batch settled on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Account, Adapter, Answer, InboundRequest
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, ReachedUntil, Receipt, Unhandled
from conversations.models import ChannelAccount
from conversations.services.contacts import address_changes
from conversations.services.contacts.contacts import Person
from conversations.services.core.append_sql import dedupe_key
from conversations.services.core.errors import UnavailableError
from conversations.services.core.sql import row
from conversations.services.delivery import receipts, receipts_bulk
from conversations.services.delivery.reply_window import SENT_AT
from conversations.services.inbound import messages as inbound
from conversations.services.inbound import unprocessed
from conversations.services.retention.deletions import TOMBSTONE_DAYS
from conversations.services.tenants import account_cache
from conversations.services.tenants.account_cache import KnownAccount
from conversations.services.tenants.channel_accounts import as_account

log = logging.getLogger(__name__)

# What names no account of ours is held against all secrets, as far as a stranger may keep us busy.
MOST_SECRETS_TRIED = 500
MOST_BYTES_HASHED = 50_000_000
LATE = timedelta(minutes=1)  # a message that took longer to come says so


@dataclass(slots=True)
class Outcome:
    """What became of a batch: messages settled, receipts applied, and events kept to be looked at."""

    messages: int = 0
    receipts: int = 0
    recorded: int = 0


def handshake(request: InboundRequest, channel: str) -> Answer:
    """The answer to a provider's GET that asks whether the address is ours."""
    for adapter in registry.adapters_of(channel):
        if answer := adapter.handshake(request, _plain_accounts(adapter)):
            return answer
    return Answer(status=403, body="No account has this verify token.")


def _plain_accounts(adapter: Adapter) -> Iterator[Account]:
    """The adapter's accounts, read once somebody wants the first."""
    for account in active_accounts(adapter):
        yield as_account(account)


def settle_if_usual(request: InboundRequest, adapter: Adapter) -> Outcome | None:
    """What became of it, if it was as it nearly always is: one message to an active session, or receipts of messages on
    their way, signed for an account that this process knows. Otherwise receive() it, for whatever was done of it may be
    done again."""
    usual = _usual(request, adapter)
    if usual is None:
        return None
    known, events = usual
    if len(events) == 1 and isinstance(message := events[0], InboundMessage):
        return _append_at_once(known, message)
    said = [event for event in events if isinstance(event, Receipt)]
    return _apply_at_once(known, said) if said and len(said) == len(events) else None


def _usual(request: InboundRequest, adapter: Adapter) -> tuple[KnownAccount, list[Event]] | None:
    """The known account that signed the request, with its events. None where there is none, or it cannot be read: the
    thorough way meets that again, says what it is, and keeps what cannot be settled."""
    try:
        [address] = adapter.addresses(request)
        known = account_cache.find(adapter, address)
        if known is None:
            return None
        adapter.verify(request, known.plain)
        events = adapter.parse(request)
    except Exception:
        return None
    return (known, events) if all(event.account == address for event in events) else None


def _append_at_once(known: KnownAccount, message: InboundMessage) -> Outcome | None:
    try:
        appended = inbound.append_from(known.row, known.version, _arrival(known.row, message))
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("message not appended at once: account=%s", known.row.pk)
        return None
    return Outcome(messages=1) if appended else None


def _apply_at_once(known: KnownAccount, said: list[Receipt]) -> Outcome | None:
    left = _after_plain(said, known.row, known.version)
    return None if left else Outcome(receipts=len(said))


def _after_plain(said: list[Receipt], account: ChannelAccount, version: str | None = None) -> list[Receipt]:
    """The receipts that are left once those which only move messages on are applied, all at once."""
    plain = receipts_bulk.among(said)
    try:
        applied = receipts_bulk.apply(account.pk, plain, version) if plain else set()
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("receipts not applied at once: account=%s", account.pk)
        return said
    return [each for each in said if each.provider_message_id not in applied]


def receive(request: InboundRequest, adapter: Adapter) -> Outcome:
    """Every event of the request, which is the adapter's provider's, is settled or kept.

    What somebody of ours signed is answered with 200 even if it cannot be read, or we fail to process it: it is kept,
    and the sweep retries what is our fault. It would be delivered again for days otherwise.

    Raises InboundError if no account that it names (any, if it names none) has signed it.
    """
    try:
        named = adapter.addresses(request)
    except Exception as error:
        return _keep_unread(adapter, request, error)
    found = active_accounts(adapter).filter(address__in=named).annotate(version=account_cache.VERSION)
    accounts = {account.address: account for account in found}
    verified = _verified(adapter, request, accounts)
    account_cache.remember(verified.values())
    try:
        events = adapter.parse(request)
    except Exception as error:
        only = next(iter(verified.values())) if len(named) == len(verified) == 1 else None
        unprocessed.keep_request(adapter, only, request, _unread(error))
        return Outcome(recorded=1)
    refused = accounts.keys() - verified.keys()
    return _settle_all(adapter, request, [event for event in events if event.account not in refused], verified)


def signer(adapter: Adapter, request: InboundRequest) -> ChannelAccount | None:
    """The account that a request names which is about one thing alone; None: nobody's here, but the provider's own.

    Raises InboundError (`invalid_signature`).
    """
    try:
        named = adapter.addresses(request)
    except InboundError:
        named = []
    accounts = {account.address: account for account in active_accounts(adapter).filter(address__in=named)}
    return next(iter(_verified(adapter, request, accounts).values()), None)


def active_accounts(adapter: Adapter) -> QuerySet[ChannelAccount]:
    """The accounts that the adapter speaks for now."""
    return ChannelAccount.objects.select_related("client", "assistant").filter(
        provider=adapter.provider, channel=adapter.channel, is_active=True, client__is_active=True
    )


def _keep_unread(adapter: Adapter, request: InboundRequest, error: Exception) -> Outcome:
    """What names no account is kept if one of ours signed it. Raises InboundError if none did."""
    reason = _unread(error)
    if not _signed_by_any(adapter, request):
        unprocessed.count_refused(adapter, None, timezone.now())
        raise error if isinstance(error, InboundError) else _not_signed()
    unprocessed.keep_request(adapter, None, request, reason)
    return Outcome(recorded=1)


def _unread(error: Exception) -> str:
    """Why a request could not be read: its fault, or ours."""
    if isinstance(error, InboundError):
        return unprocessed.MALFORMED
    log.error("webhook not read", exc_info=error)
    return unprocessed.PROCESSING_FAILED


def _verified(
    adapter: Adapter, request: InboundRequest, accounts: Mapping[str, ChannelAccount]
) -> dict[str, ChannelAccount]:
    """Those of the named accounts whose secret signed the request; all events of the others are refused.

    A payload that names no account of ours may still be a provider's own: then any account's secret shows that.
    """
    verified = {address: account for address, account in accounts.items() if _signed(adapter, request, account)}
    for address in accounts.keys() - verified.keys():
        log.warning("signature refused: account=%s", accounts[address].pk)
        unprocessed.count_refused(adapter, accounts[address], timezone.now())
    if accounts and not verified:
        raise _not_signed()
    if not accounts and not _signed_by_any(adapter, request):
        unprocessed.count_refused(adapter, None, timezone.now())
        raise _not_signed()
    return verified


def _not_signed() -> InboundError:
    return InboundError("The signature does not fit.", code="invalid_signature")


def _signed_by_any(adapter: Adapter, request: InboundRequest) -> bool:
    """Whether one of our accounts signed it: what Meta says of an app or a business names no number."""
    most = min(MOST_SECRETS_TRIED, MOST_BYTES_HASHED // max(len(request.body), 1))
    for account in active_accounts(adapter).select_related(None)[:most]:
        if _signed(adapter, request, account):
            return True
    log.warning("signature refused: provider=%s", adapter.provider)
    return False


def _signed(adapter: Adapter, request: InboundRequest, account: ChannelAccount) -> bool:
    try:
        adapter.verify(request, as_account(account))
    except InboundError:
        return False
    return True


def _settle_all(
    adapter: Adapter, request: InboundRequest, events: Iterable[Event], accounts: Mapping[str, ChannelAccount]
) -> Outcome:
    outcome = Outcome()
    unsettled: dict[str, list[Event]] = {}
    for event in _without_plain_receipts(events, accounts, outcome):
        account = accounts.get(event.account)
        if account is None and isinstance(event, Unhandled):
            unprocessed.keep_unhandled(adapter, None, event, unprocessed.UNKNOWN_ACCOUNT)
            outcome.recorded += 1
        elif account is None or not settle(adapter, account, event, outcome):
            unsettled.setdefault(event.account, []).append(event)
    for address, those in unsettled.items():
        reason = unprocessed.PROCESSING_FAILED if address in accounts else unprocessed.UNKNOWN_ACCOUNT
        unprocessed.keep_events(adapter, accounts.get(address), request, those, reason)
        outcome.recorded += len(those)
    return outcome


def _without_plain_receipts(
    events: Iterable[Event], accounts: Mapping[str, ChannelAccount], outcome: Outcome
) -> list[Event]:
    """The other events. What only moves messages on is applied, and counted."""
    left: list[Event] = []
    said: dict[str, list[Receipt]] = {}
    for event in events:
        if isinstance(event, Receipt) and event.account in accounts:
            said.setdefault(event.account, []).append(event)
        else:
            left.append(event)
    for address, theirs in said.items():
        unclear = _after_plain(theirs, accounts[address])
        outcome.receipts += len(theirs) - len(unclear)
        left += unclear
    return left


def settle(adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome) -> bool:
    """The event is where it belongs, and counted. False: that failed, and it is not.

    Raises what means that the provider should deliver it again: the database is away, or the crowd too big.
    """
    try:
        _settle(adapter, account, event, outcome)
    except (OperationalError, InterfaceError, UnavailableError):
        raise
    except Exception:
        log.exception("event not settled: account=%s", account.pk)
        return False
    return True


def _settle(adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome) -> None:
    if isinstance(event, InboundMessage):
        inbound.settle(account.client, _arrival(account, event))
        outcome.messages += 1
    elif isinstance(event, Receipt):
        if receipts.apply(account, event, keep=lambda: unprocessed.keep_receipt(adapter, account, event)):
            outcome.receipts += 1
        else:
            outcome.recorded += 1
    elif isinstance(event, ReachedUntil):
        receipts.reach(account, event, keep=lambda: unprocessed.keep_reached(adapter, account, event))
        outcome.receipts += 1
    else:
        _follow(account, event)
        unprocessed.keep_unhandled(adapter, account, event, event.reason)
        outcome.recorded += 1


_FIRST_TIME = """
    INSERT INTO message_tombstones (dedupe_key, expires_at) VALUES ($1, $2)
    ON CONFLICT DO NOTHING RETURNING dedupe_key"""


def _follow(account: ChannelAccount, event: Unhandled) -> None:
    """Whose address is another now, once: delivered again, it would be taken for whoever has that address by then."""
    for moved in event.moved:
        key = dedupe_key(f"{account.pk} {moved.before}", event.message_id)
        with transaction.atomic():
            if key is None or row(_FIRST_TIME, key, timezone.now() + timedelta(days=TOMBSTONE_DAYS)):
                address_changes.follow(account.client, account.channel, moved, event.message_id)


def _arrival(account: ChannelAccount, event: InboundMessage) -> inbound.Arrival:
    sender, now = event.sender, timezone.now()
    return inbound.Arrival(
        channel=account.channel,
        who=Person(
            address=sender.address,
            kind=sender.kind,
            phone=sender.phone,
            name=sender.name or "",
            aliases=tuple((kind.value, address) for kind, address in sender.aliases),
        ),
        text=event.text,
        message_id=event.message_id,
        at=now,
        scope=str(account.pk),
        metadata=dict(event.metadata) | _manner(event, now),
        intent=event.intent,
        account=account,
    )


def _manner(event: InboundMessage, now: datetime) -> dict[str, str]:
    """What it was if it was no text, and when it was sent if it comes late."""
    manner = {"kind": event.kind} if event.kind != "text" else {}
    if event.occurred_at and now - event.occurred_at > LATE:
        manner["sent_at"] = event.occurred_at.astimezone(UTC).strftime(SENT_AT)
    return manner
