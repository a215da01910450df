"""Meta's end of a WhatsApp Cloud number."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from datetime import datetime
from typing import Any

from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import items, record, text, value_of
from channels_out.simulators import meta_answers, whatsapp, wire
from channels_out.simulators.contract import Misbehaviour, ProviderAnswer, Said, Simulator, Taken, Webhook
from channels_out.simulators.people import Person

VERIFIED_NAME = "Simulated shop"

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<number>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")
_UNDELIVERABLE = 131026


class WhatsAppSimulator(Simulator):
    """One phone number of one WhatsApp Business account of one Meta app."""

    provider = "whatsapp"
    channel = Channel.WHATSAPP

    def new_account(self) -> tuple[str, dict[str, str]]:
        """A phone number id, and what one copies out of Meta's console."""
        names = ("access_token", "app_secret", "verify_token")
        return meta_answers.digits(15), {name: secrets.token_hex(16) for name in names}

    def address_of(self, person: Person) -> str:
        """The phone number, or the user id of somebody who hides it."""
        return person.phone if person.shows_phone else f"US.{person.phone[::-1]}"

    def new_message_id(self) -> str:
        """A wamid."""
        return whatsapp.new_wamid()

    def message(self, account: Account, person: Person, said: Said) -> Webhook:
        """A text message."""
        address = self.address_of(person)
        who = {"sender": address} if person.shows_phone else {"sender": "", "user_id": address}
        message = whatsapp.text(said.text, message_id=said.message_id, timestamp=said.at.timestamp(), **who)
        return self._webhook(account, messages=[message], contacts=[whatsapp.contact(address, person.name)])

    def receipt(self, account: Account, taken: Taken, status: ReceiptStatus, at: datetime) -> Webhook:
        """A status."""
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

    def _webhook(self, account: Account, **batches: Any) -> Webhook:
        return Webhook("/webhooks/whatsapp/inbound", wire.meta_json(whatsapp.payload(account.address, **batches)))

    def signed(self, account: Account, webhook: Webhook, url: str, at: datetime) -> dict[str, str]:
        """By the Meta app's secret."""
        return wire.meta_signature(webhook.body, account.secrets("app_secret")[0])

    # --- the API

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Whether it has the access token."""
        return meta_answers.has_token(account, request)

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Whether it is a message, and no typing indicator or question."""
        return request.method == "POST" and text(content_of(request), "status") != "read"

    def accept(self, account: Account, request: InboundRequest) -> ProviderAnswer:
        """Take a message, or answer what the number is called."""
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return meta_answers.error(404, 2500, "Unknown path components")
        if route["number"] != account.address:
            return meta_answers.error(400, 100, f"Object with ID '{route['number']}' does not exist")
        if request.method == "GET":
            names = {"verified_name": VERIFIED_NAME, "display_phone_number": f"+{whatsapp.DISPLAY_PHONE_NUMBER}"}
            return ProviderAnswer(body=json.dumps({**names, "id": account.address}))
        return take(content_of(request))

    def failure(self, misbehaviour: Misbehaviour) -> ProviderAnswer:
        """As the Graph API says it."""
        undeliverable = meta_answers.error(400, _UNDELIVERABLE, "Message undeliverable")
        return meta_answers.failure(misbehaviour, throttled_as=130429, undeliverable=undeliverable)


class Dialog360Simulator(WhatsAppSimulator):
    """The same number at 360dialog: Meta's contents both ways, unsigned, with 360dialog's key and our secret header."""

    provider = "dialog360"

    def new_account(self) -> tuple[str, dict[str, str]]:
        """A phone number id, 360dialog's key and the secret that one gives along with the webhook's address."""
        return meta_answers.digits(15), {name: secrets.token_hex(16) for name in ("api_key", "webhook_secret")}

    def signed(self, account: Account, webhook: Webhook, url: str, at: datetime) -> dict[str, str]:
        """The header that it was given."""
        return {"X-Convo-Secret": account.secrets("webhook_secret")[0]}

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Whether it has the number's key."""
        expected = account.credentials.get("api_key", "").encode()
        return hmac.compare_digest(request.headers.get("d360-api-key", "").encode("utf-8", "replace"), expected)

    def accept(self, account: Account, request: InboundRequest) -> ProviderAnswer:
        """Take a message, or answer how the number is."""
        if (request.method, request.url) == ("GET", "/health_status"):
            number = {"entity_type": "PHONE_NUMBER", "id": account.address, "can_send_message": "AVAILABLE"}
            health = {"can_send_message": "AVAILABLE", "entities": [number]}
            return ProviderAnswer(body=json.dumps({"health_status": health, "id": account.address}))
        if (request.method, request.url) != ("POST", "/messages"):
            return ProviderAnswer(404, json.dumps({"error": "Not found"}))
        return take(content_of(request))

    def failure(self, misbehaviour: Misbehaviour) -> ProviderAnswer:
        """Its own refusal of a key; else Meta's."""
        if misbehaviour is Misbehaviour.REFUSED:
            meta = {"success": False, "http_code": 401, "developer_message": "Invalid api_key"}
            return ProviderAnswer(401, json.dumps({"meta": meta}))
        return super().failure(misbehaviour)


def take(content: Any) -> ProviderAnswer:
    """What the send route answers to a body."""
    if problem := whatsapp.problem(content):
        details = {"messaging_product": "whatsapp", "details": problem}
        return meta_answers.error(400, 100, "Invalid parameter", error_data=details)
    if text(content, "status") == "read":
        return ProviderAnswer(body=json.dumps({"success": True}))
    taken = Taken(
        message_id=whatsapp.new_wamid(),
        to=text(content, "to") or text(content, "recipient"),
        text=_words(content),
        our_message_id=text(content, "biz_opaque_callback_data"),
        reply_to=text(record(content, "context"), "message_id"),
    )
    return ProviderAnswer(body=json.dumps(whatsapp.accepted(content, taken.message_id)), taken=taken)


def content_of(request: InboundRequest) -> Any:
    """The body as JSON, None if it is none."""
    try:
        return request.json()
    except InboundError:
        return None


def _words(content: dict[str, Any]) -> str:
    """What the person reads."""
    if text(content, "type") == "text":
        return text(record(content, "text"), "body")
    template = record(content, "template")
    parameters = [
        str(value_of(each, "text"))
        for component in items(template, "components")
        for each in items(component, "parameters")
    ]
    return " ".join([f"[template {text(template, 'name')}]", *parameters])
