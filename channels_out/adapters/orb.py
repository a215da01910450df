"""Orbs: devices behind a gateway of the client's own, which uses Standard Webhooks in both directions.

The JSON is Convo's own; docs/channels.md describes it for people who build a gateway.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from channels_out import http, standard_webhooks
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage, SendResult
from channels_out.errors import InboundError, SendError, Throttled, gateway_error
from channels_out.events import Event, InboundMessage, Receipt, Sender, Unhandled
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind, Channel, ReceiptStatus
from channels_out.phones import e164
from channels_out.raw_claims import claims
from channels_out.shapes import clean, identifier, person_name, record, text

MESSAGE_CREATED = "message.created"
MESSAGE_REPLY = "message.reply"
GATEWAY_CHECK = "gateway.check"
# Outgoing events have other types than incoming ones: an event that a gateway returns is no message of a person.
RECEIPTS = {
    "message.delivered": ReceiptStatus.DELIVERED,
    "message.read": ReceiptStatus.READ,
    "message.failed": ReceiptStatus.FAILED,
}

_TEXT_TYPES = ("text", "speech")  # types of content that have a text
_RECIPIENT_KEYS = {AddressKind.DEVICE: "device_id", AddressKind.USER: "user_id", AddressKind.PHONE: "phone"}
_EARLIEST = datetime(2009, 1, 1, tzinfo=UTC)
_CLOCK_SKEW = timedelta(days=1)
_MAX_KIND = 40
_MAX_REASON = 500
_REFUSED = {401, 403, 410}  # our signature, or the webhook as a whole
_RETRYABLE = {408, 425}


class OrbAdapter(Adapter):
    """An account's address is the gateway's name in its payloads, its base URL the one that we post to.

    `secret` signs in both directions. It may hold several, separated by commas or whitespace: a webhook may be signed
    by any of them, and we sign with all.
    """

    provider = "orb"
    title = "Orb gateway"
    address_name = "gateway name"
    channel = Channel.ORB
    text_limit = 4096
    credentials = ("secret",)
    signed_with = "secret"
    signature_headers = (standard_webhooks.SIGNATURE,)
    sends_idempotently = True
    needs_base_url = True

    def claimed(self, request: InboundRequest) -> list[str]:
        """Return what stands at `gateway` anywhere in the body."""
        return claims(request.body, "gateway")

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return the gateway that the event names."""
        gateway = identifier(_event(request), "gateway")
        return [gateway] if gateway else []

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if the account's secret signed the body within the last five minutes."""
        standard_webhooks.verify(request.headers, request.body, account.secrets("secret"))

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return the one event. A message without an id of its own is identified by its `webhook-id`."""
        return [_GatewayEvent(self.keep(request)).event()]

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """Return the event, with the id from its header."""
        event = _event(request)
        data = record(event, "data")
        if identifier(data, "message_id") or not request.headers.get(standard_webhooks.ID):
            return event
        return {**event, "data": {**data, "message_id": request.headers[standard_webhooks.ID]}}

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Post one text. The same message has the same `webhook-id`, however often it is posted."""
        data = {
            _RECIPIENT_KEYS.get(message.to_kind, "user_id"): message.to,
            "message_id": message.message_id,
            "content": {"type": "text", "text": message.text},
            **({"reply_to": message.reply_to} if message.reply_to else {}),
        }
        answer = _post(account, message.message_id, MESSAGE_REPLY, data)
        if not answer.ok:
            raise _error(answer)
        return SendResult(message.message_id)

    def check(self, account: Account) -> str:
        """Return the gateway's name if it accepts our signature of an event that concerns nobody."""
        answer = _post(account, f"check_{datetime.now(UTC):%Y%m%d%H%M%S%f}", GATEWAY_CHECK, {})
        if not answer.ok:
            raise _error(answer, otherwise="The gateway did not take the check.")
        return account.address


def _event(request: InboundRequest) -> dict[str, Any]:
    payload = request.json()
    if type(payload) is not dict:
        raise InboundError("The body is not an event of a gateway.", code="malformed")
    return payload


class _GatewayEvent:
    """An event that a gateway posted."""

    __slots__ = ("account", "data", "kind", "message_id", "raw")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.account = identifier(raw, "gateway")
        self.kind = text(raw, "type")[:_MAX_KIND] or "unknown"
        self.data = record(raw, "data")
        self.message_id = identifier(self.data, "message_id")

    def event(self) -> Event:
        if self.kind == MESSAGE_CREATED:
            return self.message()
        if self.kind in RECEIPTS:
            return self.receipt(RECEIPTS[self.kind])
        return self.unhandled("not_a_turn" if self.kind == GATEWAY_CHECK else "unknown_type")

    def message(self) -> Event:
        content, device = record(self.data, "content"), identifier(self.data, "device_id")
        if not (self.account and self.message_id and device):
            return self.unhandled("malformed")
        kind = text(content, "type")[:_MAX_KIND]
        words = text(content, "text")
        if kind not in _TEXT_TYPES:
            return self.unhandled("unknown_type")
        if not words.strip():
            return self.unhandled("not_a_turn")
        user_id = identifier(self.data, "user_id")
        return InboundMessage(
            account=self.account,
            message_id=self.message_id,
            sender=Sender(
                address=device,
                kind=AddressKind.DEVICE,
                phone=e164(text(self.data, "phone")),
                name=person_name(text(self.data, "name")),
                aliases=((AddressKind.USER, user_id),) if user_id and user_id != device else (),
            ),
            text=words,
            occurred_at=_moment(text(self.raw, "timestamp")),
            kind=kind,
            metadata=record(self.data, "metadata"),
        )

    def receipt(self, status: ReceiptStatus) -> Event:
        if not (self.account and self.message_id):
            return self.unhandled("malformed")
        return Receipt(
            account=self.account,
            provider_message_id=self.message_id,
            status=status,
            occurred_at=_moment(text(self.raw, "timestamp")),
            our_message_id=self.message_id,
            code=text(self.data, "code")[:_MAX_KIND],
            reason=text(self.data, "reason")[:_MAX_REASON],
        )

    def unhandled(self, reason: str) -> Unhandled:
        return Unhandled(self.account, self.kind, reason, self.raw, self.message_id)


def _moment(written: str) -> datetime | None:
    """Return the time from RFC 3339, None if it is before 2009 or more than a day from now."""
    try:
        at = datetime.fromisoformat(written)
        return at.astimezone(UTC) if at.tzinfo and _EARLIEST <= at <= datetime.now(UTC) + _CLOCK_SKEW else None
    except (ValueError, OverflowError):
        return None


def _post(account: Account, event_id: str, kind: str, data: dict[str, Any]) -> HttpAnswer:
    secrets = [secret for secret in account.secrets("secret") if standard_webhooks.is_secret(secret)]
    if not secrets:
        raise SendError("The account has no secret to sign with.", code="no_credentials", account_broken=True)
    if not account.base_url:
        raise SendError("The account does not say where its gateway is.", code="no_gateway", account_broken=True)
    now = datetime.now(UTC)
    event = {"type": kind, "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}", "gateway": account.address, "data": data}
    body = orjson.dumps(clean(event))
    return http.post_bytes(
        account.base_url,
        body,
        headers={"Content-Type": "application/json", **standard_webhooks.headers(secrets, event_id, body)},
        timeout=account.timeout,
        private=account.private_networks,
    )


def _error(answer: HttpAnswer, otherwise: str = "The gateway did not take the message.") -> SendError:
    """Return the SendError for an answer that is no 2xx. Its body may have a `code`, such as
    `unknown_device` or `device_throttled`."""
    status, word = answer.status, text(answer.json(), "code")
    code = word[:_MAX_KIND] if word.isascii() and word.isidentifier() else f"http_{status}"
    if answer.is_from_gateway:
        return gateway_error("the device gateway", code=code)
    if status in _REFUSED:
        return SendError(f"The gateway refuses our signature. ({code})", code=code, account_broken=True)
    throttled: Throttled = ("recipient" if code == "device_throttled" else "account") if status == 429 else ""
    return SendError(
        f"{'The gateway throttles us.' if throttled else otherwise} ({code})",
        code=code,
        retryable=status >= 500 or status in _RETRYABLE or bool(throttled),
        retry_after=answer.retry_after,
        throttled=throttled,
    )
