"""Meta's end of a WhatsApp Cloud number. Source: Meta, WhatsApp Cloud API, "Webhooks" and "Send messages"."""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from channels_out.adapters.whatsapp_outbound import TEXT_LIMIT
from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import items, record, text, value_of
from channels_out.simulators import meta
from channels_out.simulators.contract import Misbehaviour, ProviderAnswer, Said, Simulator, Taken, Webhook
from channels_out.simulators.people import Person

DISPLAY_PHONE_NUMBER = "12025550199"
VERIFIED_NAME = "Simulated shop"

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<number>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")
_UNDELIVERABLE = 131026


def new_wamid() -> str:
    """A message id that looks like Meta's."""
    return "wamid." + base64.b64encode(secrets.token_bytes(36)).decode()


def payload(
    account: Account,
    *,
    messages: Sequence[Mapping[str, Any]] = (),
    statuses: Sequence[Mapping[str, Any]] = (),
    contacts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A webhook of the account's number with these elements."""
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": DISPLAY_PHONE_NUMBER, "phone_number_id": account.address},
    }
    batches = {"contacts": contacts, "messages": messages, "statuses": statuses}
    value |= {key: list(batch) for key, batch in batches.items() if batch}
    entry = {"id": "8856996819413533", "changes": [{"value": value, "field": "messages"}]}
    return {"object": "whatsapp_business_account", "entry": [entry]}


class WhatsAppSimulator(Simulator):
    """One phone number of one WhatsApp Business account of one Meta app."""

    provider = "whatsapp"
    channel = Channel.WHATSAPP
    path = "/webhooks/whatsapp/inbound"

    def new_account(self) -> tuple[str, dict[str, str]]:
        """A phone number id, and what one copies out of Meta's console."""
        names = ("access_token", "app_secret", "verify_token")
        return meta.digits(15), {name: secrets.token_hex(16) for name in names}

    def address_of(self, person: Person) -> str:
        """The phone number, or the user id of somebody who hides it."""
        return person.phone if person.shows_phone else f"US.{person.phone[::-1]}"

    def new_message_id(self) -> str:
        """A wamid."""
        return new_wamid()

    def message(self, account: Account, person: Person, said: Said) -> Webhook:
        """A text message."""
        address = self.address_of(person)
        known_by = ("from", "wa_id") if person.shows_phone else ("from_user_id", "user_id")
        message = {
            known_by[0]: address,
            "id": said.message_id,
            "timestamp": _seconds(said.at),
            "text": {"body": said.text},
            "type": "text",
        }
        contact = {"profile": {"name": person.name}, known_by[1]: address}
        return self._webhook(payload(account, messages=[message], contacts=[contact]))

    def receipt(self, account: Account, taken: Taken, status: ReceiptStatus, at: datetime) -> Webhook:
        """A status."""
        told: dict[str, Any] = {
            "id": taken.message_id,
            "status": status.value,
            "timestamp": _seconds(at),
            "recipient_id": taken.to,
        }
        if taken.our_message_id:
            told["biz_opaque_callback_data"] = taken.our_message_id
        if status is ReceiptStatus.FAILED:
            details = {"details": "Message Undeliverable."}
            told["errors"] = [{"code": _UNDELIVERABLE, "title": "Message undeliverable", "error_data": details}]
        return self._webhook(payload(account, statuses=[told]))

    def _webhook(self, content: dict[str, Any]) -> Webhook:
        return Webhook(self.path, meta.written(content))

    def signed(self, account: Account, webhook: Webhook, url: str, at: datetime) -> dict[str, str]:
        """By the Meta app's secret."""
        return meta.signature_headers(account.secrets("app_secret")[0], webhook.body)

    # --- the API

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Whether it has the access token."""
        expected = f"Bearer {account.credentials.get('access_token', '')}".encode()
        return hmac.compare_digest(request.headers.get("authorization", "").encode(), expected)

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Whether it is a message, and no typing indicator or question."""
        return request.method == "POST" and text(_content(request), "status") != "read"

    def accept(self, account: Account, request: InboundRequest) -> ProviderAnswer:
        """Take a message, or answer what the number is called."""
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return meta.error(404, 2500, "Unknown path components")
        if route["number"] != account.address:
            return meta.error(400, 100, f"Object with ID '{route['number']}' does not exist")
        if request.method == "GET":
            names = {"verified_name": VERIFIED_NAME, "display_phone_number": f"+{DISPLAY_PHONE_NUMBER}"}
            return ProviderAnswer(body=json.dumps({**names, "id": account.address}))
        return take(_content(request))

    def failure(self, misbehaviour: Misbehaviour) -> ProviderAnswer:
        """As the Graph API says it."""
        undeliverable = meta.error(400, _UNDELIVERABLE, "Message undeliverable")
        return meta.failure(misbehaviour, throttled_as=130429, undeliverable=undeliverable)


def take(content: Any) -> ProviderAnswer:
    """What the send route answers to a body."""
    if problem := _problem(content):
        details = {"messaging_product": "whatsapp", "details": problem}
        return meta.error(400, 100, "Invalid parameter", error_data=details)
    if text(content, "status") == "read":
        return ProviderAnswer(body=json.dumps({"success": True}))
    to = text(content, "to") or text(content, "recipient")
    taken = Taken(
        message_id=new_wamid(),
        to=to,
        text=_words(content),
        our_message_id=text(content, "biz_opaque_callback_data"),
        reply_to=text(record(content, "context"), "message_id"),
    )
    person = {"input": to, "wa_id": to} if text(content, "to") else {"input": to, "user_id": to}
    answer = {"messaging_product": "whatsapp", "contacts": [person], "messages": [{"id": taken.message_id}]}
    return ProviderAnswer(body=json.dumps(answer), taken=taken)


def _problem(content: Any) -> str:
    """What Meta would find wrong with the body of a send, '' if nothing."""
    if text(content, "messaging_product") != "whatsapp":
        return "The parameter messaging_product is required."
    if text(content, "status") == "read":
        return "" if text(content, "message_id") else "The parameter message_id is required."
    to = text(content, "to")
    if not to and not text(content, "recipient"):
        return "The parameter to is required."
    if to and not to.removeprefix("+").isdigit():
        return "The parameter to is not a phone number."
    kind = text(content, "type")
    if kind == "template":
        named = text(record(content, "template"), "name") and record(record(content, "template"), "language")
        return "" if named else "The parameter template is required."
    if kind != "text":
        return "The parameter type is not one that is known here."
    body = text(record(content, "text"), "body")
    if not body.strip():
        return "The parameter text['body'] is required."
    if len(body) > TEXT_LIMIT:
        return f"Param text['body'] must be at most {TEXT_LIMIT} characters long."
    return ""


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


def _content(request: InboundRequest) -> Any:
    try:
        return request.json()
    except InboundError:
        return None


def _seconds(at: datetime) -> str:
    return str(int(at.timestamp()))
