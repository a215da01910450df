"""The simulator of a gateway for devices (orbs)."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from channels_out import standard_webhooks
from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import record, text
from channels_out.simulators import orb
from channels_out.simulators.contract import (
    AcceptedMessage,
    InjectedFault,
    SimulatedMessage,
    SimulatedResponse,
    Simulator,
    UnsignedWebhook,
)
from channels_out.simulators.people import SimulatedPerson

_FAILURES = {
    InjectedFault.THROTTLED: (429, "device_throttled"),
    InjectedFault.UNDELIVERABLE: (422, "unknown_device"),
    InjectedFault.REFUSED: (401, "refused"),
}


class OrbSimulator(Simulator):
    """One gateway. Each person speaks to a device of their own."""

    provider = "orb"
    channel = Channel.ORB

    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return the gateway's name, and the secret with which both sides sign."""
        return f"simulated-{secrets.token_hex(6)}", {"secret": orb.new_secret()}

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the id of the person's device."""
        return f"orb-{person.number}"

    def new_message_id(self) -> str:
        """Return an id of the gateway."""
        return orb.new_id()

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the event for words that the device heard."""
        event = orb.said(
            account.address,
            self.address_of(person),
            said.text,
            message_id=said.message_id,
            kind="speech",
            name=person.name,
        )
        return self._webhook(event, said.at)

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """Return the event for the status of a message to the device."""
        why = {"code": "device_offline", "reason": "The device is offline."} if status is ReceiptStatus.FAILED else {}
        return self._webhook(orb.receipt(account.address, status.value, taken.message_id, **why), at)

    def _webhook(self, event: dict[str, Any], at: datetime) -> UnsignedWebhook:
        timestamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = json.dumps({**event, "timestamp": timestamp}, separators=(",", ":"), ensure_ascii=False)
        return UnsignedWebhook("/webhooks/orb/inbound", body.encode("utf-8", "replace"))

    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """Return the headers of Standard Webhooks. The same event has the same id each time, and a new timestamp."""
        event_id = f"evt_{hashlib.sha256(webhook.body).hexdigest()[:24]}"
        return standard_webhooks.headers(account.secrets("secret"), event_id, webhook.body, at=int(at.timestamp()))

    def with_wrong_secret(self, account: Account) -> Account:
        """Return the account with another secret."""
        return replace(account, credentials={"secret": orb.new_secret()})

    # --- what we post to it

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the account's secret signed the request."""
        return self._taken(account, request)[0] != 401

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request is a message for a device."""
        return text(self._taken(account, request)[1], "type") == orb.MESSAGE_REPLY

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to an event. A repeated message has the same id, so it counts once."""
        status, event = self._taken(account, request)
        if status != 200:
            return SimulatedResponse(status, json.dumps({"code": "malformed"}))
        if not self.sends(account, request):
            return SimulatedResponse(body=json.dumps({"taken": True}))
        data = record(event, "data")
        taken = AcceptedMessage(
            message_id=text(data, "message_id"),
            to=text(data, "device_id"),
            text=text(record(data, "content"), "text"),
            our_message_id=text(data, "message_id"),
            reply_to=text(data, "reply_to"),
        )
        return SimulatedResponse(body=json.dumps({"taken": True}), taken=taken)

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return the error as described in docs/channels.md."""
        status, code = _FAILURES.get(fault, (500, "internal_error"))
        headers = {"Retry-After": "2"} if fault is InjectedFault.THROTTLED else {}
        return SimulatedResponse(status, json.dumps({"code": code}), headers=headers)

    def _taken(self, account: Account, request: InboundRequest) -> tuple[int, dict[str, Any]]:
        return orb.taken(request.headers, request.body, account.credentials.get("secret", ""))
