"""What a Messenger message says, as text that people and an assistant can read, and what else of it matters.

Keys of the metadata, each only where there is something:

    attachments     [{"type", "url", "title", "sticker_id", "latitude", "longitude"}]; a url is http or https
    reply_to        the id of the message that this one answers
    payload title   of a button or quick reply: our own id of the choice, and what stood on it
    referral        how the person came to the page, as strings
"""

from __future__ import annotations

from typing import Any

from channels_out.shapes import identifier, items, record, text, value_of

_MAX_ITEMS = 20
_MAX_URL = 4096
_THUMBS_UP = {369239263222822, 369239343222814, 369239383222810}  # small, middle, large
_REFERRAL = ("source", "type", "ref", "ad_id", "referer_uri")


def read(message: dict[str, Any]) -> tuple[str, str]:
    """The message's kind, and it as text: a stand-in for each attachment, then its own words. '' says nothing.

    A shared link comes as an attachment beside its own text: then the text is enough.
    """
    words = text(message, "text")
    shown = [_Attachment(each) for each in items(message, "attachments")[:_MAX_ITEMS]]
    stand_ins = [each.stand_in for each in shown if not (words.strip() and each.kind == "fallback")]
    said = " ".join(filter(None, [*stand_ins, words]))
    if record(message, "quick_reply"):
        return "quick_reply", said or text(record(message, "quick_reply"), "payload")
    return (shown[0].kind if shown and not words.strip() else "text"), said


def metadata(message: dict[str, Any]) -> dict[str, Any]:
    """What else matters of the message; see above."""
    found = {
        "attachments": [_Attachment(each).described for each in items(message, "attachments")[:_MAX_ITEMS]],
        "reply_to": identifier(record(message, "reply_to"), "mid"),
        "payload": text(record(message, "quick_reply"), "payload"),
        "referral": _referral(message),
    }
    return {key: value for key, value in found.items() if value}


def read_postback(postback: dict[str, Any]) -> str:
    """What stood on the button that the person pressed."""
    return text(postback, "title") or text(postback, "payload")


def postback_metadata(postback: dict[str, Any]) -> dict[str, Any]:
    """What else matters of a pressed button; see above."""
    found = {
        "payload": text(postback, "payload"),
        "title": text(postback, "title"),
        "referral": _referral(postback),
    }
    return {key: value for key, value in found.items() if value}


def _referral(holder: dict[str, Any]) -> dict[str, str]:
    referral = record(holder, "referral")
    return {key: value for key in _REFERRAL if (value := text(referral, key))}


class _Attachment:
    """One thing that came with a message."""

    __slots__ = ("kind", "latitude", "longitude", "sticker", "title", "url")

    def __init__(self, attachment: Any) -> None:
        payload = record(attachment, "payload")
        place = record(payload, "coordinates")
        url = text(payload, "url") or text(attachment, "url")
        self.url = url if url.startswith(("http://", "https://")) and len(url) <= _MAX_URL else ""
        self.title = text(attachment, "title") or text(payload, "title")
        self.latitude, self.longitude = _number(place, "lat"), _number(place, "long")
        sticker = value_of(payload, "sticker_id")
        self.sticker = sticker if type(sticker) is int and 0 < sticker < 2**63 else None
        self.kind = "sticker" if self.sticker else text(attachment, "type")[:40] or "attachment"

    @property
    def stand_in(self) -> str:
        """For people to read."""
        if self.sticker in _THUMBS_UP:
            return "👍"
        words = [self.title]
        if self.latitude is not None and self.longitude is not None:
            words.append(f"({self.latitude}, {self.longitude})")
        if self.kind == "fallback":
            words.append(self.url)
        return " ".join(filter(None, [f"[{'link' if self.kind == 'fallback' else self.kind}]", *words]))

    @property
    def described(self) -> dict[str, Any]:
        """For programs."""
        found = {
            "type": self.kind,
            "url": self.url,
            "title": self.title,
            "sticker_id": self.sticker,
            "latitude": self.latitude,
            "longitude": self.longitude,
        }
        return {key: value for key, value in found.items() if value not in ("", None)}


def _number(holder: dict[str, Any], key: str) -> float | None:
    value = value_of(holder, key)
    return value if type(value) in (int, float) else None
