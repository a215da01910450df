"""The simulators of a WhatsApp number, at Meta and at 360dialog."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, MediaKind, ReceiptStatus
from channels_out.shapes import items, record, text, value_of
from channels_out.simulators import whatsapp
from channels_out.simulators.contract import (
    AcceptedFile,
    AcceptedMessage,
    Gesture,
    InjectedFault,
    PlayedGesture,
    SimulatedMessage,
    SimulatedResponse,
    UnsignedWebhook,
)
from channels_out.simulators.meta import MetaSimulator, content_of, error_answer, meta_json, new_account_id
from channels_out.simulators.people import PEOPLE, SimulatedPerson
from channels_out.simulators.phone_files import MediaRequest, PhoneFile

MEDIA = "/media"  # the end of the route that takes uploads
VERIFIED_NAME = "Simulated shop"

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<number>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")
_TEMPLATES = re.compile(rf"/(?:v\d+\.\d+/)?{whatsapp.BUSINESS_ACCOUNT}/message_templates(?:\?.*)?")
_MEDIA_ID = re.compile(r"/(?:v\d+\.\d+/)?(?P<id>\d{1,20})(?:\?.*)?")
_CONTENT = "/whatsapp_business/attachments/"  # the route of Meta's host of files
_UNDELIVERABLE = 131026


class WhatsAppSimulator(MetaSimulator):
    """One phone number of one WhatsApp Business account of one Meta app."""

    provider = "whatsapp"
    channel = Channel.WHATSAPP
    gestures = tuple(Gesture)
    # Source: Meta, WhatsApp Cloud API, "Supported media types".
    most_bytes = {
        MediaKind.IMAGE: 5_000_000,
        MediaKind.VOICE: 16_000_000,
        MediaKind.AUDIO: 16_000_000,
        MediaKind.VIDEO: 16_000_000,
        MediaKind.DOCUMENT: 100_000_000,
    }
    captions = frozenset({MediaKind.IMAGE, MediaKind.VIDEO, MediaKind.DOCUMENT})
    media_host = ""  # of the links of files; empty: the account's own API
    throttled_code = 130429
    undeliverable: ClassVar[SimulatedResponse] = error_answer(400, _UNDELIVERABLE, "Message undeliverable")

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the phone number, or the user id of a person who hides it."""
        return person.phone if person.shows_phone else user_id_of(person)

    def new_message_id(self) -> str:
        """Return a new wamid."""
        return whatsapp.new_wamid()

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the webhook with a text, or with a file, which it names by an id."""
        about: dict[str, Any] = {
            "sender": person.phone if person.shows_phone else "",
            "user_id": user_id_of(person),
            "message_id": said.message_id,
            "timestamp": said.at.timestamp(),
        }
        message = _media(said.file, said.text, about) if said.file else whatsapp.text(said.text, **about)
        return self._webhook(account, messages=[message], contacts=[contact_of(person)])

    def gesture(self, account: Account, person: SimulatedPerson, played: PlayedGesture) -> UnsignedWebhook:
        """Return the webhook with the gesture as a message of its own type, or with a colleague's echo."""
        if played.gesture is Gesture.ECHO:
            change = whatsapp.change(account.address)
            change["field"] = "smb_message_echoes"
            said = whatsapp.echo(played.text, to=person.phone, message_id=played.message_id)
            change["value"]["message_echoes"] = [{**said, "to_user_id": user_id_of(person)}]
            return UnsignedWebhook("/webhooks/whatsapp/inbound", meta_json(whatsapp.around(change)))
        about: dict[str, Any] = {
            "sender": person.phone if person.shows_phone else "",
            "user_id": user_id_of(person),
            "message_id": played.message_id,
            "timestamp": played.at.timestamp(),
        }
        composed = {
            Gesture.REACT: lambda: whatsapp.reaction(played.about, played.text, **about),
            Gesture.EDIT: lambda: whatsapp.edited(played.about, played.text, **about),
            Gesture.DELETE: lambda: whatsapp.revoked(played.about, **about),
            Gesture.PRESS: lambda: whatsapp.button_reply(
                played.text, played.choice, context={"from": whatsapp.DISPLAY_PHONE_NUMBER, "id": played.about}, **about
            ),
        }[played.gesture]()
        return self._webhook(account, messages=[composed], contacts=[contact_of(person)])

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
        person = next((each for each in PEOPLE if taken.to in (each.phone, user_id_of(each))), None)
        return self._webhook(account, statuses=[told], contacts=[contact_of(person)] if person else [])

    def _webhook(self, account: Account, **batches: Any) -> UnsignedWebhook:
        return UnsignedWebhook("/webhooks/whatsapp/inbound", meta_json(whatsapp.payload(account.address, **batches)))

    # --- the API

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request is a message, not a read mark or a query."""
        is_upload = request.url.endswith(MEDIA)
        return request.method == "POST" and not is_upload and text(content_of(request), "status") != "read"

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message or an upload, or the number's record."""
        if request.method == "GET" and _TEMPLATES.fullmatch(request.url):
            return SimulatedResponse(body=json.dumps(whatsapp.page_of_templates(whatsapp.SAMPLE_TEMPLATES, {})))
        if (request.method, request.url) == ("POST", f"/{account.address}{MEDIA}"):
            return _uploaded()
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return error_answer(404, 2500, "Unknown path components")
        if route["number"] != account.address:
            return error_answer(400, 100, f"Object with ID '{route['number']}' does not exist")
        if request.method == "GET":
            names = {"verified_name": VERIFIED_NAME, "display_phone_number": f"+{whatsapp.DISPLAY_PHONE_NUMBER}"}
            return SimulatedResponse(body=json.dumps({**names, "id": account.address}))
        return take(content_of(request))

    def media_request(self, account: Account, request: InboundRequest) -> MediaRequest | None:
        """Return the request for the record of a file by its id, or for the file behind the record's link."""
        parts = urlsplit(request.url)
        if request.method == "GET" and parts.path == _CONTENT:
            return MediaRequest(dict(parse_qsl(parts.query)).get("mid", ""), is_for_content=True)
        found = _MEDIA_ID.fullmatch(request.url) if request.method == "GET" else None
        return MediaRequest(found["id"], is_for_content=False) if found else None

    def media_record(self, account: Account, file: PhoneFile) -> SimulatedResponse:
        """Return the record with the link, which wants the account's token as well."""
        link = f"{self.media_host or account.base_url}{_CONTENT}?mid={file.media_id}"
        about: dict[str, Any] = {"content_type": file.content_type, "digest": file.digest, "size": file.size}
        return SimulatedResponse(body=json.dumps(whatsapp.media_record(file.media_id, link, **about)))


class Dialog360Simulator(WhatsAppSimulator):
    """The same number at 360dialog: Meta's payloads, unsigned, with 360dialog's key and our secret header."""

    provider = "dialog360"
    media_host = "https://lookaside.fbsbx.com"  # 360dialog passes Meta's links on; who has its key asks it instead

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
        if request.method == "GET" and request.url.startswith("/v1/configs/templates"):
            page = whatsapp.page_of_templates(whatsapp.SAMPLE_TEMPLATES, {})["data"]
            return SimulatedResponse(body=json.dumps({"count": len(page), "waba_templates": page}))
        if (request.method, request.url) == ("POST", MEDIA):
            return _uploaded()
        if (request.method, request.url) != ("POST", "/messages"):
            return SimulatedResponse(404, json.dumps({"error": "Not found"}))
        return take(content_of(request))

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return 360dialog's own refusal of a key; for other faults, Meta's error."""
        if fault is InjectedFault.REFUSED:
            meta = {"success": False, "http_code": 401, "developer_message": "Invalid api_key"}
            return SimulatedResponse(401, json.dumps({"meta": meta}))
        return super().failure(fault)


def user_id_of(person: SimulatedPerson) -> str:
    """Return the person's business-scoped user id, which Meta sends beside the phone number since April 2026."""
    return f"US.{person.phone[::-1]}"


def contact_of(person: SimulatedPerson) -> dict[str, Any]:
    """Return the person as the payloads of their messages, and of statuses, describe them."""
    known = person.phone if person.shows_phone else user_id_of(person)
    return whatsapp.contact(known, person.name, user_id=user_id_of(person))


def _media(file: PhoneFile, caption: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return the message with a file. Documents alone have their name, and only a voice note says that it is one."""
    kind = "audio" if file.kind is MediaKind.VOICE else file.kind.value
    return whatsapp.media(
        kind,
        media_id=file.media_id,
        caption=caption,
        filename=file.name if file.kind is MediaKind.DOCUMENT else "",
        voice=file.kind is MediaKind.VOICE,
        content_type=file.content_type,
        sha256=file.digest_in_base64,
        **about,
    )


def _uploaded() -> SimulatedResponse:
    media_id = new_account_id()
    return SimulatedResponse(body=json.dumps({"id": media_id}), uploaded=media_id)


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
        choices=tuple((each["id"], each["title"]) for each in whatsapp.choices_in(content)),
        file=_file_of(content),
    )
    return SimulatedResponse(body=json.dumps(whatsapp.accepted(content, taken.message_id)), taken=taken)


def _file_of(content: dict[str, Any]) -> AcceptedFile | None:
    kind = text(content, "type")
    if kind not in whatsapp.SENT_MEDIA:
        return None
    named = record(content, kind)
    return AcceptedFile(kind, text(named, "id"), text(named, "link"), text(named, "filename"))


def _words(content: dict[str, Any]) -> str:
    """Return the text that the person reads."""
    if text(content, "type") == "text":
        return text(record(content, "text"), "body")
    if text(content, "type") == "interactive":
        return whatsapp.text_of(content)
    if (kind := text(content, "type")) in whatsapp.SENT_MEDIA:
        return f"[{kind}] {text(record(content, kind), 'filename')}".strip()
    template = record(content, "template")
    if read := _as_read(template):
        return read
    parameters = [
        str(value_of(each, "text"))
        for component in items(template, "components")
        for each in items(component, "parameters")
    ]
    return " ".join([f"[template {text(template, 'name')}]", *parameters])


def _as_read(template: dict[str, Any]) -> str:
    """Return a sample template with its values as the person reads it; '' for one that is not known here."""
    known = next((each for each in whatsapp.SAMPLE_TEMPLATES if each["name"] == template.get("name")), None)
    if known is None:
        return ""
    values = [
        text(each, "text")
        for component in items(template, "components")
        if text(component, "type") == "body"
        for each in items(component, "parameters")
    ]
    words = next(str(each["text"]) for each in known["components"] if each["type"] == "BODY")
    for number, value in enumerate(values, start=1):
        words = words.replace("{{" + str(number) + "}}", value)
    return words
