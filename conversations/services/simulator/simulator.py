"""The channel simulator: play a provider that posts webhooks to Convo over HTTP (`provider.py` answers its sends).

There is no short cut: a played message passes the network, the signature and the adapter, and a reply comes from the
dispatcher. The row is written first, then the request is sent, then the outcome is written; no transaction and no
connection is held meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from channels_out import http
from channels_out.errors import SendError
from channels_out.kinds import ReceiptStatus
from channels_out.simulators.contract import (
    AcceptedMessage,
    Gesture,
    PlayedGesture,
    SimulatedMessage,
    UnsignedWebhook,
)
from channels_out.simulators.meta import new_account_id
from channels_out.simulators.people import SimulatedPerson
from conversations.models import ChannelAccount, SimulatedExchange
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.sql import release_connection
from conversations.services.simulator import phone, phone_files
from conversations.services.simulator.accounts import simulator_of
from conversations.services.simulator.exchanges import as_text, masked_headers, new_webhook, of_account, webhooks_of
from conversations.services.simulator.phone_files import ChosenFile
from conversations.services.tenants.channel_accounts import as_account

LATE = timedelta(hours=2)
TIMEOUT = (5.0, 30.0)  # seconds to connect to our own server, and to wait for its answer

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
    account: ChannelAccount,
    person: SimulatedPerson,
    text: str,
    *,
    file: ChosenFile | None = None,
    delivery: Delivery = Delivery.ONCE,
    now: datetime,
) -> SimulatedExchange:
    """Let the person write (or say) the text, and the provider deliver it. Returns the (first) exchange.

    file: sent as well; the text is its caption, or empty

    Raises InvalidError (`blank`, and those of `phone_files.check`), or ConflictError (`no_call`) if it is a voice
    account and nobody listens just now.
    """
    if file:
        return _send_file(account, person, file, text, delivery=delivery, now=now)
    if not text.strip():
        raise InvalidError(gettext("Write something first."), code="blank")
    simulator = simulator_of(account)
    at = now - LATE if delivery is Delivery.LATE else now
    said, details = SimulatedMessage(text, simulator.new_message_id(), at), {}
    if simulator.is_call:
        call = phone.current_call(account, person)
        if not call.path:
            raise ConflictError(
                gettext("%(person)s cannot speak now. Let them call, or wait.") % {"person": person.name},
                code="no_call",
            )
        said, details = (
            SimulatedMessage(text, turn_id(call.call_id, call.path), at, call.call_id, call.path),
            {"call": call.call_id},
        )
    webhook = simulator.message(as_account(account), person, said)
    exchange = new_webhook(
        account, person, Kind.MESSAGE, webhook, message_id=said.message_id, text=text, details=details
    )
    return _deliver_as(account, exchange, delivery)


def _send_file(
    account: ChannelAccount,
    person: SimulatedPerson,
    file: ChosenFile,
    caption: str,
    *,
    delivery: Delivery,
    now: datetime,
) -> SimulatedExchange:
    simulator = simulator_of(account)
    stored = phone_files.keep_sent(account, file, caption, new_account_id())
    at = now - LATE if delivery is Delivery.LATE else now
    said = SimulatedMessage(caption.strip(), simulator.new_message_id(), at, file=stored.as_sent())
    try:
        webhook = simulator.message(as_account(account), person, said)
        details, about = {"file": stored.details}, {"message_id": said.message_id, "text": said.text}
        exchange = new_webhook(account, person, Kind.MESSAGE, webhook, details=details, **about)
    except Exception:
        phone_files.drop(stored)
        raise
    return _deliver_as(account, exchange, delivery)


def _deliver_as(account: ChannelAccount, exchange: SimulatedExchange, delivery: Delivery) -> SimulatedExchange:
    if delivery is Delivery.HELD:
        return exchange
    post(exchange, badly_signed=delivery is Delivery.BADLY_SIGNED, note=NOTES.get(delivery, ""))
    if delivery is Delivery.TWICE:
        deliver(account, exchange.pk)
    return exchange


def play_gesture(
    account: ChannelAccount, person: SimulatedPerson, gesture: str, *, about: str = "", text: str = "", now: datetime
) -> SimulatedExchange:
    """Let the person (or a colleague elsewhere) make the gesture, and the provider deliver it. Returns the exchange.

    gesture: a value of Gesture
    about: the id of the message that it is about, of ours or theirs
    text: the emoji, the new words, the title of the choice, or what the colleague writes

    Raises InvalidError (`no_such_gesture`, `blank`), or NotFoundError where there is no such message or choice.
    """
    simulator = simulator_of(account)
    if gesture not in simulator.gestures:
        raise InvalidError(gettext("This provider reports no such gesture."), code="no_such_gesture")
    wanted, choice = Gesture(gesture), ""
    if wanted is not Gesture.DELETE and not text.strip():
        raise InvalidError(gettext("Write something first."), code="blank")
    if wanted is not Gesture.ECHO:
        kind = Kind.SEND if wanted in (Gesture.REACT, Gesture.PRESS) else Kind.MESSAGE
        known = of_account(account).filter(kind=kind, person=person.number, message_id=about)
        found = known.exclude(message_id="").last()
        if found is None:
            raise NotFoundError(gettext("There is no such message on this phone."))
        if wanted is Gesture.PRESS:
            choice = next((pk for pk, title in found.details.get("choices", ()) if title == text), "")
            if not choice:
                raise NotFoundError(gettext("There is no such choice below this message."))
    played = PlayedGesture(wanted, about, text, simulator.new_message_id(), now, choice)
    webhook = simulator.gesture(as_account(account), person, played)
    details = {"gesture": gesture, "about": about}
    exchange = new_webhook(
        account, person, Kind.GESTURE, webhook, message_id=played.message_id, text=text, details=details
    )
    post(exchange, note=gesture)
    return exchange


NOTES = {
    Delivery.LATE: f"delivered {LATE.seconds // 3600} hours late",
    Delivery.BADLY_SIGNED: gettext_noop("signed with a wrong secret"),
}


def deliver(account: ChannelAccount, exchange_id: int) -> SimulatedExchange:
    """Let the provider deliver the exchange (again): the same body, signed anew. Returns the exchange.

    Raises NotFoundError, or ConflictError (`being_delivered`).
    """
    exchange = webhooks_of(account).filter(pk=exchange_id).first()
    if exchange is None:
        raise NotFoundError(gettext("This webhook is no longer in the log."))
    if exchange.is_held:
        taken = SimulatedExchange.objects.filter(client=account.client_id, pk=exchange.pk, sent_at=None).update(
            sent_at=timezone.now()
        )
        if not taken:
            raise ConflictError(gettext("Somebody else is delivering this webhook just now."), code="being_delivered")
        post(exchange, note=gettext_noop("held back until now"))
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
    post(again, note=gettext_noop("delivered again"))
    return again


def report_receipt(account: ChannelAccount, message_id: str, status: str, now: datetime) -> SimulatedExchange:
    """Let the provider report the status of a message that it accepted. Returns the exchange.

    status: a value of ReceiptStatus

    Raises NotFoundError, or InvalidError (`no_such_receipt`) for a status that this provider never reports.
    """
    simulator = simulator_of(account)
    sent = of_account(account).filter(kind=Kind.SEND, message_id=message_id).exclude(message_id="").first()
    if sent is None:
        raise NotFoundError(gettext("The provider does not know this message."))
    if status not in simulator.receipts:
        raise InvalidError(
            gettext("This provider never reports the status %(status)s.") % {"status": repr(status)},
            code="no_such_receipt",
        )
    taken = AcceptedMessage(
        message_id=message_id,
        to=sent.details.get("to", ""),
        text=sent.text,
        our_message_id=sent.details.get("our_message_id", ""),
        reply_to=sent.details.get("reply_to", ""),
        report_to=sent.details.get("report_to", ""),
        sequence=of_account(account).filter(kind=Kind.RECEIPT, message_id=message_id).count(),
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
    exchange.headers = masked_headers(headers, signer.credentials)
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
        exchange.answer = as_text(answer.body)
        if simulator.is_call and not badly_signed:  # the caller does not hear the answer to a forged request
            exchange.details |= {"heard": asdict(simulator.heard(answer))}
    exchange.answered_at = timezone.now()
    exchange.save()


def turn_id(call_id: str, path: str) -> str:
    """Return the id of one turn of a call: the path to which it is posted tells it from others."""
    return f"{call_id} {path}"
