"""The simulated provider's answers to what Convo sends and asks, well or badly as was planned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext, gettext_noop

from channels_out.contract import Account, InboundRequest
from channels_out.errors import UnknownAdapterError
from channels_out.simulators.contract import AcceptedMessage, InjectedFault, SimulatedResponse, Simulator
from conversations.models import ChannelAccount, SimulatedExchange, SimulatedFault
from conversations.services.core.errors import InvalidError
from conversations.services.simulator import phone_files
from conversations.services.simulator.accounts import SANDBOX, simulator_of
from conversations.services.simulator.exchanges import (
    as_text,
    masked_headers,
    person_number,
    trim,
    without_secrets,
)
from conversations.services.simulator.phone_files import ChosenFile, StoredFile
from conversations.services.tenants.channel_accounts import as_account

MOST_FAULTS = 20

Kind = SimulatedExchange.Kind


@dataclass(frozen=True, slots=True)
class Answer:
    """The provider's answer, with the file that it is, if it is one."""

    response: SimulatedResponse
    file: StoredFile | None = None


def answer_request(
    account_id: UUID, request: InboundRequest, now: datetime, *, upload: ChosenFile | None = None
) -> Answer | None:
    """Return the simulated provider's answer to a request of ours; None if there is no such simulated account.

    upload: the file that is in the request's body

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
        return Answer(simulator.failure(InjectedFault.REFUSED))
    sends = simulator.sends(plain, request)
    misbehaviour = _next_fault(account) if sends else None
    answered = _answer_about_file(account, simulator, plain, request)
    answered = answered or Answer(simulator.answer(plain, request, misbehaviour))
    exchange = _exchange_of(account, request, answered.response, upload, now)
    exchange.kind, exchange.note = Kind.SEND if sends else Kind.QUESTION, misbehaviour or ""
    exchange.address = without_secrets(request.url, plain.credentials)
    exchange.headers = masked_headers(request.headers, plain.credentials)
    exchange.save()
    trim(account)
    return answered


def _answer_about_file(
    account: ChannelAccount, simulator: Simulator, plain: Account, request: InboundRequest
) -> Answer | None:
    """Return a file that a person sent, or its record; None if the request asks for none that is there."""
    wanted = simulator.media_request(plain, request)
    found = phone_files.find(account, media_id=wanted.media_id) if wanted else None
    if wanted is None or found is None:
        return None
    if wanted.is_for_content:
        return Answer(SimulatedResponse(body=f"({found.name})", content_type=found.content_type), found)
    return Answer(simulator.media_record(plain, found.as_sent()))


def _exchange_of(
    account: ChannelAccount,
    request: InboundRequest,
    answered: SimulatedResponse,
    upload: ChosenFile | None,
    now: datetime,
) -> SimulatedExchange:
    taken, details = answered.taken, {}
    if taken:
        details = {**_facts(taken), **phone_files.hand_over(account, taken.file)}
    if upload and answered.uploaded:
        details = {"file": phone_files.keep_upload(account, upload, answered.uploaded).details}
    exchange = SimulatedExchange(
        account=account,
        person=person_number(account, taken.to) if taken else 0,
        message_id=taken.message_id if taken else "",
        text=taken.text if taken else "",
        details=details,
        method=request.method,
        content_type=request.headers.get("content-type", "")[:100],
        body=f"({upload.name}, {upload.size:,} bytes)" if upload else as_text(request.body),
        sent_at=now,
        answered_at=now,
    )
    if answered.silent:
        exchange.problem = gettext_noop("The provider accepted the request and never answered.")
    else:
        exchange.status, exchange.answer = answered.status, answered.body
        exchange.answer_headers = {"content-type": answered.content_type, **answered.headers}
    return exchange


def plan_faults(account: ChannelAccount, fault: str, times: int = 1) -> None:
    """Let the account's next `times` sends fail in this way, after the faults that are planned already.

    fault: a value of InjectedFault

    At most MOST_FAULTS are planned. Raises InvalidError (`no_such_misbehaviour`).
    """
    if account.provider == SANDBOX or fault not in simulator_of(account).faults:
        raise InvalidError(gettext("This provider cannot fail in this way."), code="no_such_misbehaviour")
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
        SimulatedFault.objects.filter(client=account.client_id, pk=fault.pk).delete()
    return InjectedFault(fault.misbehaviour)


def _facts(taken: AcceptedMessage) -> dict[str, Any]:
    """Return what a later receipt or gesture needs of the message."""
    names = ("to", "our_message_id", "reply_to", "report_to")
    return {name: getattr(taken, name) for name in names} | {"choices": [list(each) for each in taken.choices]}
