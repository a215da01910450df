"""The payloads of Messenger: webhooks as Meta composes them, and the answers of its send route.

    item = text("1234567890", "5678", "Hello")
    meta.signed_by_meta(payload("1234567890", item), app_secret)

`page` is the page's id, `person` a person's page-scoped id; `at` milliseconds since 1970, now unless given.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

TEXT_LIMIT = 2000
PAGE_INBOX = 263902037430900  # the app id of messages that people write in the Page inbox
ACTIONS = ("mark_seen", "typing_on", "typing_off")


def new_mid() -> str:
    """Return a new message id in Meta's form."""
    return "m_" + secrets.token_urlsafe(48)


# --- messages of people


def message(page: str, person: str, *, mid: str = "", at: int | None = None, **content: Any) -> dict[str, Any]:
    """Return a message with any content, such as `text`, `attachments`, `quick_reply`, `reply_to`, `is_deleted`."""
    return _from(person, page, at, message={"mid": mid or new_mid(), **content})


def text(page: str, person: str, words: str, *, mid: str = "", at: int | None = None) -> dict[str, Any]:
    """Return a text message."""
    return message(page, person, mid=mid, at=at, text=words)


def attachment(kind: str, url: str = "https://cdn.example/1", **payload: Any) -> dict[str, Any]:
    """Return an attachment: image, video, audio, file, location, fallback, template, reel."""
    return {"type": kind, "payload": {**({"url": url} if url else {}), **payload}}


def postback(
    page: str, person: str, title: str, payload: str, *, mid: str = "", at: int | None = None
) -> dict[str, Any]:
    """Return a press of a button. Old ones have no id."""
    return _from(person, page, at, postback={**({"mid": mid} if mid else {}), "title": title, "payload": payload})


# --- the status of our messages


def echo(
    page: str, person: str, words: str, *, mid: str = "", metadata: str = "", app_id: int = 4711
) -> dict[str, Any]:
    """Return the echo of a message that the page sent by any program; by hand, it has no metadata."""
    content: dict[str, Any] = {"is_echo": True, "app_id": app_id, "mid": mid or new_mid(), "text": words}
    if metadata:
        content["metadata"] = metadata
    return _from(page, person, None, message=content)


def delivery(page: str, person: str, *, mids: Sequence[str] = (), watermark: int | None = None) -> dict[str, Any]:
    """Return the delivery of the named messages, and of all until the watermark."""
    named = {"mids": list(mids)} if mids else {}
    return _from(person, page, None, delivery={**named, "watermark": _now() if watermark is None else watermark})


def read(page: str, person: str, *, watermark: int | None = None) -> dict[str, Any]:
    """Return the report that all messages until the watermark were read; none is named."""
    return _from(person, page, None, read={"watermark": _now() if watermark is None else watermark})


# --- the payload around it


def payload(page: str, *items: Mapping[str, Any], key: str = "messaging") -> dict[str, Any]:
    """Return the payload of one page; `key` is "standby" while another app has the conversations."""
    return {"object": "page", "entry": [entry(page, *items, key=key)]}


def entry(page: str, *items: Mapping[str, Any], key: str = "messaging") -> dict[str, Any]:
    """Return one page's entry of a payload, which may have several."""
    return {"id": page, "time": _now(), key: list(items)}


# --- the send route


def problem(content: Any) -> str:
    """Return Messenger's error sentence for the body of a send, '' if it is valid."""
    if not isinstance(content, dict) or not isinstance(content.get("recipient"), dict):
        return "The parameter recipient is required"
    if not isinstance(content["recipient"].get("id"), str) or not content["recipient"]["id"]:
        return "No matching user found"
    if "sender_action" in content:
        return "" if content["sender_action"] in ACTIONS else "Param sender_action must be one of its values"
    if content.get("messaging_type") not in ("RESPONSE", "UPDATE", "MESSAGE_TAG"):
        return "Param messaging_type must be one of its values"
    words = content["message"].get("text") if isinstance(content.get("message"), dict) else None
    attachment = content["message"].get("attachment") if isinstance(content.get("message"), dict) else None
    if isinstance(attachment, dict):
        given = attachment.get("payload")
        is_known = attachment.get("type") in ("image", "audio", "video", "file")
        is_there = isinstance(given, dict) and str(given.get("url", "")).startswith("http")
        return "" if is_known and is_there else "Param message[attachment] is not valid"
    if not isinstance(words, str) or not words.strip():
        return "The parameter message is required"
    if len(words) > TEXT_LIMIT:
        return f"Length of param message[text] must be less than or equal to {TEXT_LIMIT}"
    return _problem_of_quick_replies(content["message"].get("quick_replies", []))


def _problem_of_quick_replies(offered: Any) -> str:
    if not isinstance(offered, list) or len(offered) > 13:
        return "Length of param message[quick_replies] must be less than or equal to 13"
    fits = [each.get("content_type") == "text" and 1 <= len(each.get("title", "")) <= 20 for each in offered]
    return "" if all(fits) and all(each.get("payload") for each in offered) else "Param quick_replies is invalid"


def reaction(page: str, person: str, mid: str, emoji: str, *, at: int | None = None) -> dict[str, Any]:
    """Return an emoji on a message; without an emoji, its removal."""
    how = {"action": "react", "emoji": emoji} if emoji else {"action": "unreact"}
    return _from(person, page, at, reaction={"mid": mid, **how})


def edited(page: str, person: str, mid: str, words: str, *, at: int | None = None) -> dict[str, Any]:
    """Return the edit of an earlier text of the person."""
    return _from(person, page, at, message_edit={"mid": mid, "text": words, "num_edit": 1})


def quick_reply(page: str, person: str, title: str, payload: str, *, mid: str = "") -> dict[str, Any]:
    """Return a press of a quick reply under one of our messages."""
    return message(page, person, mid=mid, text=title, quick_reply={"payload": payload})


def accepted(content: Mapping[str, Any], mid: str) -> dict[str, Any]:
    """Return the answer to an accepted send."""
    return {"recipient_id": content["recipient"]["id"], **({"message_id": mid} if "message" in content else {})}


def _from(sender: str, recipient: str, at: int | None, **what: Any) -> dict[str, Any]:
    who = {"sender": {"id": sender}, "recipient": {"id": recipient}}
    return {**who, "timestamp": _now() if at is None else at, **what}


def _now() -> int:
    return int(time.time() * 1000)
