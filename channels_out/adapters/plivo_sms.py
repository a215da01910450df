"""SMS and MMS through Plivo.

Sources: Plivo, "Message status callbacks", "Error codes", "Opted-out customers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from channels_out.adapters import plivo
from channels_out.contract import Account, InboundRequest, OutboundMessage, SendResult, WebhookResponse
from channels_out.errors import SendError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled
from channels_out.http import HttpAnswer
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import identifier, items, text

STATUS_PATH = "/webhooks/sms/status"
OUR_ID = "message"  # in the query of the address to which Plivo reports
MOST_MEDIA = 20

# Queued: Plivo has accepted it, which is all that `sent` means here.
STATUSES = {
    "queued": ReceiptStatus.SENT,
    "sent": ReceiptStatus.SENT,
    "delivered": ReceiptStatus.DELIVERED,
    "read": ReceiptStatus.READ,
    "failed": ReceiptStatus.FAILED,
    "undelivered": ReceiptStatus.FAILED,
    "rejected": ReceiptStatus.FAILED,
}

# The sentences that staff read for an error code of a status. Plivo does not try again by itself after any of them.
REASONS = {
    "10": "The carrier found the message invalid.",
    "20": "The carrier's network failed; sending it again later can help.",
    "30": "The carrier took the message for spam.",
    "40": "The sending number is invalid, cannot send SMS, or is not this account's.",
    "50": "The recipient's number is invalid or cannot receive SMS.",
    "60": "The message went in a loop between carriers.",
    "70": "The recipient's number is no longer in service.",
    "80": "The recipient's phone is off or out of reach; sending it again later can help.",
    "90": "No carrier takes messages to this number.",
    "100": "The carrier does not allow this message.",
    "110": "The message is too long.",
    "200": "The person opted out of messages from this number (STOP).",
    "300": "Plivo could not hand the message over; sending it again later can help.",
    "420": "The message expired before it could be delivered.",
    "900": "Plivo has no credit left for the account.",
    "910": "Plivo has disabled the account.",
    "1000": "The carrier gives no reason.",
}
OPTED_OUT = "200"  # Plivo itself blocks messages to a person who answered STOP
ACCOUNT_BROKEN = frozenset({"900", "910"})


class PlivoSmsAdapter(plivo.PlivoAdapter):
    """People write to the account's number. In a status, `From` is our number."""

    title = "SMS (Plivo)"
    channel = Channel.SMS
    text_limit = 1600
    limit_unit = "utf-8 bytes"
    acknowledgement = WebhookResponse(content_type="application/xml", body="<Response/>")  # an element would be a reply

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return our number: the recipient of a message, the sender in a status."""
        said = plivo.fields(request)
        address = plivo.number_at(said, "From" if _is_status(said) else "To")
        return [address] if address else []

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return the one message or status of the request. The metadata's `media` lists the addresses of its media."""
        said = plivo.fields(request)
        return [_receipt(said, request.query.get(OUR_ID, "")) if _is_status(said) else _message(said)]

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text. Plivo takes no idempotency key, but reports to an address that contains our message id."""
        plivo.require_credentials(account)
        if not message.to.isascii() or not message.to.isdigit():
            raise SendError("The person's phone number is not known.", code="no_phone_number")
        payload = {
            "src": account.address,
            "dst": message.to,
            "text": message.text,
            "url": f"{account.public_url}{STATUS_PATH}?{urlencode({OUR_ID: message.message_id})}",
            "method": "POST",
        }
        return _result(plivo.post(account, "Message", payload))


def _is_status(said: Mapping[str, Any]) -> bool:
    return "Status" in said


def _receipt(said: Mapping[str, Any], our_message_id: str) -> Event:
    account, message_id = plivo.number_at(said, "From"), identifier(said, "MessageUUID")
    if not account or not message_id:
        return _unhandled(said, account, "status", "malformed")
    status = STATUSES.get(text(said, "Status").strip().lower())
    if status is None:
        return _unhandled(said, account, "status", "unknown_type")
    code = identifier(said, "ErrorCode").strip()
    failed = status == ReceiptStatus.FAILED
    return Receipt(
        account=account,
        provider_message_id=message_id,
        status=status,
        our_message_id=our_message_id or None,
        code=code if failed else "",
        reason=f"{REASONS.get(code, 'It could not be delivered.')} ({code or 'no code'})" if failed else "",
        sequence=_whole(text(said, "Sequence")),
        account_broken=failed and code in ACCOUNT_BROKEN,
        opted_out=failed and code == OPTED_OUT,
    )


def _message(said: Mapping[str, Any]) -> Event:
    account, message_id = plivo.number_at(said, "To"), identifier(said, "MessageUUID")
    address, kind = plivo.number_at(said, "From"), text(said, "Type").strip().lower() or "sms"
    if not account or not message_id or not address:
        return _unhandled(said, account, kind, "malformed")
    if kind not in ("sms", "mms"):
        return _unhandled(said, account, kind, "unknown_type")
    if address == account:
        return _unhandled(said, account, kind, "echo")
    if not address.isdigit():
        return _unhandled(said, account, "sender without a number", "not_a_turn")  # no reply can be sent there
    media = _media(said)
    words = (text(said, "Text").strip() and text(said, "Text")) or text(said, "Body")
    readable = " ".join(filter(None, ("[media]" if media else "", words.strip() and words)))
    if not readable:
        return _unhandled(said, account, "empty", "not_a_turn")
    return InboundMessage(
        account=account,
        message_id=message_id,
        sender=plivo.sender(address),
        text=readable,
        kind="text" if kind == "sms" else kind,
        metadata={"media": media} if media else {},
        intent=text(said, "MessageIntent").strip().lower()[:20],
    )


def _media(said: Mapping[str, Any]) -> list[str]:
    """Return the addresses of Media0, Media1 … (numbered from one today, from nought in older documents)."""
    found = (text(said, f"Media{number}") for number in range(MOST_MEDIA + 1))
    return [url for url in found if url.startswith(("https://", "http://")) and len(url) <= 2000]


def _whole(digits: str) -> int | None:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def _unhandled(said: Mapping[str, Any], account: str, kind: str, reason: str) -> Unhandled:
    return Unhandled(
        account=account,
        kind=kind[:40] or "sms",
        reason=reason,
        raw=plivo.raw(said),
        message_id=identifier(said, "MessageUUID"),
    )


def _result(answer: HttpAnswer) -> SendResult:
    content = answer.json()
    if not answer.ok:
        raise plivo.error_of(answer)
    ids = [each for each in items(content, "message_uuid") if type(each) is str and 0 < len(each.strip()) <= 255]
    if ids:
        return SendResult(ids[0])
    if type(content) is dict and content.get("error"):
        raise plivo.error_of(answer)
    raise SendError("Plivo's answer names no message.", code="bad_answer", ambiguous=True)
