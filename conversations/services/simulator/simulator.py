"""The channel simulator: play a provider that posts webhooks to Convo over HTTP and answers its sends.

There is no short cut: a played message passes the network, the signature and the adapter, and a reply comes from the
dispatcher. The row is written first, then the request is sent, then the outcome is written; no transaction and no
connection is held meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from channels_out import http
from channels_out.contract import InboundRequest
from channels_out.errors import SendError, UnknownAdapterError
from channels_out.kinds import ReceiptStatus
from channels_out.shapes import clean_text
from channels_out.simulators.contract import (
    AcceptedMessage,
    InjectedFault,
    SimulatedMessage,
    SimulatedResponse,
    UnsignedWebhook,
)
from channels_out.simulators.people import PEOPLE, SimulatedPerson
from conversations.models import ChannelAccount, SimulatedExchange, SimulatedFault
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.sql import release_connection
from conversations.services.simulator import phone
from conversations.services.simulator.accounts import SANDBOX, simulator_of
from conversations.services.tenants.channel_accounts import as_account

MOST_KEPT = 300  # exchanges of an account
MOST_FAULTS = 20
LONGEST_KEPT = 20_000  # characters of a body
LATE = timedelta(hours=2)
TIMEOUT = (5.0, 30.0)  # seconds to connect to our own server, and to wait for its answer
MASK = "••••"
WEBHOOKS = "/webhooks/"  # the only paths that a provider posts to

Kind = SimulatedExchange.Kind


class Delivery(StrEnum):
    """Ways in which the provider delivers a message."""

    ONCE = "once"
    TWICE = "twice"
    HELD = "held"
    LATE = "late"
    BADLY_SIGNED = "badly_signed"


# --- what the provider posts -----------------------------------------------------------------------------------------
def write_message(
    account: ChannelAccount, person: SimulatedPerson, text: str, *, delivery: Delivery = Delivery.ONCE, now: datetime
) -> SimulatedExchange:
    """Let the person write (or say) the text, and the provider deliver it. Returns the (first) exchange.

    Raises ConflictError (`no_call`) if it is a voice account and nobody listens just now.
    """
    simulator = simulator_of(account)
    at = now - LATE if delivery is Delivery.LATE else now
    said, details = SimulatedMessage(text, simulator.new_message_id(), at), {}
    if simulator.is_call:
        call = phone.current_call(account, person)
        if not call.path:
            raise ConflictError(f"{person.name} cannot speak now. Let them call, or wait.", code="no_call")
        said, details = (
            SimulatedMessage(text, turn_id(call.call_id, call.path), at, call.call_id, call.path),
            {"call": call.call_id},
        )
    webhook = simulator.message(as_account(account), person, said)
    exchange = new_webhook(
        account, person, Kind.MESSAGE, webhook, message_id=said.message_id, text=text, details=details
    )
    if delivery is Delivery.HELD:
        return exchange
    post(exchange, badly_signed=delivery is Delivery.BADLY_SIGNED, note=NOTES.get(delivery, ""))
    if delivery is Delivery.TWICE:
        deliver(account, exchange.pk)
    return exchange


NOTES = {
    Delivery.LATE: f"delivered {LATE.seconds // 3600} hours late",
    Delivery.BADLY_SIGNED: "signed with a wrong secret",
}


def deliver(account: ChannelAccount, exchange_id: int) -> SimulatedExchange:
    """Let the provider deliver the exchange (again): the same body, signed anew. Returns the exchange.

    Raises NotFoundError, or ConflictError (`being_delivered`).
    """
    exchange = _webhooks(account).filter(pk=exchange_id).first()
    if exchange is None:
        raise NotFoundError("This webhook is no longer in the log.")
    if exchange.is_held:
        taken = SimulatedExchange.objects.filter(pk=exchange.pk, sent_at=None).update(sent_at=timezone.now())
        if not taken:
            raise ConflictError("Somebody else is delivering this webhook just now.", code="being_delivered")
        post(exchange, note="held back until now")
        return exchange
    again = new_webhook(
        account,
        exchange.person,
        exchange.kind,
        UnsignedWebhook(exchange.address, exchange.body.encode(), exchange.content_type, exchange.method),
        message_id=exchange.message_id,
        text=exchange.text,
        details=exchange.details,
    )
    post(again, note="delivered again")
    return again


def report_receipt(account: ChannelAccount, message_id: str, status: str, now: datetime) -> SimulatedExchange:
    """Let the provider report the status of a message that it accepted. Returns the exchange.

    status: a value of ReceiptStatus

    Raises NotFoundError, or InvalidError (`no_such_receipt`) for a status that this provider never reports.
    """
    simulator = simulator_of(account)
    sent = _exchanges_of(account).filter(kind=Kind.SEND, message_id=message_id).exclude(message_id="").first()
    if sent is None:
        raise NotFoundError("The provider does not know this message.")
    if status not in simulator.receipts:
        raise InvalidError(f"This provider never reports the status {status!r}.", code="no_such_receipt")
    taken = AcceptedMessage(
        message_id=message_id,
        to=sent.details.get("to", ""),
        text=sent.text,
        our_message_id=sent.details.get("our_message_id", ""),
        reply_to=sent.details.get("reply_to", ""),
        report_to=sent.details.get("report_to", ""),
        sequence=_exchanges_of(account).filter(kind=Kind.RECEIPT, message_id=message_id).count(),
    )
    webhook = simulator.receipt(as_account(account), taken, ReceiptStatus(status), now)
    exchange = new_webhook(
        account, sent.person, Kind.RECEIPT, webhook, message_id=message_id, details={"status": status}
    )
    post(exchange, note=status)
    return exchange


def post(exchange: SimulatedExchange, *, badly_signed: bool = False, note: str = "") -> None:
    """Sign the exchange's webhook, post it to our own server, and store the answer.

    badly_signed: sign it with a wrong secret
    note: shown beside the exchange
    """
    account = exchange.account
    simulator, plain = simulator_of(account), as_account(account)
    exchange.sent_at = timezone.now()
    exchange.note = exchange.note or note
    webhook = UnsignedWebhook(exchange.address, exchange.body.encode(), exchange.content_type, exchange.method)
    signer = simulator.with_wrong_secret(plain) if badly_signed else plain
    headers = {
        "Host": urlsplit(settings.PUBLIC_BASE_URL).netloc,
        "Content-Type": webhook.content_type,
        **simulator.signed(signer, webhook, settings.PUBLIC_BASE_URL + webhook.path, exchange.sent_at),
    }
    exchange.headers = _masked(headers, signer.credentials)
    exchange.save()
    release_connection()
    try:
        answer = http.post_bytes(
            settings.INTERNAL_BASE_URL + webhook.path, webhook.body, headers=headers, timeout=TIMEOUT
        )
    except SendError as error:
        exchange.problem = str(error)[:200]
    else:
        exchange.status = answer.status
        exchange.answer_headers = dict(answer.headers)
        exchange.answer = _kept(answer.body)
        if simulator.is_call and not badly_signed:  # the caller does not hear the answer to a forged request
            exchange.details |= {"heard": asdict(simulator.heard(answer))}
    exchange.answered_at = timezone.now()
    exchange.save()


def turn_id(call_id: str, path: str) -> str:
    """Return the id of one turn of a call: the path to which it is posted tells it from others."""
    return f"{call_id} {path}"


# --- what the provider answers ---------------------------------------------------------------------------------------
def answer_request(account_id: UUID, request: InboundRequest, now: datetime) -> SimulatedResponse | None:
    """Return the simulated provider's answer to a request of ours; None if there is no such simulated account.

    A request without the account's credentials is refused, and not stored.
    """
    account = ChannelAccount.objects.filter(
        pk=account_id, is_simulated=True, is_active=True, client__is_active=True
    ).first()
    if account is None:
        return None
    try:
        simulator = simulator_of(account)
    except UnknownAdapterError:
        return None
    plain = as_account(account)
    if not simulator.knows(plain, request):
        return simulator.failure(InjectedFault.REFUSED)
    sends = simulator.sends(plain, request)
    misbehaviour = _next_fault(account) if sends else None
    answered = simulator.answer(plain, request, misbehaviour)
    taken = answered.taken
    exchange = SimulatedExchange(
        account=account,
        kind=Kind.SEND if sends else Kind.QUESTION,
        person=_number_of(account, taken.to) if taken else 0,
        message_id=taken.message_id if taken else "",
        text=taken.text if taken else "",
        note=misbehaviour or "",
        details=_facts(taken) if taken else {},
        method=request.method,
        address=_hidden(request.url, plain.credentials),
        headers=_masked(request.headers, plain.credentials),
        content_type=request.headers.get("content-type", "")[:100],
        body=_kept(request.body),
        sent_at=now,
        answered_at=now,
    )
    if answered.silent:
        exchange.problem = "The provider accepted the request and never answered."
    else:
        exchange.status, exchange.answer = answered.status, answered.body
        exchange.answer_headers = {"content-type": answered.content_type, **answered.headers}
    exchange.save()
    _trim(account)
    return answered


def plan_faults(account: ChannelAccount, fault: str, times: int = 1) -> None:
    """Let the account's next `times` sends fail in this way, after the faults that are planned already.

    fault: a value of InjectedFault

    At most MOST_FAULTS are planned. Raises InvalidError (`no_such_misbehaviour`).
    """
    if account.provider == SANDBOX or fault not in simulator_of(account).faults:
        raise InvalidError("This provider cannot fail in this way.", code="no_such_misbehaviour")
    planned = SimulatedFault.objects.filter(account=account).count()
    times = max(0, min(times, MOST_FAULTS - planned))
    SimulatedFault.objects.bulk_create(SimulatedFault(account=account, misbehaviour=fault) for _ in range(times))


def clear_faults(account: ChannelAccount) -> None:
    """Delete the planned faults, so that the next sends succeed."""
    SimulatedFault.objects.filter(account=account).delete()


def _next_fault(account: ChannelAccount) -> InjectedFault | None:
    """Take the oldest planned fault and return it, or None. Each counts for one send."""
    with transaction.atomic():
        waiting = SimulatedFault.objects.select_for_update(skip_locked=True).filter(account=account)
        fault = waiting.order_by("id").first()
        if fault is None:
            return None
        fault.delete()
    return InjectedFault(fault.misbehaviour)


def _facts(taken: AcceptedMessage) -> dict[str, str]:
    """Return what a later receipt needs of the message."""
    return {name: getattr(taken, name) for name in ("to", "our_message_id", "reply_to", "report_to")}


# --- the rows --------------------------------------------------------------------------------------------------------
def _exchanges_of(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    return SimulatedExchange.objects.filter(account=account).order_by("-id")


def _webhooks(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    return _exchanges_of(account).select_related("account").exclude(kind__in=[Kind.SEND, Kind.QUESTION])


def new_webhook(
    account: ChannelAccount,
    person: SimulatedPerson | int,
    kind: str,
    webhook: UnsignedWebhook,
    *,
    message_id: str = "",
    text: str = "",
    details: Mapping[str, Any] | None = None,
) -> SimulatedExchange:
    """Store a webhook that is to be posted, and return its row.

    Raises InvalidError (`no_webhook`) if its path is none of our webhooks.
    """
    if not webhook.path.startswith(WEBHOOKS):
        raise InvalidError(f"A provider posts only to paths below {WEBHOOKS}.", code="no_webhook")
    exchange = SimulatedExchange.objects.create(
        account=account,
        kind=kind,
        person=person.number if isinstance(person, SimulatedPerson) else person,
        message_id=message_id,
        text=text,
        details={name: value for name, value in (details or {}).items() if name != "heard"},
        method=webhook.method,
        address=webhook.path,
        content_type=webhook.content_type,
        body=webhook.body.decode(),
    )
    _trim(account)
    return exchange


def _trim(account: ChannelAccount) -> None:
    """Delete all but the account's newest MOST_KEPT exchanges."""
    oldest = _exchanges_of(account).values_list("pk", flat=True)[MOST_KEPT : MOST_KEPT + 1]
    for pk in oldest:
        SimulatedExchange.objects.filter(account=account, pk__lte=pk).delete()


def _number_of(account: ChannelAccount, address: str) -> int:
    simulator = simulator_of(account)
    return next((each.number for each in PEOPLE if simulator.address_of(each) == address.removeprefix("+")), 0)


def _masked(headers: Mapping[str, str], credentials: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with authorisations and the account's secrets masked."""
    shown = {}
    for name, value in headers.items():
        scheme, _, rest = value.partition(" ")
        if name.lower() in ("authorization", "proxy-authorization", "cookie"):
            value = f"{scheme} {MASK}" if rest else MASK
        shown[name] = _hidden(clean_text(value), credentials)
    return shown


def _hidden(text: str, credentials: Mapping[str, str]) -> str:
    for secret in credentials.values():
        for part in secret.replace(",", " ").split():
            text = text.replace(part, MASK) if len(part) > 5 else text
    return text


def _kept(body: bytes) -> str:
    return clean_text(body.decode("utf-8", "replace"))[:LONGEST_KEPT]
