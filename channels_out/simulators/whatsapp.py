"""The payloads of WhatsApp: webhooks as Meta composes them (360dialog passes them on), and the send route's answers.

    message = text("Hello", sender="51999999999")
    body = payload("1234567890", messages=[message], contacts=[contact("51999999999", "Ana")])
    meta.signed_by_meta(body, app_secret)

Ids of people are digits (a phone number) or a business-scoped user id such as "PE.1234".
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

TEXT_LIMIT = 4096
DISPLAY_PHONE_NUMBER = "250788123200"
BUSINESS_ACCOUNT = "8856996819413533"


def new_wamid() -> str:
    """Return a new message id in Meta's form."""
    return "wamid." + base64.b64encode(secrets.token_bytes(36)).decode()


# --- messages of people


def message(
    kind: str,
    content: Any,
    *,
    sender: str = "51999999999",
    user_id: str = "",
    message_id: str = "",
    timestamp: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a message of any type.

    content     the value under the type's name
    user_id     a business-scoped id beside the phone number
    timestamp   seconds since 1970, now unless given
    more        other fields, such as `context`, `referral`, `errors`
    """
    who = {"from": sender} if sender else {}
    if user_id:
        who["from_user_id"] = user_id
    return {
        **who,
        "id": message_id or new_wamid(),
        "timestamp": str(int(timestamp or time.time())),
        "type": kind,
        kind: content,
        **more,
    }


def text(body: str, **about: Any) -> dict[str, Any]:
    """Return a text. `reply_to` is the id of the message that it quotes; other arguments are those of `message`."""
    reply_to = about.pop("reply_to", "")
    if reply_to:
        about["context"] = {"from": DISPLAY_PHONE_NUMBER, "id": reply_to}
    return message("text", {"body": body}, **about)


def media(kind: str, *, caption: str = "", filename: str = "", voice: bool = False, **about: Any) -> dict[str, Any]:
    """Return an image, video, audio, document or sticker."""
    types = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/ogg; codecs=opus", "sticker": "image/webp"}
    content: dict[str, Any] = {"id": "1093851385", "mime_type": types.get(kind, "application/pdf"), "sha256": "abc="}
    extra = {"caption": caption, "filename": filename, "voice": voice}
    return message(kind, content | {key: value for key, value in extra.items() if value}, **about)


def button_reply(title: str, reply_id: str, **about: Any) -> dict[str, Any]:
    """Return a press of a button under one of our messages."""
    return message("interactive", {"type": "button_reply", "button_reply": {"id": reply_id, "title": title}}, **about)


def location(latitude: float, longitude: float, *, name: str = "", address: str = "", **about: Any) -> dict[str, Any]:
    """Return a location."""
    extra = {key: value for key, value in (("name", name), ("address", address)) if value}
    return message("location", {"latitude": latitude, "longitude": longitude, **extra}, **about)


def reaction(to: str, emoji: str = "", **about: Any) -> dict[str, Any]:
    """Return an emoji on one of our messages; without an emoji, its removal."""
    return message("reaction", {"message_id": to, **({"emoji": emoji} if emoji else {})}, **about)


def contact(person: str, name: str = "", *, user_id: str = "") -> dict[str, Any]:
    """Return the contact of a person, which is part of the payloads of their messages."""
    known = {"wa_id": person} if person.isdigit() else {"user_id": person}
    return {"profile": {"name": name} if name else {}, **known, **({"user_id": user_id} if user_id else {})}


# --- the status of our messages


def status(
    wamid: str,
    word: str,
    *,
    recipient: str = "51999999999",
    our_message_id: str = "",
    error: int | None = None,
    details: str = "It failed.",
    timestamp: float | None = None,
) -> dict[str, Any]:
    """Return a status: sent, delivered, read, played, or failed with an error code."""
    entry: dict[str, Any] = {
        "id": wamid,
        "status": word,
        "timestamp": str(int(timestamp or time.time())),
        "recipient_id": recipient,
    }
    if our_message_id:
        entry["biz_opaque_callback_data"] = our_message_id
    if error is not None:
        entry["errors"] = [{"code": error, "title": "Failed", "error_data": {"details": details}}]
    return entry


# --- the payload around it


def change(
    phone_number_id: str,
    *,
    messages: Sequence[Mapping[str, Any]] = (),
    statuses: Sequence[Mapping[str, Any]] = (),
    contacts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the change of one number."""
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": DISPLAY_PHONE_NUMBER, "phone_number_id": phone_number_id},
    }
    batches = {"contacts": contacts, "messages": messages, "statuses": statuses}
    value |= {key: list(batch) for key, batch in batches.items() if batch}
    return {"value": value, "field": "messages"}


def around(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload with these changes, which may be of several numbers."""
    entry = {"id": BUSINESS_ACCOUNT, "changes": list(changes)}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def payload(phone_number_id: str, **batches: Any) -> dict[str, Any]:
    """Return the payload of one number. The arguments are those of `change`."""
    return around(change(phone_number_id, **batches))


# --- the send route


def problem(content: Any) -> str:
    """Return Meta's error sentence for the body of a send, '' if it is valid."""
    if not isinstance(content, dict) or content.get("messaging_product") != "whatsapp":
        return "The parameter messaging_product is required."
    if content.get("status") == "read":
        return "" if content.get("message_id") else "The parameter message_id is required."
    to, recipient = content.get("to"), content.get("recipient")
    if not (isinstance(to, str) and to) and not (isinstance(recipient, str) and recipient):
        return "The parameter to is required."
    if to and not to.removeprefix("+").isdigit():
        return "The parameter to is not a phone number."
    if content.get("type") == "template":
        return _problem_of_template(content.get("template"))
    if content.get("type") != "text" or not isinstance(content.get("text"), dict):
        return "The parameter text is required."
    body = content["text"].get("body")
    if not isinstance(body, str) or not body.strip():
        return "The parameter text['body'] is required."
    if len(body) > TEXT_LIMIT:
        return f"Param text['body'] must be at most {TEXT_LIMIT} characters long."
    return ""


def _problem_of_template(template: Any) -> str:
    named = isinstance(template, dict) and template.get("name") and isinstance(template.get("language"), dict)
    return "" if named and template["language"].get("code") else "The parameter template is required."


def accepted(content: Mapping[str, Any], wamid: str) -> dict[str, Any]:
    """Return the answer to an accepted send."""
    to = content.get("to") or content["recipient"]
    person = {"input": to, "wa_id": to} if "to" in content else {"input": to, "user_id": to}
    return {
        "messaging_product": "whatsapp",
        "contacts": [person],
        "messages": [{"id": wamid, "message_status": "accepted"}],
    }
