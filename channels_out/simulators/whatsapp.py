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
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

TEXT_LIMIT = 4096
INTERACTIVE_LIMIT = 1024  # characters of a text with choices
SENT_MEDIA = ("image", "audio", "video", "document", "sticker")
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


def media(
    kind: str,
    *,
    media_id: str = "1093851385",
    caption: str = "",
    filename: str = "",
    voice: bool = False,
    content_type: str = "",
    sha256: str = "abc=",
    **about: Any,
) -> dict[str, Any]:
    """Return an image, video, audio, document or sticker. `sha256` is in base64."""
    types = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/ogg; codecs=opus", "sticker": "image/webp"}
    content: dict[str, Any] = {
        "id": media_id,
        "mime_type": content_type or types.get(kind, "application/pdf"),
        "sha256": sha256,
    }
    extra = {"caption": caption, "filename": filename, "voice": voice}
    return message(kind, content | {key: value for key, value in extra.items() if value}, **about)


def media_record(media_id: str, link: str, *, content_type: str, digest: str, size: int) -> dict[str, Any]:
    """Return Meta's answer to a request for a file by its id. `digest` is in hexadecimal."""
    about = {"mime_type": content_type, "sha256": digest, "file_size": size, "id": media_id}
    return {"messaging_product": "whatsapp", "url": link, **about}


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


def edited(original: str, body: str, **about: Any) -> dict[str, Any]:
    """Return the edit of an earlier text of the person."""
    new = {"type": "text", "text": {"body": body}, "id": original}
    return message("edit", {"original_message_id": original, "message": new}, **about)


def revoked(original: str, **about: Any) -> dict[str, Any]:
    """Return the deletion of an earlier message of the person."""
    return message("revoke", {"original_message_id": original}, **about)


def echo(body: str, *, to: str = "51999999999", message_id: str = "") -> dict[str, Any]:
    """Return a text that a colleague wrote in the WhatsApp Business app. Its field is `smb_message_echoes`."""
    said = message("text", {"body": body}, sender=DISPLAY_PHONE_NUMBER, message_id=message_id)
    return {**said, "to": to}


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
        entry["errors"] = [
            {
                "code": error,
                "title": "Failed",
                "message": "Failed",
                "error_data": {"details": details},
                "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
            }
        ]
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


# --- templates


def template(
    name: str,
    body: str,
    *,
    language: str = "en_US",
    status: str = "APPROVED",
    category: str = "UTILITY",
    quality: str = "GREEN",
    header: Mapping[str, Any] | None = None,
    footer: str = "",
    buttons: Sequence[Mapping[str, Any]] = (),
    reason: str = "NONE",
) -> dict[str, Any]:
    """Return a template as the list of a business account has it. `header` is its component without the type."""
    components: list[dict[str, Any]] = [{"type": "HEADER", **header}] if header else []
    components.append({"type": "BODY", "text": body})
    if footer:
        components.append({"type": "FOOTER", "text": footer})
    if buttons:
        components.append({"type": "BUTTONS", "buttons": list(buttons)})
    return {
        "name": name,
        "language": language,
        "status": status,
        "category": category,
        "quality_score": {"score": quality, "date": 1767225600},
        "rejected_reason": reason,
        "components": components,
        "id": str(zlib.crc32(f"{name} {language}".encode())),
    }


SAMPLE_TEMPLATES = (
    template("hello_world", "Welcome and congratulations!", footer="WhatsApp Business Platform sample message"),
    template(
        "order_update",
        "Hello {{1}}, your order {{2}} is on its way.",
        buttons=[{"type": "QUICK_REPLY", "text": "Where is it?"}, {"type": "QUICK_REPLY", "text": "Stop updates"}],
    ),
    template("news", "We have news for you: {{1}}", category="MARKETING", status="PAUSED", quality="RED"),
)


def page_of_templates(listed: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return one page of the list of templates. `after` in the query is the number of those that were listed."""
    begin, size = int(query.get("after") or 0), int(query.get("limit") or 25)
    page = list(listed[begin : begin + size])
    paging: dict[str, Any] = {"cursors": {"before": str(begin), "after": str(begin + len(page))}}
    if begin + len(page) < len(listed):
        paging["next"] = "https://graph.facebook.com/next-page"
    return {"data": page, "paging": paging}


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
    return _problem_of_content(content)


def _problem_of_content(content: dict[str, Any]) -> str:
    if content.get("type") == "template":
        return _problem_of_template(content.get("template"))
    if content.get("type") == "interactive":
        return _problem_of_choices(content.get("interactive"))
    if content.get("type") in SENT_MEDIA:
        named = content.get(content["type"])
        known = isinstance(named, dict) and (named.get("id") or named.get("link"))
        return "" if known else f"The parameter {content['type']}['id'] is required."
    if content.get("type") != "text" or not isinstance(content.get("text"), dict):
        return "The parameter text is required."
    body = content["text"].get("body")
    if not isinstance(body, str) or not body.strip():
        return "The parameter text['body'] is required."
    if len(body) > TEXT_LIMIT:
        return f"Param text['body'] must be at most {TEXT_LIMIT} characters long."
    return ""


def _problem_of_template(template: Any) -> str:
    """Return what Meta refuses in a template. Its variables are checked where it is known (`SAMPLE_TEMPLATES`)."""
    named = isinstance(template, dict) and template.get("name") and isinstance(template.get("language"), dict)
    return "" if named and template["language"].get("code") else "The parameter template is required."


def _problem_of_choices(interactive: Any) -> str:
    """Return what Meta refuses in buttons or a list. Source: "Interactive reply buttons", "Interactive lists"."""
    if not isinstance(interactive, dict) or interactive.get("type") not in ("button", "list"):
        return "The parameter interactive['type'] is invalid."
    body = interactive.get("body", {}).get("text")
    if not isinstance(body, str) or not body.strip() or len(body) > INTERACTIVE_LIMIT:
        return f"The parameter interactive['body']['text'] must have 1 to {INTERACTIVE_LIMIT} characters."
    action = interactive.get("action", {})
    if interactive["type"] == "button":
        offered, most, longest = [each.get("reply", {}) for each in action.get("buttons", [])], 3, 20
    else:
        offered = [row for section in action.get("sections", []) for row in section.get("rows", [])]
        most, longest = 10, 24
        if not 1 <= len(action.get("button", "")) <= 20:
            return "The parameter interactive['action']['button'] must have 1 to 20 characters."
    titles, ids = ([each.get(name, "") for each in offered] for name in ("title", "id"))
    if not 1 <= len(offered) <= most or len(set(titles)) < len(titles) or len(set(ids)) < len(ids):
        return f"There must be 1 to {most} choices, each with a title and an id of its own."
    if any(not 1 <= len(title) <= longest for title in titles) or any(not 1 <= len(each) <= 200 for each in ids):
        return f"A title must have 1 to {longest} characters, and an id 1 to 200."
    return "A description must have at most 72 characters." if any(_is_long(each) for each in offered) else ""


def _is_long(row: Mapping[str, Any]) -> bool:
    return len(row.get("description", "")) > 72


def text_of(content: Mapping[str, Any]) -> str:
    """Return the words of a send: its text, or those above its choices."""
    said = content.get("text", {}).get("body", "") or content.get("interactive", {}).get("body", {}).get("text", "")
    return str(said)


def choices_in(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the choices of a send, each with id and title."""
    action = content.get("interactive", {}).get("action", {})
    buttons = [each["reply"] for each in action.get("buttons", [])]
    return buttons + [row for section in action.get("sections", []) for row in section["rows"]]


def list_reply(title: str, reply_id: str, description: str = "", **about: Any) -> dict[str, Any]:
    """Return the choice of a row in one of our lists."""
    row = {"id": reply_id, "title": title} | ({"description": description} if description else {})
    return message("interactive", {"type": "list_reply", "list_reply": row}, **about)


def accepted(content: Mapping[str, Any], wamid: str, *, wa_id: str = "", user_id: str = "") -> dict[str, Any]:
    """Return the answer to an accepted send. `wa_id` and `user_id`: the recipient's, where they are not `to` itself."""
    to = content.get("to") or content["recipient"]
    person = {"input": to, "wa_id": wa_id or to} if "to" in content else {"input": to, "user_id": to}
    if user_id:
        person["user_id"] = user_id
    return {
        "messaging_product": "whatsapp",
        "contacts": [person],
        "messages": [{"id": wamid, "message_status": "accepted"}],
    }
