"""The simulators of a WhatsApp number, at Meta and at 360dialog."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from datetime import datetime
from typing import Any, ClassVar

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import items, record, text, value_of
from channels_out.simulators import whatsapp
from channels_out.simulators.contract import (
    AcceptedMessage,
    InjectedFault,
    SimulatedMessage,
    SimulatedResponse,
    UnsignedWebhook,
)
from channels_out.simulators.meta import MetaSimulator, content_of, error_answer, meta_json, new_account_id
from channels_out.simulators.people import SimulatedPerson

VERIFIED_NAME = "Simulated shop"

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<number>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")
_UNDELIVERABLE = 131026


class WhatsAppSimulator(MetaSimulator):
    """One phone number of one WhatsApp Business account of one Meta app."""

    provider = "whatsapp"
    channel = Channel.WHATSAPP
    throttled_code = 130429
    undeliverable: ClassVar[SimulatedResponse] = error_answer(400, _UNDELIVERABLE, "Message undeliverable")

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the phone number, or the user id of a person who hides it."""
        return person.phone if person.shows_phone else f"US.{person.phone[::-1]}"

    def new_message_id(self) -> str:
        """Return a new wamid."""
        return whatsapp.new_wamid()

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the webhook with a text."""
        address = self.address_of(person)
        who = {"sender": address} if person.shows_phone else {"sender": "", "user_id": address}
        message = whatsapp.text(said.text, message_id=said.message_id, timestamp=said.at.timestamp(), **who)
        return self._webhook(account, messages=[message], contacts=[whatsapp.contact(address, person.name)])

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """Return the webhook with a status."""
        told = whatsapp.status(
            taken.message_id,
            status.value,
            recipient=taken.to,
            our_message_id=taken.our_message_id,
            error=_UNDELIVERABLE if status is ReceiptStatus.FAILED else None,
            details="Message Undeliverable.",
            timestamp=at.timestamp(),
        )
        return self._webhook(account, statuses=[told])

    def _webhook(self, account: Account, **batches: Any) -> UnsignedWebhook:
        return UnsignedWebhook("/webhooks/whatsapp/inbound", meta_json(whatsapp.payload(account.address, **batches)))

    # --- the API

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request is a message, not a read mark or a query."""
        return request.method == "POST" and text(content_of(request), "status") != "read"

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message, or the number's record."""
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return error_answer(404, 2500, "Unknown path components")
        if route["number"] != account.address:
            return error_answer(400, 100, f"Object with ID '{route['number']}' does not exist")
        if request.method == "GET":
            names = {"verified_name": VERIFIED_NAME, "display_phone_number": f"+{whatsapp.DISPLAY_PHONE_NUMBER}"}
            return SimulatedResponse(body=json.dumps({**names, "id": account.address}))
        return take(content_of(request))


class Dialog360Simulator(WhatsAppSimulator):
    """The same number at 360dialog: Meta's payloads, unsigned, with 360dialog's key and our secret header."""

    provider = "dialog360"

    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return a phone number id, 360dialog's key and the secret that is registered with the webhook's address."""
        return new_account_id(), {name: secrets.token_hex(16) for name in ("api_key", "webhook_secret")}

    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """Return the registered header."""
        return {"X-Convo-Secret": account.secrets("webhook_secret")[0]}

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request has the number's key."""
        expected = account.credentials.get("api_key", "").encode()
        return hmac.compare_digest(request.headers.get("d360-api-key", "").encode("utf-8", "replace"), expected)

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message, or the number's health."""
        if (request.method, request.url) == ("GET", "/health_status"):
            number = {"entity_type": "PHONE_NUMBER", "id": account.address, "can_send_message": "AVAILABLE"}
            health = {"can_send_message": "AVAILABLE", "entities": [number]}
            return SimulatedResponse(body=json.dumps({"health_status": health, "id": account.address}))
        if (request.method, request.url) != ("POST", "/messages"):
            return SimulatedResponse(404, json.dumps({"error": "Not found"}))
        return take(content_of(request))

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return 360dialog's own refusal of a key; for other faults, Meta's error."""
        if fault is InjectedFault.REFUSED:
            meta = {"success": False, "http_code": 401, "developer_message": "Invalid api_key"}
            return SimulatedResponse(401, json.dumps({"meta": meta}))
        return super().failure(fault)


def take(content: Any) -> SimulatedResponse:
    """Return the answer of the send route to a body."""
    if problem := whatsapp.problem(content):
        details = {"messaging_product": "whatsapp", "details": problem}
        return error_answer(400, 100, "Invalid parameter", error_data=details)
    if text(content, "status") == "read":
        return SimulatedResponse(body=json.dumps({"success": True}))
    taken = AcceptedMessage(
        message_id=whatsapp.new_wamid(),
        to=text(content, "to") or text(content, "recipient"),
        text=_words(content),
        our_message_id=text(content, "biz_opaque_callback_data"),
        reply_to=text(record(content, "context"), "message_id"),
    )
    return SimulatedResponse(body=json.dumps(whatsapp.accepted(content, taken.message_id)), taken=taken)


def _words(content: dict[str, Any]) -> str:
    """Return the text that the person reads."""
    if text(content, "type") == "text":
        return text(record(content, "text"), "body")
    template = record(content, "template")
    parameters = [
        str(value_of(each, "text"))
        for component in items(template, "components")
        for each in items(component, "parameters")
    ]
    return " ".join([f"[template {text(template, 'name')}]", *parameters])
