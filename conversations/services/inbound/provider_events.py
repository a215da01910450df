"""Provider events: which account a webhook is for, whether it is signed, and each event of the batch settled."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Account, Adapter, InboundRequest, WebhookResponse
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled, WatermarkReceipt
from conversations.models import ChannelAccount
from conversations.services.contacts import address_changes
from conversations.services.core.dedupe import dedupe_key, is_first_time
from conversations.services.core.errors import UnavailableError
from conversations.services.core.person import Person
from conversations.services.delivery import receipts, receipts_bulk
from conversations.services.delivery.reply_window import SENT_AT
from conversations.services.inbound import messages, unprocessed
from conversations.services.tenants import account_cache
from conversations.services.tenants.account_cache import KnownAccount
from conversations.services.tenants.channel_accounts import as_account

log = logging.getLogger(__name__)

# A payload that names no account of ours is checked against all secrets, within these limits: a stranger may send it.
MOST_SECRETS_TRIED = 500
MOST_BYTES_HASHED = 50_000_000
LATE = timedelta(minutes=1)  # a message that took longer gets its time of sending in the metadata


@dataclass(slots=True)
class Outcome:
    """Counts for a batch: messages settled, receipts applied, and events stored for staff to look at."""

    messages: int = 0
    receipts: int = 0
    recorded: int = 0


def handshake(request: InboundRequest, channel: str) -> WebhookResponse:
    """Return the answer to a provider's GET that checks who owns the webhook address; 403 if no account matches."""
    for adapter in registry.adapters_of(channel):
        if answer := adapter.handshake(request, _plain_accounts(adapter)):
            return answer
    return WebhookResponse(status=403, body="No account has this verify token.")


def _plain_accounts(adapter: Adapter) -> Iterator[Account]:
    """The adapter's accounts as plain values, read lazily."""
    for account in active_accounts(adapter):
        yield as_account(account)


# --- a webhook --------------------------------------------------------------------------------------------------------
class _Payload:
    """A webhook and its events, which are parsed once, whichever way it takes."""

    def __init__(self, request: InboundRequest, adapter: Adapter, addresses: list[str]) -> None:
        self.request, self.adapter, self.addresses = request, adapter, addresses
        self._events: list[Event] | None = None
        self._error: Exception | None = None

    def events(self) -> list[Event]:
        """Return the events of the batch. Raises what the adapter raises, the same each time."""
        if self._error:
            raise self._error
        if self._events is None:
            try:
                self._events = self.adapter.parse(self.request)
            except Exception as error:
                self._error = error
                raise
        return self._events


@dataclass(frozen=True, slots=True)
class _Tried:
    """A try of the fast way that left events over: the version of the account, and these events."""

    version: str
    events: list[Event]


def receive(request: InboundRequest, adapter: Adapter) -> Outcome:
    """Settle or keep every event of a request of the adapter's provider.

    A request that an account of ours signed is answered with 200 even if it cannot be read or we fail to process it: it
    is kept, and the sweep retries what is our fault. Otherwise the provider would deliver it again for days.

    Raises InboundError if no account that it names (any, if it names none) has signed it.
    """
    try:
        payload = _Payload(request, adapter, adapter.addresses(request))
    except Exception as error:
        return _keep_unread(adapter, request, error)
    outcome = _receive_fast(payload)
    return outcome if isinstance(outcome, Outcome) else _receive(payload, outcome)


def _receive_fast(payload: _Payload) -> Outcome | _Tried | None:
    """Settle the usual request with one statement: one message to an active conversation, or receipts of messages on
    their way, signed for an account in the cache. Returns the outcome, what was tried in vain, or None."""
    known = account_cache.find(payload.adapter, payload.addresses[0]) if len(payload.addresses) == 1 else None
    if known is None or not _signed(payload.adapter, payload.request, known.plain):
        log.debug("not the fast way: account not in the cache, or another secret")
        return None
    try:
        events = payload.events()
    except Exception as error:  # the general way tells what it is, and keeps it
        log.debug("not the fast way: %s", type(error).__name__)
        return None
    if any(event.account != known.row.address for event in events):
        log.debug("not the fast way: several accounts")
        return None
    if len(events) == 1 and isinstance(message := events[0], InboundMessage):
        return _append_at_once(known, message)
    reported = [event for event in events if isinstance(event, Receipt)]
    if not reported or len(reported) < len(events):
        log.debug("not the fast way: kinds of events")
        return None
    left = _after_plain(reported, known.row, known.version)
    return _Tried(known.version, list(left)) if left else Outcome(receipts=len(reported))


def _append_at_once(known: KnownAccount, message: InboundMessage) -> Outcome | _Tried | None:
    try:
        appended = messages.append_from(known.row, known.version, _inbound_text(known.row, message))
    except (OperationalError, InterfaceError):
        raise
    except IntegrityError:
        log.debug("not the fast way: the same message at the same moment")
        return None
    except Exception:
        log.exception("message not appended at once: account=%s", known.row.pk)
        return None
    return Outcome(messages=1) if appended else _Tried(known.version, [message])


def _after_plain(reported: list[Receipt], account: ChannelAccount, version: str | None = None) -> list[Receipt]:
    """Apply the receipts that only move messages on, all at once, and return the others."""
    plain = receipts_bulk.simple_receipts(reported)
    try:
        applied = receipts_bulk.apply(account.pk, plain, version) if plain else set()
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("receipts not applied at once: account=%s", account.pk)
        return reported
    return [each for each in reported if each.provider_message_id not in applied]


def _receive(payload: _Payload, tried: _Tried | None) -> Outcome:
    """Settle or keep every event, with the accounts as they are now."""
    adapter, request = payload.adapter, payload.request
    found = active_accounts(adapter).filter(address__in=payload.addresses).annotate(version=account_cache.VERSION)
    accounts = {account.address: account for account in found}
    verified = _verified(adapter, request, accounts)
    account_cache.remember(verified.values())
    try:
        events = payload.events()
    except Exception as error:
        only = next(iter(verified.values())) if len(payload.addresses) == len(verified) == 1 else None
        unprocessed.store_request(adapter, only, request, _unread(error))
        return Outcome(recorded=1)
    if tried and [each.version for each in found] == [tried.version]:  # nothing changed since: it need not be repeated
        settled = len(events) - len(tried.events)
        return _settle_all(adapter, request, tried.events, verified, Outcome(receipts=settled), tried=True)
    refused = accounts.keys() - verified.keys()
    left = [event for event in events if event.account not in refused]
    return _settle_all(adapter, request, left, verified)


def signer(adapter: Adapter, request: InboundRequest) -> ChannelAccount | None:
    """Return the account that signed a request about a single account; None if the request names none of ours.

    Raises InboundError (`invalid_signature`).
    """
    try:
        named = adapter.addresses(request)
    except InboundError:
        named = []
    accounts = {account.address: account for account in active_accounts(adapter).filter(address__in=named)}
    return next(iter(_verified(adapter, request, accounts).values()), None)


def active_accounts(adapter: Adapter) -> QuerySet[ChannelAccount]:
    """Return the active accounts of the adapter's provider and channel."""
    return ChannelAccount.objects.select_related("client", "assistant").filter(
        provider=adapter.provider, channel=adapter.channel, is_active=True, client__is_active=True
    )


def _keep_unread(adapter: Adapter, request: InboundRequest, error: Exception) -> Outcome:
    """Store a payload that names no account, if an account of ours signed it. Raises InboundError if none did."""
    reason = _unread(error)
    if not _signed_by_any(adapter, request):
        unprocessed.count_refused(adapter, None, timezone.now())
        raise error if isinstance(error, InboundError) else _not_signed()
    unprocessed.store_request(adapter, None, request, reason)
    return Outcome(recorded=1)


def _unread(error: Exception) -> str:
    """The reason for which an unreadable request is stored: malformed, or a fault of ours."""
    if isinstance(error, InboundError):
        return unprocessed.MALFORMED
    log.error("webhook not read", exc_info=error)
    return unprocessed.PROCESSING_FAILED


def _verified(
    adapter: Adapter, request: InboundRequest, accounts: Mapping[str, ChannelAccount]
) -> dict[str, ChannelAccount]:
    """The named accounts whose secret signed the request; all events of the others are refused.

    A payload that names no account of ours may still be the provider's own, which any account's secret shows. Raises
    InboundError (`invalid_signature`).
    """
    verified = {
        address: account for address, account in accounts.items() if _signed(adapter, request, as_account(account))
    }
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
    """Return whether any account of ours signed the request: some events of Meta's name no number."""
    most = min(MOST_SECRETS_TRIED, MOST_BYTES_HASHED // max(len(request.body), 1))
    for account in active_accounts(adapter).select_related(None)[:most]:
        if _signed(adapter, request, as_account(account)):
            return True
    log.warning("signature refused: provider=%s", adapter.provider)
    return False


def _signed(adapter: Adapter, request: InboundRequest, account: Account) -> bool:
    try:
        adapter.verify(request, account)
    except InboundError:
        return False
    return True


def _settle_all(
    adapter: Adapter,
    request: InboundRequest,
    events: list[Event],
    accounts: Mapping[str, ChannelAccount],
    outcome: Outcome | None = None,
    *,
    tried: bool = False,
) -> Outcome:
    """Settle or keep the events and return `outcome`, in which they are counted. `tried`: the fast way was tried for
    them in vain."""
    outcome = outcome or Outcome()
    unsettled: dict[str, list[Event]] = {}
    for event in events if tried else _without_plain_receipts(events, accounts, outcome):
        account = accounts.get(event.account)
        if account is None and isinstance(event, Unhandled):
            unprocessed.store_unhandled(adapter, None, event, unprocessed.UNKNOWN_ACCOUNT)
            outcome.recorded += 1
        elif account is None or not settle(adapter, account, event, outcome, tried=tried):
            unsettled.setdefault(event.account, []).append(event)
    for address, those in unsettled.items():
        reason = unprocessed.PROCESSING_FAILED if address in accounts else unprocessed.UNKNOWN_ACCOUNT
        unprocessed.store_events(adapter, accounts.get(address), request, those, reason)
        outcome.recorded += len(those)
    return outcome


def _without_plain_receipts(
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
        unclear = _after_plain(theirs, accounts[address])
        outcome.receipts += len(theirs) - len(unclear)
        left += unclear
    return left


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
        messages.settle(account.client, _inbound_text(account, event), append_tried=tried)
        outcome.messages += 1
    elif isinstance(event, Receipt):
        if receipts.apply(account, event, keep=lambda: unprocessed.store_receipt(adapter, account, event)):
            outcome.receipts += 1
        else:
            outcome.recorded += 1
    elif isinstance(event, WatermarkReceipt):
        receipts.apply_watermark(account, event, keep=lambda: unprocessed.store_watermark(adapter, account, event))
        outcome.receipts += 1
    else:
        _follow(account, event)
        unprocessed.store_unhandled(adapter, account, event, event.reason)
        outcome.recorded += 1


def _follow(account: ChannelAccount, event: Unhandled) -> None:
    """Follow the changes of address that the event reports, once: when it is delivered again, the old address may be
    somebody else's."""
    for moved in event.moved:
        key = dedupe_key(f"{account.pk} {moved.before}", event.message_id)
        with transaction.atomic():
            if key is None or is_first_time(key, timezone.now()):
                address_changes.change_address(account.client, account.channel, moved, event.message_id)


def _inbound_text(account: ChannelAccount, event: InboundMessage) -> messages.InboundText:
    sender, now = event.sender, timezone.now()
    return messages.InboundText(
        channel=account.channel,
        person=Person(
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
    """Metadata: the kind of a message that is no text, and the time of sending of a late one."""
    manner = {"kind": event.kind} if event.kind != "text" else {}
    if event.occurred_at and now - event.occurred_at > LATE:
        manner["sent_at"] = event.occurred_at.astimezone(UTC).strftime(SENT_AT)
    return manner
