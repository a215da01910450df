"""The mapping between Messenger's payloads and ours: messages, statuses and error codes, one table each.

Keys of the metadata, each only where there is something:

    attachments     [{"type", "url", "title", "sticker_id", "latitude", "longitude"}]; a url is http or https
    reply_to        the id of the message that this one answers
    payload title   of a button or quick reply: our own id of the choice, and its label
    referral        how the person came to the page, as strings

Source: Meta, Messenger Platform, "Webhook events" and "Error codes".
"""

from __future__ import annotations

from typing import Any

from channels_out.adapters.meta import GraphErrors
from channels_out.errors import ErrorMeaning, ErrorRule
from channels_out.kinds import ReceiptStatus
from channels_out.shapes import identifier, items, record, text, value_of

_MAX_ITEMS = 20
_MAX_URL = 4096
_THUMBS_UP = {369239263222822, 369239343222814, 369239383222810}  # small, middle, large
_REFERRAL = ("source", "type", "ref", "ad_id", "referer_uri")

# --- events

ENVELOPE_KEYS = frozenset({"sender", "recipient", "timestamp", "prior_message"})  # an item's keys that are not its kind

# Kinds that are known and are no turn of the conversation.
NOT_TURNS = frozenset(
    {
        *("reaction", "referral", "optin", "message_edit", "account_linking", "policy_enforcement", "game_play"),
        *("pass_thread_control", "take_thread_control", "request_thread_control", "app_roles", "message_feedback"),
    }
)

STATUSES = {"delivery": ReceiptStatus.DELIVERED, "read": ReceiptStatus.READ}

# --- errors

_TRANSIENT, _THROTTLED, _BROKEN = ErrorMeaning.TRANSIENT, ErrorMeaning.THROTTLED, ErrorMeaning.BROKEN
_FINAL = ErrorMeaning.FINAL
_UNAVAILABLE = "The person cannot be written to now: they blocked the page, or left Messenger."
_OUTSIDE_WINDOW = ErrorRule(
    ErrorMeaning.OUTSIDE_WINDOW,
    "More than 24 hours have passed since the person last wrote: Messenger takes no message to them until they write"
    " again.",
)

ERRORS = GraphErrors(
    "Messenger",
    {
        1: ErrorRule(_TRANSIENT, "Messenger failed, or the app lacks a permission."),
        2: ErrorRule(_TRANSIENT, "Messenger is out of order, or the person blocked the page."),
        1200: ErrorRule(_TRANSIENT, "Messenger could not send for the moment."),
        # throttled
        4: ErrorRule(_THROTTLED, "Messenger throttles the app."),
        **dict.fromkeys((32, 613, 80006), ErrorRule(_THROTTLED, "Messenger throttles the page.")),
        # the token
        **dict.fromkeys((102, 190), ErrorRule(_BROKEN, "Messenger refuses the access token.")),
        # our request, or a person who cannot be written to
        100: ErrorRule(_FINAL, "Messenger found a parameter invalid, or knows no such person."),
        551: ErrorRule(_FINAL, _UNAVAILABLE),
        10900: ErrorRule(_FINAL, "Messenger does not permit this message."),
        10903: ErrorRule(_FINAL, "The person cannot reply to this page, and so cannot be written to."),
        # permissions and policy
        **dict.fromkeys((3, *range(200, 300)), ErrorRule(_FINAL)),
        10: ErrorRule(
            _FINAL,
            "Messenger does not permit this message: the app lacks a permission, or the person last wrote too long"
            " ago.",
        ),
        200: ErrorRule(_FINAL, "The app lacks the permission to send for this page."),
        230: ErrorRule(_FINAL, "The app lacks the permission to write to this person."),
        368: ErrorRule(_FINAL, "Messenger blocked the page's messages for violating its policies."),
        2022: ErrorRule(_FINAL, "Messenger disabled the page's commerce messages for a while."),
        10904: ErrorRule(_FINAL, "The page has its messages switched off."),
    },
    subcodes=dict.fromkeys((2018065, 2018278, 2534022), _OUTSIDE_WINDOW),
    subcode_sentences={
        1545041: _UNAVAILABLE,
        2018001: "Messenger knows no such person, or the person is another page's.",
        2018108: "The app is in development mode: only its own people can be written to.",
    },
)

# --- messages


def read_text(message: dict[str, Any]) -> tuple[str, str]:
    """Return the message's kind and its text: a stand-in for each attachment, then its words; '' if there are none.

    A shared link comes as an attachment beside its own text: then the text is enough.
    """
    words = text(message, "text")
    shown = [_Attachment(each) for each in items(message, "attachments")[:_MAX_ITEMS]]
    stand_ins = [each.stand_in for each in shown if not (words.strip() and each.kind == "fallback")]
    readable = " ".join(filter(None, [*stand_ins, words]))
    if record(message, "quick_reply"):
        return "quick_reply", readable or text(record(message, "quick_reply"), "payload")
    return (shown[0].kind if shown and not words.strip() else "text"), readable


def read_metadata(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message's metadata, with the keys listed above."""
    found = {
        "attachments": [_Attachment(each).described for each in items(message, "attachments")[:_MAX_ITEMS]],
        "reply_to": identifier(record(message, "reply_to"), "mid"),
        "payload": text(record(message, "quick_reply"), "payload"),
        "referral": _referral(message),
    }
    return {key: value for key, value in found.items() if value}


def read_postback_metadata(postback: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a pressed button, with the keys listed above."""
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
    """One attachment of a message."""

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
        """The text that people and an assistant read."""
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
        """The metadata."""
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
