"""Messenger, a Facebook page's conversations, through Meta's Graph API: how a payload is read, and a message composed.

Instagram's messages come in the same form (`object: instagram`). Its account's id stands where a page's does, and what
was read is named by id.

A payload nests: entries (pages), then the items of the page. Pages hear themselves: each message that they send, by any
program or person, comes back as an echo. The kinds of messages, the statuses and the error codes are in
`messenger_mapping`.

Source: Meta, Messenger Platform, "Webhook events" and "Send API".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from channels_out.adapters import messenger_mapping as mapping
from channels_out.adapters import meta_account_checks as checks
from channels_out.adapters.meta import MetaAdapter, unhandled
from channels_out.choices import ChoiceForm
from channels_out.contract import Account, Finding, InboundReference, OutboundMessage
from channels_out.events import (
    Activity,
    ColleagueMessage,
    Event,
    InboundMessage,
    Receipt,
    Sender,
    Unhandled,
    WatermarkReceipt,
)
from channels_out.kinds import ActivityKind, AddressKind, Channel, ReceiptStatus
from channels_out.shapes import identifier, identifiers, items, moment, record, text, value_of

_OBJECT = "page"
INSTAGRAM_LIMIT = (1000, "utf-8 bytes")
_INSTAGRAM = re.compile(r"1784[0-9]{13}")
_PERSON = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class MessengerAdapter(MetaAdapter):
    """An account's address is the id of its page or Instagram account, its base URL an API's with the version in it."""

    provider = "messenger"
    title = "Messenger (Meta)"
    address_name = "page id"
    channel = Channel.MESSENGER
    text_limit = 2000
    choice_forms = (ChoiceForm("quick_reply", 13, title=20),)
    reports_watermarks = True
    hears_colleagues = True
    webhook_object = _OBJECT
    further_objects = ("instagram",)
    errors = mapping.ERRORS
    record_fields = "name"
    account_key = "id"  # of pages, and of people too
    file_rules = mapping.FILE_RULES

    def entry_accounts(self, entry: Any) -> list[str]:
        """Return the entry's page."""
        page = identifier(entry, "id")
        return [page] if page else []

    def entry_events(self, entry: Any) -> list[Event]:
        """Return everything that happened on the page."""
        return _PageEntry(entry).events()

    def narrowed_entry(self, entry: Any, address: str) -> dict[str, Any] | None:
        """Return the entry if it is of this page."""
        return entry if identifier(entry, "id") == address else None

    def limit_of(self, address: str) -> tuple[int, str]:
        """Return the limit of the page, or of an Instagram account, which is known by the form of its id."""
        return INSTAGRAM_LIMIT if _INSTAGRAM.fullmatch(address) else super().limit_of(address)

    def compose(self, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one text, with quick replies for choices, or of one file, which Messenger fetches."""
        said: dict[str, Any] = {
            **(mapping.compose_file(message.file) if message.file else {"text": message.text}),
            "metadata": message.message_id,  # the echo contains it, and so settles a send that got no answer
        }
        if message.choices:
            said["quick_replies"] = [
                {"content_type": "text", "title": each.title, "payload": each.id} for each in message.choices.options
            ]
        return {"messaging_type": "RESPONSE", "recipient": {"id": message.to}, "message": said}

    def accepted_id(self, content: Any) -> str:
        """Return the mid."""
        return identifier(content, "message_id")

    def account_name(self, content: Any) -> str:
        """Return the page's name, or its id."""
        return identifier(content, "name") or identifier(content, "id")

    def inspect(self, account: Account, business: str, webhook_url: str) -> list[Finding]:
        """Return whether the app hears the page. Where its webhooks go, Meta tells in its console alone."""
        if _INSTAGRAM.fullmatch(account.address):
            return []
        listed = self._read(account, f"{self._account_url(account)}/subscribed_apps?fields=subscribed_fields")
        return checks.page_findings(listed, webhook_url)

    def mark_read(self, account: Account, answered: InboundReference, *, typing: bool) -> None:
        """Mark the person's messages seen. If `typing`, they see for up to 20 seconds that a reply is being written."""
        for action in ("mark_seen", *(["typing_on"] if typing else [])):
            self._post(account, {"recipient": {"id": answered.sender}, "sender_action": action})


class _PageEntry:
    """One entry: the items of one page."""

    __slots__ = ("entry", "page")

    def __init__(self, entry: Any) -> None:
        self.entry = entry
        self.page = identifier(entry, "id")

    def events(self) -> list[Event]:
        found: list[Event] = []
        for item in items(self.entry, "messaging"):
            found.extend(self.item(item) if type(item) is dict and self.page else self.malformed(item))
        # Another app has the conversation now, and we only listen: nobody waits for our answer.
        found.extend(self.unhandled("standby", "not_a_turn", "standby", each) for each in items(self.entry, "standby"))
        found.extend(
            self.unhandled(text(each, "field") or "change", "not_a_turn", "changes", each)
            for each in items(self.entry, "changes")
        )
        return found or [unhandled(self.page, "entry", "malformed", webhook_object=_OBJECT, entry=self.entry)]

    def item(self, item: dict[str, Any]) -> list[Event]:
        if "message" in item:
            return [self.message(item, record(item, "message"))]
        if "postback" in item:
            return [self.postback(item, record(item, "postback"))]
        if "delivery" in item:
            return self.delivered(item, record(item, "delivery"))
        if mid := identifier(record(item, "read"), "mid"):
            return [Receipt(self.page, mid, ReceiptStatus.READ, occurred_at=moment(item.get("timestamp")))]
        if "read" in item:
            return [self.watermark(item, record(item, "read"), mapping.STATUSES["read"])]
        kind = next((key for key in item if key not in mapping.ENVELOPE_KEYS), "unknown")
        reason = "not_a_turn" if kind in mapping.NOT_TURNS else "unknown_type"
        event = self.unhandled(kind, reason, "messaging", item)
        return [replace(event, happened=self.activity(item, kind, record(item, kind)))]

    def activity(self, item: dict[str, Any], kind: str, content: dict[str, Any]) -> Activity | None:
        """Return what the item says that the person did, if it is no message."""
        person, found = self.person(item), mapping.read_activity(kind, content)
        if not person or found is None:
            return None
        what, about, words = found
        number = value_of(content, "num_edit")
        return Activity(
            what,
            Sender(person, AddressKind.PSID),
            about,
            words,
            message_id=f"{about}.{number}" if what is ActivityKind.EDIT and type(number) is int else "",
            occurred_at=moment(item.get("timestamp")),
            metadata=mapping.read_referral(item) if what is ActivityKind.REFERRAL else {},
        )

    # --- messages of people

    def message(self, item: dict[str, Any], message: dict[str, Any]) -> Event:
        mid = identifier(message, "mid")
        # Before all else: the answer to an echo is echoed, and so on for ever. Its sender is the page, or is not.
        if message.get("is_echo") or (self.page and identifier(record(item, "sender"), "id") == self.page):
            return self.echo(item, message, mid)
        if message.get("is_deleted"):
            return self.deletion(item, mid)
        kind, words = mapping.read_text(message)
        event = self.inbound(item, kind, mid, words, mapping.read_metadata(message))
        return event._replace(media=mapping.read_media(message)) if isinstance(event, InboundMessage) else event

    def deletion(self, item: dict[str, Any], mid: str) -> Event:
        event, person = self.unhandled("message_deleted", "not_a_turn", "messaging", item, mid), self.person(item)
        if not (person and mid):
            return event
        at = moment(item.get("timestamp"))
        gone = Activity(ActivityKind.DELETION, Sender(person, AddressKind.PSID), mid, occurred_at=at)
        return replace(event, happened=gone)

    def postback(self, item: dict[str, Any], postback: dict[str, Any]) -> Event:
        mid = identifier(postback, "mid") or self.derived_id(item, postback)
        words = text(postback, "title") or text(postback, "payload")  # the button's label
        return self.inbound(item, "postback", mid, words, mapping.read_postback_metadata(postback))

    def inbound(self, item: dict[str, Any], kind: str, mid: str, words: str, metadata: dict[str, Any]) -> Event:
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
        """Return the person's id, '' if the item names none (guests of a plugin have no id of their own)."""
        person = identifier(record(item, "sender"), "id")
        return person if _PERSON.fullmatch(person) else ""

    def derived_id(self, item: dict[str, Any], postback: dict[str, Any]) -> str:
        """Return an id for a button press without one, the same for each delivery; '' if that is not possible."""
        at = value_of(item, "timestamp")
        if type(at) not in (int, str) or not self.person(item):
            return ""
        about = (self.person(item), str(at), text(postback, "payload"), text(postback, "title"))
        return "postback." + hashlib.blake2b("\0".join(about).encode(), digest_size=16).hexdigest()

    # --- receipts

    def echo(self, item: dict[str, Any], message: dict[str, Any], mid: str) -> Event:
        """Return the receipt of our own message (an echo with our id means that Messenger accepted it), or what a
        colleague wrote elsewhere."""
        ours = text(message, "metadata")
        at = moment(item.get("timestamp"))
        if not mid or not _is_uuid(ours):
            event = self.unhandled("message", "echo", "messaging", item, mid)
            return replace(event, happened=self.colleague(item, message, mid, at))
        return Receipt(self.page, mid, ReceiptStatus.SENT, occurred_at=at, our_message_id=ours)

    def colleague(
        self, item: dict[str, Any], message: dict[str, Any], mid: str, at: datetime | None
    ) -> ColleagueMessage | None:
        """Return what a colleague wrote to a person by another program; None if it cannot be read."""
        person, (_, words) = identifier(record(item, "recipient"), "id"), mapping.read_text(message)
        if not (mid and _PERSON.fullmatch(person) and person != self.page and words.strip()):
            return None
        to, program = Sender(person, AddressKind.PSID), mapping.program_of_echo(message)
        described, media = mapping.read_metadata(message), mapping.read_media(message)
        return ColleagueMessage(to, words, mid, program, at, described, media)

    def delivered(self, item: dict[str, Any], delivery: dict[str, Any]) -> list[Event]:
        at, status = moment(delivery.get("watermark")), mapping.STATUSES["delivery"]
        mids = identifiers(delivery, "mids")
        return [Receipt(self.page, mid, status, occurred_at=at) for mid in mids] or [
            self.watermark(item, delivery, status)
        ]

    def watermark(self, item: dict[str, Any], reported: dict[str, Any], status: ReceiptStatus) -> Event:
        """Return the receipt for all messages up to a moment: Messenger does not say which messages those are."""
        person, until = self.person(item), moment(reported.get("watermark"))
        if not person or until is None:
            return self.unhandled(status.value, "malformed", "messaging", item)
        return WatermarkReceipt(self.page, person, status, until)

    # --- items that are no turns

    def malformed(self, item: Any) -> list[Event]:
        return [self.unhandled("messaging", "malformed", "messaging", item)]

    def unhandled(self, kind: str, reason: str, key: str, item: Any, message_id: str = "") -> Unhandled:
        """Return the event, with the payload narrowed to the item."""
        entry = {name: self.entry[name] for name in ("id", "time") if name in self.entry}
        entry[key] = [item]
        return unhandled(self.page, kind, reason, webhook_object=_OBJECT, entry=entry, message_id=message_id)


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False
