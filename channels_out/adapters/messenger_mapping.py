"""The mapping between Messenger's payloads and ours: messages, statuses and error codes, one table each.

Keys of the metadata, each only where there is something:

    attachments     [{"type", "url", "title", "sticker_id", "latitude", "longitude", "products"}]; a url is http(s);
                    products as [{"id", "retailer_id", "title", "subtitle", "image_url"}], the subtitle being the price
    reply_to        the id of the message that this one answers
    payload title   of a button or quick reply: our own id of the choice, and its label
    referral        how the person came to the page, with all that Meta says of it: the link's `ref`, the ad's title

Source: Meta, Messenger Platform, "Webhook events" and "Error codes".
"""

from __future__ import annotations

from typing import Any

from channels_out.adapters.meta import GraphErrors
from channels_out.contract import FileRule, OutboundFile
from channels_out.errors import ErrorMeaning, ErrorRule
from channels_out.events import MediaReference
from channels_out.kinds import ActivityKind, MediaKind, ReceiptStatus
from channels_out.shapes import identifier, items, plain_facts, record, text, value_of

_MAX_ITEMS = 20
_MAX_URL = 4096
_LONGEST_NAME = 200
_UNSUPPORTED = "[a message that Messenger cannot pass on]"
_PAGE_INBOX = (263902037430900, "263902037430900")  # app_id
_MEDIA = {
    "image": MediaKind.IMAGE,
    "sticker": MediaKind.STICKER,
    "audio": MediaKind.AUDIO,
    **dict.fromkeys(("video", "reel", "ig_reel"), MediaKind.VIDEO),
    "file": MediaKind.DOCUMENT,
}
# Source: Meta, Messenger Platform, "Send API: attachments". What is larger is no attachment.
_MOST_BYTES = 25_000_000
FILE_RULES = (
    FileRule(MediaKind.IMAGE, _MOST_BYTES, frozenset({"image/jpeg", "image/png", "image/gif"})),
    FileRule(MediaKind.AUDIO, _MOST_BYTES, frozenset({"audio/aac", "audio/mp4", "audio/mpeg", "audio/wav"})),
    FileRule(MediaKind.VIDEO, _MOST_BYTES, frozenset({"video/mp4"})),
    FileRule(MediaKind.DOCUMENT, _MOST_BYTES),
)
_THUMBS_UP = {369239263222822, 369239343222814, 369239383222810}  # small, middle, large

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
    pairs={
        (100, 33): ErrorRule(
            _BROKEN,
            "Messenger does not know this page id, or the access token has no access to it: correct the one or the"
            " other at the account, then press Try again.",
        ),
    },
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
    if not readable and message.get("is_unsupported") is True:
        return "unsupported", _UNSUPPORTED
    if record(message, "quick_reply"):
        return "quick_reply", readable or text(record(message, "quick_reply"), "payload")
    return (shown[0].kind if shown and not words.strip() else "text"), readable


def read_media(message: dict[str, Any]) -> tuple[MediaReference, ...]:
    """Return the message's files. A thumb up is a word and no picture."""
    shown = [_Attachment(each) for each in items(message, "attachments")[:_MAX_ITEMS]]
    return tuple(
        MediaReference(_MEDIA[each.kind], each.url, name=each.title[:_LONGEST_NAME] if each.kind == "file" else "")
        for each in shown
        if each.url and each.kind in _MEDIA and each.sticker not in _THUMBS_UP
    )


def compose_file(file: OutboundFile) -> dict[str, Any]:
    """Return the part of a message's JSON that is about its file."""
    kind = "file" if file.kind is MediaKind.DOCUMENT else file.kind.value
    return {"attachment": {"type": kind, "payload": {"url": file.link, "is_reusable": False}}}


def read_activity(kind: str, content: dict[str, Any]) -> tuple[ActivityKind, str, str] | None:
    """Return what the item says that the person did, the message that it is about, and its text; None if nothing."""
    mid = identifier(content, "mid")
    if kind == "reaction" and mid:
        emoji = text(content, "emoji") or text(content, "reaction")
        return ActivityKind.REACTION, mid, "" if text(content, "action") == "unreact" else emoji
    if kind == "message_edit" and mid and text(content, "text").strip():
        return ActivityKind.EDIT, mid, text(content, "text")
    if kind == "referral":
        return ActivityKind.REFERRAL, "", "came to the page again by a link or an ad"
    return None


def program_of_echo(message: dict[str, Any]) -> str:
    """Return the program in which a colleague wrote the echoed message, for people to read."""
    return "Page inbox" if value_of(message, "app_id") in (None, *_PAGE_INBOX) else "another app of the page"


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


def read_referral(holder: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of how the person came to the page, with the key `referral` if anything is known."""
    referral = _referral(holder)
    return {"referral": referral} if referral else {}


def _referral(holder: dict[str, Any]) -> dict[str, Any]:
    return plain_facts(holder.get("referral"))


class _Attachment:
    """One attachment of a message."""

    __slots__ = ("kind", "latitude", "longitude", "products", "sticker", "title", "url")

    def __init__(self, attachment: Any) -> None:
        payload = record(attachment, "payload")
        place = record(payload, "coordinates")
        url = text(payload, "url") or text(attachment, "url")
        self.url = url if url.startswith(("http://", "https://")) and len(url) <= _MAX_URL else ""
        self.title = text(attachment, "title") or text(payload, "title")
        self.latitude, self.longitude = _number(place, "lat"), _number(place, "long")
        sticker = value_of(payload, "sticker_id")
        self.sticker = sticker if type(sticker) is int and 0 < sticker < 2**63 else None
        elements = items(record(payload, "product"), "elements")[:_MAX_ITEMS]
        self.products = [facts for each in elements if (facts := plain_facts(each))]
        self.kind = (
            "product" if self.products else "sticker" if self.sticker else text(attachment, "type")[:40] or "attachment"
        )

    @property
    def stand_in(self) -> str:
        """The text that people and an assistant read."""
        if self.sticker in _THUMBS_UP:
            return "👍"
        words = [self.title, *(_product_words(each) for each in self.products)]
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
            "products": self.products,
        }
        return {key: value for key, value in found.items() if value not in ("", None, [])}


def _product_words(product: dict[str, Any]) -> str:
    return ", ".join(filter(None, (text(product, key) for key in ("title", "subtitle", "retailer_id"))))


def _number(holder: dict[str, Any], key: str) -> float | None:
    value = value_of(holder, key)
    return value if type(value) in (int, float) else None
