"""What providers deliver: whose it is, whether it is signed, and each event of the batch settled on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Adapter, Answer, InboundRequest
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, ReachedUntil, Receipt, Unhandled
from channels_out.shapes import clean_text
from conversations.models import ChannelAccount, InboundEvent
from conversations.services import inbound, receipts
from conversations.services.channel_accounts import as_account
from conversations.services.contacts import Person
from conversations.services.errors import UnavailableError
from conversations.services.reply_window import SENT_AT

log = logging.getLogger(__name__)

SECRETS_TRIED = 20
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
        accounts = [as_account(account) for account in _active(adapter)]
        if answer := adapter.handshake(request, accounts):
            return answer
    return Answer(status=403, body="No account has this verify token.")


def receive(request: InboundRequest, channel: str) -> Outcome | None:
    """Every event of the request is settled or kept. None: no provider of the channel sends such requests.

    What somebody of ours signed is answered with 200 even if it cannot be read: it would be delivered again for days.

    Raises InboundError if no account that it names (any, if it names none) has signed it.
    """
    adapter = registry.recognise(channel, request)
    if adapter is None:
        return None
    try:
        named = adapter.addresses(request)
    except InboundError:
        return _keep_unreadable(adapter, request)
    accounts = {account.address: account for account in _active(adapter).filter(address__in=named)}
    verified = _verified(adapter, request, accounts)
    events = adapter.parse(request)
    refused = accounts.keys() - verified.keys()
    return _settle_all(adapter, [event for event in events if event.account not in refused], verified)


def _active(adapter: Adapter) -> Any:
    return ChannelAccount.objects.select_related("client", "assistant").filter(
        provider=adapter.provider, channel=adapter.channel, is_active=True, client__is_active=True
    )


def _verified(
    adapter: Adapter, request: InboundRequest, accounts: Mapping[str, ChannelAccount]
) -> dict[str, ChannelAccount]:
    """Those of the named accounts whose secret signed the request; all events of the others are refused.

    A payload that names no account of ours may still be a provider's own: then any account's secret shows that.
    """
    verified = {address: account for address, account in accounts.items() if _signed(adapter, request, account)}
    if accounts and not verified:
        raise InboundError("The signature does not fit.", code="invalid_signature")
    if not accounts and not any(_signed(adapter, request, a) for a in _active(adapter)[:SECRETS_TRIED]):
        raise InboundError("The signature does not fit.", code="invalid_signature")
    return verified


def _signed(adapter: Adapter, request: InboundRequest, account: ChannelAccount) -> bool:
    try:
        adapter.verify(request, as_account(account))
    except InboundError:
        log.warning("signature refused: account=%s", account.pk)
        return False
    return True


def _settle_all(adapter: Adapter, events: Iterable[Event], accounts: Mapping[str, ChannelAccount]) -> Outcome:
    outcome = Outcome()
    for event in events:
        account = accounts.get(event.account)
        if account is None:
            _keep(adapter, None, event, "unknown_account")
            outcome.recorded += 1
            continue
        try:
            _settle(adapter, account, event, outcome)
        except (OperationalError, InterfaceError, UnavailableError):
            raise  # the database is away, or the crowd too big: the provider must deliver it again
        except Exception:
            log.exception("event not settled: account=%s", account.pk)
            _keep(adapter, account, event, "processing_failed")
            outcome.recorded += 1
    return outcome


def _settle(adapter: Adapter, account: ChannelAccount, event: Event, outcome: Outcome) -> None:
    if isinstance(event, InboundMessage):
        inbound.settle(account.client, _arrival(account, event))
        outcome.messages += 1
    elif isinstance(event, Receipt):
        if receipts.apply(account, event, keep=lambda: _keep(adapter, account, event, receipts.UNMATCHED)):
            outcome.receipts += 1
        else:
            outcome.recorded += 1
    elif isinstance(event, ReachedUntil):
        receipts.reach(account, event, keep=lambda: _keep(adapter, account, event, receipts.UNMATCHED))
        outcome.receipts += 1
    else:
        _keep(adapter, account, event, event.reason)
        outcome.recorded += 1


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
        account=account,
    )


def _manner(event: InboundMessage, now: datetime) -> dict[str, str]:
    """What it was if it was no text, and when it was sent if it comes late."""
    manner = {"kind": event.kind} if event.kind != "text" else {}
    if event.occurred_at and now - event.occurred_at > LATE:
        manner["sent_at"] = event.occurred_at.astimezone(UTC).strftime(SENT_AT)
    return manner


def _keep_unreadable(adapter: Adapter, request: InboundRequest) -> Outcome:
    _verified(adapter, request, {})
    body = clean_text(request.body.decode("utf-8", "replace"))
    InboundEvent.objects.create(provider=adapter.provider, kind="payload", reason="malformed", raw={"body": body})
    return Outcome(recorded=1)


def _keep(adapter: Adapter, account: ChannelAccount | None, event: Event, reason: str) -> None:
    kind = event.kind if isinstance(event, Unhandled | InboundMessage) else "receipt"
    raw = event.raw if isinstance(event, Unhandled) else orjson.loads(orjson.dumps(asdict(event)))
    InboundEvent.objects.create(
        client=account.client if account else None,
        channel_account=account,
        provider=adapter.provider,
        kind=kind[:40],
        reason=reason,
        message_id=_id_of(event)[:500],
        raw=raw,
    )


def _id_of(event: Event) -> str:
    """By what the event is found again."""
    if isinstance(event, ReachedUntil):
        return receipts.about_person(event.sender)
    return event.provider_message_id if isinstance(event, Receipt) else event.message_id
