"""SMS and MMS through Plivo.

Sources: Plivo, "Message status callbacks", "Error codes", "Opted-out customers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from channels_out.adapters import plivo
from channels_out.contract import (
    Account,
    FileRule,
    InboundRequest,
    MediaLink,
    OutboundMessage,
    SendResult,
    WebhookResponse,
)
from channels_out.errors import SendError
from channels_out.events import Event, InboundMessage, MediaReference, Receipt, Unhandled
from channels_out.http import HttpAnswer
from channels_out.kinds import Channel, MediaKind, ReceiptStatus
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


class DeliveryError(NamedTuple):
    """One row of the table of error codes of a failed status: the sentence for staff, and its consequences."""

    reason: str
    account_broken: bool = False
    opted_out: bool = False


# Plivo does not try again by itself after any of them.
DELIVERY_ERRORS = {
    "10": DeliveryError("The carrier found the message invalid."),
    "20": DeliveryError("The carrier's network failed; sending it again later can help."),
    "30": DeliveryError("The carrier took the message for spam."),
    "40": DeliveryError("The sending number is invalid, cannot send SMS, or is not this account's."),
    "50": DeliveryError("The recipient's number is invalid or cannot receive SMS."),
    "60": DeliveryError("The message went in a loop between carriers."),
    "70": DeliveryError("The recipient's number is no longer in service."),
    "80": DeliveryError("The recipient's phone is off or out of reach; sending it again later can help."),
    "90": DeliveryError("No carrier takes messages to this number."),
    "100": DeliveryError("The carrier does not allow this message."),
    "110": DeliveryError("The message is too long."),
    # Plivo itself blocks messages to a person who answered STOP
    "200": DeliveryError("The person opted out of messages from this number (STOP).", opted_out=True),
    "300": DeliveryError("Plivo could not hand the message over; sending it again later can help."),
    "420": DeliveryError("The message expired before it could be delivered."),
    "900": DeliveryError("Plivo has no credit left for the account.", account_broken=True),
    "910": DeliveryError("Plivo has disabled the account.", account_broken=True),
    "1000": DeliveryError("The carrier gives no reason."),
}
UNKNOWN_DELIVERY_ERROR = DeliveryError("It could not be delivered.")


class PlivoSmsAdapter(plivo.PlivoAdapter):
    """People write to the account's number. In a status, `From` is our number."""

    title = "SMS (Plivo)"
    channel = Channel.SMS
    text_limit = 1600
    limit_unit = "utf-8 bytes"
    acknowledgement = WebhookResponse(content_type="application/xml", body="<Response/>")  # an element would be a reply
    # Of MMS, which the United States and Canada know. Source: Plivo, "Send MMS".
    file_rules = (FileRule(MediaKind.IMAGE, 5_000_000, frozenset({"image/jpeg", "image/png", "image/gif"})),)

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return our number: the recipient of a message, the sender in a status."""
        posted = plivo.fields(request)
        address = plivo.number_at(posted, "From" if _is_status(posted) else "To")
        return [address] if address else []

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return the one message or status of the request. The metadata's `media` lists the addresses of its media."""
        posted = plivo.fields(request)
        return [_receipt(posted, request.query.get(OUR_ID, "")) if _is_status(posted) else _message(posted)]

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text. Plivo takes no idempotency key, but reports to an address that contains our message id."""
        plivo.require_credentials(account)
        if not message.to.isascii() or not message.to.isdigit():
            raise SendError("The person's phone number is not known.", code="no_phone_number")
        payload: dict[str, Any] = {
            "src": account.address,
            "dst": message.to,
            "text": message.text,
            "url": f"{account.public_url}{STATUS_PATH}?{urlencode({OUR_ID: message.message_id})}",
            "method": "POST",
        }
        if message.file:
            payload |= {"type": "mms", "media_urls": [message.file.link], "text": ""}
        return _result(plivo.post(account, "Message", payload))

    def takes_files_to(self, address: str) -> bool:
        """Return whether the number is of North America: elsewhere there is no MMS."""
        return address.startswith("1")

    def media_link(self, account: Account, source: str) -> MediaLink:
        """Return the file's URL, with the account's credentials where it is at the host of Plivo's API."""
        is_api = urlsplit(source).netloc.lower() == urlsplit(account.base_url).netloc.lower()
        return MediaLink(source, plivo.authorization(account) if is_api else {})


def _is_status(posted: Mapping[str, Any]) -> bool:
    return "Status" in posted


def _receipt(posted: Mapping[str, Any], our_message_id: str) -> Event:
    account, message_id = plivo.number_at(posted, "From"), identifier(posted, "MessageUUID")
    if not account or not message_id:
        return _unhandled(posted, account, "status", "malformed")
    status = STATUSES.get(text(posted, "Status").strip().lower())
    if status is None:
        return _unhandled(posted, account, "status", "unknown_type")
    code = identifier(posted, "ErrorCode").strip()
    failed, error = status == ReceiptStatus.FAILED, DELIVERY_ERRORS.get(code, UNKNOWN_DELIVERY_ERROR)
    return Receipt(
        account=account,
        provider_message_id=message_id,
        status=status,
        our_message_id=our_message_id or None,
        code=code if failed else "",
        reason=f"{error.reason} ({code or 'no code'})" if failed else "",
        sequence=_whole(text(posted, "Sequence")),
        account_broken=failed and error.account_broken,
        opted_out=failed and error.opted_out,
    )


def _message(posted: Mapping[str, Any]) -> Event:
    account, message_id = plivo.number_at(posted, "To"), identifier(posted, "MessageUUID")
    address, kind = plivo.number_at(posted, "From"), text(posted, "Type").strip().lower() or "sms"
    if not account or not message_id or not address:
        return _unhandled(posted, account, kind, "malformed")
    if kind not in ("sms", "mms"):
        return _unhandled(posted, account, kind, "unknown_type")
    if address == account:
        return _unhandled(posted, account, kind, "echo")
    if not address.isdigit():
        return _unhandled(posted, account, "sender without a number", "not_a_turn")  # no reply can be sent there
    media = _media(posted)
    words = (text(posted, "Text").strip() and text(posted, "Text")) or text(posted, "Body")
    readable = " ".join(filter(None, ("[media]" if media else "", words.strip() and words)))
    if not readable:
        return _unhandled(posted, account, "empty", "not_a_turn")
    return InboundMessage(
        account=account,
        message_id=message_id,
        sender=plivo.sender(address),
        text=readable,
        kind="text" if kind == "sms" else kind,
        metadata={"media": media} if media else {},
        intent=text(posted, "MessageIntent").strip().lower()[:20],
        media=tuple(MediaReference(MediaKind.DOCUMENT, url) for url in media),  # of which kind, its content says
    )


def _media(posted: Mapping[str, Any]) -> list[str]:
    """Return the addresses of Media0, Media1 … (numbered from one today, from nought in older documents)."""
    found = (text(posted, f"Media{number}") for number in range(MOST_MEDIA + 1))
    return [url for url in found if url.startswith(("https://", "http://")) and len(url) <= 2000]


def _whole(digits: str) -> int | None:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def _unhandled(posted: Mapping[str, Any], account: str, kind: str, reason: str) -> Unhandled:
    return Unhandled(
        account=account,
        kind=kind[:40] or "sms",
        reason=reason,
        raw=plivo.raw(posted),
        message_id=identifier(posted, "MessageUUID"),
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
