"""Provider events: a webhook is checked, read and settled, in this order.

    raw bytes ─► accounts it claims to be for ─► signature ─► parse, once ─► accounts it names ─► events

`_receive_fast` does so for the usual request with one statement, and `_receive` for every other (`signatures.py`,
`settling.py`).

A stranger's body is refused before it is parsed (403). A body that an account of ours signed is answered with 200 even
if it cannot be read, because a provider would deliver the same bytes again for days: it is kept for staff.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import IntegrityError, InterfaceError, OperationalError
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Account, Adapter, InboundRequest, WebhookResponse
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, Receipt
from conversations.models import ChannelAccount
from conversations.services.core.statements import BusyError, Statements, UnclearError
from conversations.services.inbound import account_notices, messages, settling, unprocessed
from conversations.services.inbound.settling import Outcome
from conversations.services.inbound.signatures import Signatures, active_accounts
from conversations.services.tenants import account_cache
from conversations.services.tenants.account_cache import KnownAccount
from conversations.services.tenants.channel_accounts import as_account

log = logging.getLogger(__name__)


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
    """A webhook: what it claims, and its signature and events, which are read once, whichever way it takes."""

    __slots__ = ("_error", "_events", "adapter", "claimed", "request", "signatures")

    def __init__(self, request: InboundRequest, adapter: Adapter) -> None:
        self.request, self.adapter = request, adapter
        self.claimed = adapter.claimed(request)
        self.signatures = Signatures(adapter, request)
        self._events: list[Event] | None = None
        self._error: Exception | None = None

    def events(self) -> list[Event]:
        """Return the events of the batch. Raises what the adapter raises, the same each time.

        Call it only for a payload that an account of ours signed.
        """
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
    """A try of the fast way that left events over: the version of their account, and these events."""

    version: str
    events: list[Event]


async def receive(statements: Statements, request: InboundRequest, adapter: Adapter) -> Outcome:
    """Settle or keep every event of a request of the adapter's provider.

    Raises InboundError if no account that it claims to be for (any, if it claims none of ours) has signed it, or
    OperationalError where it is not known whether a message was stored.
    """
    payload = _Payload(request, adapter)
    try:
        outcome = await _receive_fast(statements, payload)
    except BusyError:
        outcome = None
    except UnclearError:
        if any(isinstance(event, InboundMessage) and not event.message_id for event in payload.events()):
            raise OperationalError("The connection was lost while a message without an id was stored.") from None
        outcome = None  # what is stored is found by its id
    return outcome if isinstance(outcome, Outcome) else await statements.in_thread(_receive, payload, outcome)


async def _receive_fast(statements: Statements, payload: _Payload) -> Outcome | _Tried | None:
    """Settle the usual request with one statement: one message to an active conversation, or receipts of messages on
    their way, signed for an account in the cache. Returns the outcome, what was tried in vain, or None."""
    known = None
    for address in payload.claimed:
        if known := account_cache.find(payload.adapter, address):
            break
    if known is None or not payload.signatures.fits(known.plain):
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
        return await _append_at_once(statements, known, message)
    reported = [event for event in events if isinstance(event, Receipt)]
    if not reported or len(reported) < len(events):
        log.debug("not the fast way: kinds of events")
        return None
    left = await settling.apply_simple_receipts(statements, reported, known.row, known.version)
    return _Tried(known.version, list(left)) if left else Outcome(receipts=len(reported))


async def _append_at_once(
    statements: Statements, known: KnownAccount, message: InboundMessage
) -> Outcome | _Tried | None:
    now = timezone.now()
    if settling.is_too_old(message, now):
        log.debug("not the fast way: too old")
        return None
    try:
        text = settling.inbound_text(known.row, message, now)
        appended = await messages.append_from(statements, known.row, known.version, text)
    except (OperationalError, InterfaceError, BusyError, UnclearError):
        raise
    except IntegrityError:
        log.debug("not the fast way: the same message at the same moment")
        return None
    except Exception:
        log.exception("message not appended at once: account=%s", known.row.pk)
        return None
    return Outcome(messages=1) if appended else _Tried(known.version, [message])


def _receive(payload: _Payload, tried: _Tried | None) -> Outcome:
    """Settle or keep every event, with the accounts as they are now."""
    adapter, request, signatures = payload.adapter, payload.request, payload.signatures
    signatures.read(payload.claimed)
    signatures.require()
    try:
        events = payload.events()
        signatures.read(adapter.addresses(request))
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        unprocessed.store_request(adapter, _only_account(payload), request, _unread(error))
        return Outcome(recorded=1)
    signatures.require()
    refused = signatures.refused.keys() & {event.account for event in events}
    if refused:
        signatures.count_refused(refused)
    if tried and signatures.versions.get(tried.events[0].account) == tried.version:
        # Nothing changed since the fast way, which need not be repeated.
        settled = Outcome(receipts=len(events) - len(tried.events))
        return settling.settle_all(adapter, request, tried.events, signatures.accounts, settled, tried=True)
    account_notices.learn(adapter, request, signatures)
    left, noted = account_notices.settle(
        adapter, [event for event in events if event.account not in refused], signatures
    )
    return settling.settle_all(adapter, request, left, signatures.accounts, Outcome(recorded=noted))


def _only_account(payload: _Payload) -> ChannelAccount | None:
    accounts = list(payload.signatures.accounts.values())
    return accounts[0] if len(payload.claimed) == len(accounts) == 1 else None


def _unread(error: Exception) -> str:
    """The reason for which an unreadable request is stored: malformed, or a fault of ours."""
    if isinstance(error, InboundError):
        return unprocessed.MALFORMED
    log.error("webhook not read", exc_info=error)
    return unprocessed.PROCESSING_FAILED
