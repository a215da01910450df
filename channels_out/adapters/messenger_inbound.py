"""Messenger's webhook payload, turned into events.

A payload nests: entries (pages, which may belong to different tenants), then what happened on the page. An item that
cannot be read becomes `Unhandled` and costs the others nothing. Pages hear themselves: each message that they send, by
whatever program or person, comes back as an echo.

Source: Meta, Messenger Platform, "Webhook events".
"""

from __future__ import annotations

import hashlib
import re
from typing import Any
from uuid import UUID

from channels_out.adapters import messenger_contents
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, ReachedUntil, Receipt, Sender, Unhandled
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.shapes import identifier, identifiers, items, moment, record, text, value_of

_OBJECT = "page"
_PERSON = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MAX_KIND = 64
_ABOUT = frozenset({"sender", "recipient", "timestamp", "prior_message"})  # keys that tell no kind

# Events that we know and that are no turn of the conversation.
_NOT_TURNS = frozenset(
    {
        *("reaction", "referral", "optin", "message_edit", "account_linking", "policy_enforcement", "game_play"),
        *("pass_thread_control", "take_thread_control", "request_thread_control", "app_roles", "message_feedback"),
    }
)


def addresses(payload: Any) -> list[str]:
    """The pages that the payload names, each once, in order. Raises InboundError (`malformed`)."""
    found = (identifier(entry, "id") for entry in _entries(payload))
    return list(dict.fromkeys(filter(None, found)))


def events(payload: Any) -> list[Event]:
    """Everything the payload tells, in order. Raises InboundError (`malformed`)."""
    return [event for entry in _entries(payload) for event in _Entry(entry).events()]


def of_account(payload: Any, address: str) -> dict[str, Any]:
    """The payload narrowed to the entries of one page. Raises InboundError (`malformed`)."""
    return {"object": _OBJECT, "entry": [each for each in _entries(payload) if identifier(each, "id") == address]}


def _entries(payload: Any) -> list[Any]:
    entries = payload.get("entry") if type(payload) is dict else None
    if type(entries) is not list or payload.get("object", _OBJECT) != _OBJECT:
        raise InboundError("The body is no Messenger webhook.", code="malformed")
    return entries


class _Entry:
    """One entry: what happened on one page."""

    __slots__ = ("entry", "page")

    def __init__(self, entry: Any) -> None:
        self.entry = entry
        self.page = identifier(entry, "id")

    def events(self) -> list[Event]:
        found: list[Event] = []
        for item in items(self.entry, "messaging"):
            found.extend(self.item(item) if type(item) is dict and self.page else self.malformed(item))
        # Another app has the conversation now, and we are told what is said: nobody waits for our answer.
        found.extend(self.unhandled("standby", "not_a_turn", "standby", each) for each in items(self.entry, "standby"))
        found.extend(
            self.unhandled(text(each, "field") or "change", "not_a_turn", "changes", each)
            for each in items(self.entry, "changes")
        )
        return found or [Unhandled(self.page, "entry", "malformed", {"object": _OBJECT, "entry": [self.entry]})]

    def item(self, item: dict[str, Any]) -> list[Event]:
        if "message" in item:
            return [self.message(item, record(item, "message"))]
        if "postback" in item:
            return [self.postback(item, record(item, "postback"))]
        if "delivery" in item:
            return self.delivered(item, record(item, "delivery"))
        if "read" in item:
            return [self.reached(item, record(item, "read"), ReceiptStatus.READ)]
        kind = next((key for key in item if key not in _ABOUT), "unknown")
        return [self.unhandled(kind, "not_a_turn" if kind in _NOT_TURNS else "unknown_type", "messaging", item)]

    # --- what people say

    def message(self, item: dict[str, Any], message: dict[str, Any]) -> Event:
        mid = identifier(message, "mid")
        # Before all else: the answer to an echo is echoed, and so on for ever. Its sender is the page, or is not.
        if message.get("is_echo") or (self.page and identifier(record(item, "sender"), "id") == self.page):
            return self.echo(item, message, mid)
        if message.get("is_deleted"):
            return self.unhandled("message_deleted", "not_a_turn", "messaging", item, mid)
        kind, words = messenger_contents.read(message)
        return self.said(item, kind, mid, words, messenger_contents.metadata(message))

    def postback(self, item: dict[str, Any], postback: dict[str, Any]) -> Event:
        mid = identifier(postback, "mid") or self.derived_id(item, postback)
        words = messenger_contents.read_postback(postback)
        return self.said(item, "postback", mid, words, messenger_contents.postback_metadata(postback))

    def said(self, item: dict[str, Any], kind: str, mid: str, words: str, metadata: dict[str, Any]) -> Event:
        person = self.person(item)
        recipient = identifier(record(item, "recipient"), "id")
        if not (person and mid) or recipient not in ("", self.page):
            return self.unhandled(kind, "malformed", "messaging", item, mid)
        if not words.strip():
            return self.unhandled(kind, "not_a_turn", "messaging", item, mid)
        return InboundMessage(
            account=self.page,
            message_id=mid,
            sender=Sender(person, AddressKind.PSID),
            text=words,
            occurred_at=moment(item.get("timestamp")),
            kind=kind,
            metadata=metadata,
        )

    def person(self, item: dict[str, Any]) -> str:
        """Who did it, '' if the item does not say (guests of a plugin have no id of their own)."""
        person = identifier(record(item, "sender"), "id")
        return person if _PERSON.fullmatch(person) else ""

    def derived_id(self, item: dict[str, Any], postback: dict[str, Any]) -> str:
        """The same for each delivery of a press of a button that has no id, else ''."""
        at = value_of(item, "timestamp")
        if type(at) not in (int, str) or not self.person(item):
            return ""
        about = (self.person(item), str(at), text(postback, "payload"), text(postback, "title"))
        return "postback." + hashlib.blake2b("\0".join(about).encode(), digest_size=16).hexdigest()

    # --- what became of what we said

    def echo(self, item: dict[str, Any], message: dict[str, Any], mid: str) -> Event:
        """With our own id in it, the echo says that Messenger took the message."""
        ours = text(message, "metadata")
        if not mid or not _is_uuid(ours):
            return self.unhandled("message", "echo", "messaging", item, mid)
        at = moment(item.get("timestamp"))
        return Receipt(self.page, mid, ReceiptStatus.SENT, occurred_at=at, our_message_id=ours)

    def delivered(self, item: dict[str, Any], delivery: dict[str, Any]) -> list[Event]:
        at = moment(delivery.get("watermark"))
        mids = identifiers(delivery, "mids")
        return [Receipt(self.page, mid, ReceiptStatus.DELIVERED, occurred_at=at) for mid in mids] or [
            self.reached(item, delivery, ReceiptStatus.DELIVERED)
        ]

    def reached(self, item: dict[str, Any], what: dict[str, Any], status: ReceiptStatus) -> Event:
        """Everything until the watermark: Messenger does not say which messages those are."""
        person, until = self.person(item), moment(what.get("watermark"))
        if not person or until is None:
            return self.unhandled(status.value, "malformed", "messaging", item)
        return ReachedUntil(self.page, person, status, until)

    # --- what is kept

    def malformed(self, item: Any) -> list[Event]:
        return [self.unhandled("messaging", "malformed", "messaging", item)]

    def unhandled(self, kind: str, reason: str, key: str, item: Any, message_id: str = "") -> Unhandled:
        """The event, with the payload narrowed to the item."""
        entry = {name: self.entry[name] for name in ("id", "time") if name in self.entry}
        raw = {"object": _OBJECT, "entry": [{**entry, key: [item]}]}
        return Unhandled(self.page, kind[:_MAX_KIND].strip() or "unknown", reason, raw, message_id)


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False
