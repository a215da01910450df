"""Playing a provider: its webhooks are posted over HTTP to our own door, and its answers given to our own sends.

Nothing is taken a short cut: what arrives has passed the network, the signature and the adapter, and what is sent
comes from the dispatcher. Row first, then the wire, then the outcome; no transaction or connection is held meanwhile.
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
PATIENCE = (5.0, 30.0)  # seconds to connect to our own door, and for its answer
MASK = "••••"
FORWARDED = "/webhooks/"  # what a provider posts to, and nothing else

Kind = SimulatedExchange.Kind


class Delivery(StrEnum):
    """How the provider delivers a message."""

    ONCE = "once"
    TWICE = "twice"
    HELD = "held"
    LATE = "late"
    BADLY_SIGNED = "badly_signed"


# --- what the provider posts -----------------------------------------------------------------------------------------
def write(
    account: ChannelAccount, person: SimulatedPerson, text: str, *, delivery: Delivery = Delivery.ONCE, now: datetime
) -> SimulatedExchange:
    """The person has said it, and the provider has delivered it as told. Returns the (first) exchange.

    Raises ConflictError where nothing can be said: on voice, without a call.
    """
    simulator = simulator_of(account)
    at = now - LATE if delivery is Delivery.LATE else now
    said, details = SimulatedMessage(text, simulator.new_message_id(), at), {}
    if simulator.is_call:
        line = phone.call(account, person)
        if not line.path:
            raise ConflictError(f"{person.name} cannot say anything now: let them call, or wait.", code="no_call")
        said, details = (
            SimulatedMessage(text, turn_id(line.call_id, line.path), at, line.call_id, line.path),
            {"call": line.call_id},
        )
    webhook = simulator.message(as_account(account), person, said)
    exchange = new(account, person, Kind.MESSAGE, webhook, message_id=said.message_id, text=text, details=details)
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
    """The provider has delivered it (again): the same body, signed anew. Raises NotFoundError."""
    exchange = _webhooks(account).filter(pk=exchange_id).first()
    if exchange is None:
        raise NotFoundError("It is not in the log any more.")
    if exchange.is_held:
        taken = SimulatedExchange.objects.filter(pk=exchange.pk, sent_at=None).update(sent_at=timezone.now())
        if not taken:
            raise ConflictError("Somebody else is delivering it just now.", code="being_delivered")
        post(exchange, note="held back until now")
        return exchange
    again = new(
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


def receipt(account: ChannelAccount, message_id: str, status: str, now: datetime) -> SimulatedExchange:
    """The provider has reported what became of a message that it took. Raises NotFoundError or InvalidError."""
    simulator = simulator_of(account)
    sent = _of(account).filter(kind=Kind.SEND, message_id=message_id).exclude(message_id="").first()
    if sent is None:
        raise NotFoundError("The provider knows of no such message.")
    if status not in simulator.receipts:
        raise InvalidError("This provider reports no such thing.", code="no_such_receipt")
    taken = AcceptedMessage(
        message_id=message_id,
        to=sent.details.get("to", ""),
        text=sent.text,
        our_message_id=sent.details.get("our_message_id", ""),
        reply_to=sent.details.get("reply_to", ""),
        report_to=sent.details.get("report_to", ""),
        sequence=_of(account).filter(kind=Kind.RECEIPT, message_id=message_id).count(),
    )
    webhook = simulator.receipt(as_account(account), taken, ReceiptStatus(status), now)
    exchange = new(account, sent.person, Kind.RECEIPT, webhook, message_id=message_id, details={"status": status})
    post(exchange, note=status)
    return exchange


def post(exchange: SimulatedExchange, *, badly_signed: bool = False, note: str = "") -> None:
    """Sign it as of now, post it to our own door, and keep what was answered."""
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
            settings.INTERNAL_BASE_URL + webhook.path, webhook.body, headers=headers, timeout=PATIENCE
        )
    except SendError as error:
        exchange.problem = str(error)[:200]
    else:
        exchange.status = answer.status
        exchange.answer_headers = dict(answer.headers)
        exchange.answer = _kept(answer.body)
        if simulator.is_call and not badly_signed:  # what somebody else posts does not reach the caller's ear
            exchange.details |= {"heard": asdict(simulator.heard(answer))}
    exchange.answered_at = timezone.now()
    exchange.save()


def turn_id(call_id: str, path: str) -> str:
    """What one turn of a call is known by: where it is posted tells it from others."""
    return f"{call_id} {path}"


# --- what the provider answers ---------------------------------------------------------------------------------------
def answer(account_id: UUID, request: InboundRequest, now: datetime) -> SimulatedResponse | None:
    """What the provider's end says to a request of ours; None where the account is no simulated one.

    Who lacks the account's credentials is refused, and nothing is kept of it.
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
        exchange.problem = "The provider took it and never answered."
    else:
        exchange.status, exchange.answer = answered.status, answered.body
        exchange.answer_headers = {"content-type": answered.content_type, **answered.headers}
    exchange.save()
    _trim(account)
    return answered


def misbehave(account: ChannelAccount, misbehaviour: str, times: int = 1) -> None:
    """The next sends go wrong like that, after those that were laid out before. Raises InvalidError."""
    if account.provider == SANDBOX or misbehaviour not in simulator_of(account).faults:
        raise InvalidError("The provider cannot go wrong like that.", code="no_such_misbehaviour")
    laid_out = SimulatedFault.objects.filter(account=account).count()
    times = max(0, min(times, MOST_FAULTS - laid_out))
    SimulatedFault.objects.bulk_create(SimulatedFault(account=account, misbehaviour=misbehaviour) for _ in range(times))


def behave(account: ChannelAccount) -> None:
    """The next sends go well."""
    SimulatedFault.objects.filter(account=account).delete()


def _next_fault(account: ChannelAccount) -> InjectedFault | None:
    """The oldest that is laid out, which is used up by it; each goes to one send alone."""
    with transaction.atomic():
        waiting = SimulatedFault.objects.select_for_update(skip_locked=True).filter(account=account)
        fault = waiting.order_by("id").first()
        if fault is None:
            return None
        fault.delete()
    return InjectedFault(fault.misbehaviour)


def _facts(taken: AcceptedMessage) -> dict[str, str]:
    """What a later receipt must know."""
    return {name: getattr(taken, name) for name in ("to", "our_message_id", "reply_to", "report_to")}


# --- the rows --------------------------------------------------------------------------------------------------------
def _of(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    return SimulatedExchange.objects.filter(account=account).order_by("-id")


def _webhooks(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    return _of(account).select_related("account").exclude(kind__in=[Kind.SEND, Kind.QUESTION])


def new(
    account: ChannelAccount,
    person: SimulatedPerson | int,
    kind: str,
    webhook: UnsignedWebhook,
    *,
    message_id: str = "",
    text: str = "",
    details: Mapping[str, Any] | None = None,
) -> SimulatedExchange:
    """A webhook that is yet to be posted."""
    if not webhook.path.startswith(FORWARDED):
        raise InvalidError("A provider posts to webhooks alone.", code="no_webhook")
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
    """The newest stay."""
    oldest = _of(account).values_list("pk", flat=True)[MOST_KEPT : MOST_KEPT + 1]
    for pk in oldest:
        SimulatedExchange.objects.filter(account=account, pk__lte=pk).delete()


def _number_of(account: ChannelAccount, address: str) -> int:
    simulator = simulator_of(account)
    return next((each.number for each in PEOPLE if simulator.address_of(each) == address.removeprefix("+")), 0)


def _masked(headers: Mapping[str, str], credentials: Mapping[str, str]) -> dict[str, str]:
    """The headers without what must not be shown: authorisations whole, and the account's secrets wherever they are."""
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
