"""The changes of WhatsApp's payloads: each is read into events of messages, statuses, echoes and the rest.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages", "System messages", "Business-scoped user IDs".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels_out.adapters import whatsapp_mapping as mapping
from channels_out.adapters import whatsapp_media
from channels_out.adapters.meta import MAX_KIND, unhandled
from channels_out.adapters.whatsapp_account_events import read_account_event
from channels_out.events import (
    Activity,
    AddressChange,
    ColleagueMessage,
    Event,
    InboundMessage,
    MarketingPreference,
    Receipt,
    Sender,
    Unhandled,
)
from channels_out.kinds import ActivityKind, AddressKind, ReceiptStatus
from channels_out.phones import from_whatsapp, is_business_scoped
from channels_out.shapes import identifier, items, moment, person_name, record, text, value_of

OBJECT = "whatsapp_business_account"
_MAX_REASON = 500
_APP = "WhatsApp Business app"

_OF_SENDER = ("from", "from_user_id", "from_parent_user_id")
_OF_CONTACT = ("wa_id", "user_id", "parent_user_id")
_PREFERENCES = "user_preferences"  # the field, and the key in its value
_ECHOES = {"smb_message_echoes": "message_echoes"}  # messages that the business wrote in its own WhatsApp app


def account_of(change: Any) -> str:
    """Return the phone number id that the change is about, '' if it names none."""
    return identifier(record(record(change, "value"), "metadata"), "phone_number_id")


class Change:
    """One change of an entry: the messages and statuses of one number."""

    __slots__ = ("account", "change", "entry", "people", "value")

    def __init__(self, entry: Any, change: Any) -> None:
        self.entry = entry
        self.change = change
        self.value = record(change, "value")
        self.account = account_of(change)
        self.people: dict[str, dict[str, Any]] | None = None

    def events(self) -> list[Event]:
        if type(self.change) is not dict:
            return [self.unhandled("change", "malformed")]
        field = self.change.get("field", "messages")
        if field != "messages":
            return self.other_field(field if type(field) is str else "")
        found: list[Event] = []
        for key, read in (("messages", self.message), ("statuses", self.status)):
            batch = self.value.get(key)
            if type(batch) is list:
                found += [
                    read(item) if type(item) is dict and self.account else self.unhandled(key, "malformed", key, item)
                    for item in batch
                ]
            elif batch is not None:
                found.append(self.unhandled(key, "malformed", key, batch))
        found += [self.unhandled("errors", "not_a_turn", "errors", error) for error in items(self.value, "errors")]
        return found or [self.unhandled("messages", "malformed")]

    def other_field(self, field: str) -> list[Event]:
        """Return the events of the app's other subscriptions: templates, account updates, history, and echoes."""
        if field == "calls" and (calls := items(self.value, "calls")):
            return [self.call(call) if type(call) is dict else self.unhandled("calls", "malformed") for call in calls]
        if field == _PREFERENCES and (choices := items(self.value, _PREFERENCES)):
            return [self.preference(item) for item in choices]
        key = _ECHOES.get(field, "")
        echoes = items(self.value, key)
        if not echoes:
            return [self.account_event(field)]
        return [self.echo(key, each) if type(each) is dict else self.unhandled(field, "malformed") for each in echoes]

    def preference(self, item: Any) -> Event:
        """Return the event of a choice about marketing messages; one that cannot be read is without a choice."""
        event = self.unhandled(_PREFERENCES, "not_a_turn", _PREFERENCES, item)
        value, category = text(item, "value"), text(item, "category")
        phone, user_id = identifier(item, "wa_id"), identifier(item, "user_id")
        known = {"from": phone or user_id, "from_user_id": user_id}
        sender = self.sender(known) if known["from"] else None
        if sender is None or category != "marketing_messages" or value not in ("stop", "resume"):
            return event
        change_id = f"{known['from']} {value} {identifier(item, 'timestamp')}"
        return replace(event, marketing=MarketingPreference(sender, value == "stop", change_id))

    def account_event(self, field: str) -> Event:
        """Return the event of another subscription, with what it tells of the account if it names no number."""
        event = self.unhandled(field, "not_a_turn")
        notice = None if self.account else read_account_event(field, self.value)
        at = moment(self.entry.get("time"))
        return replace(event, notice=notice, business=identifier(self.entry, "id"), occurred_at=at)

    def message(self, item: dict[str, Any]) -> Event:
        kind = text(item, "type")[:MAX_KIND]
        message_id = identifier(item, "id")
        sender = self.sender(item)
        activity = self.activity(kind, item, sender) if sender and not item.get("group_id") else None
        if kind in mapping.NOT_TURNS or activity or item.get("group_id"):
            event = self.unhandled(kind, "not_a_turn", "messages", item, message_id)
            return replace(event, moved=_moved(item) if kind == "system" else (), happened=activity)
        if not message_id or sender is None:
            return self.unhandled(kind, "malformed", "messages", item, message_id)
        words = mapping.read_text(kind, item)
        if words is None or not words.strip():
            return self.unhandled(kind, "unknown_type" if words is None else "not_a_turn", "messages", item, message_id)
        return InboundMessage(
            account=self.account,
            message_id=message_id,
            sender=sender,
            text=words,
            occurred_at=moment(item.get("timestamp")),
            kind=kind or "text",
            metadata=mapping.read_metadata(kind, item),
            media=whatsapp_media.read_media(kind, item),
        )

    def activity(self, kind: str, item: dict[str, Any], sender: Sender) -> Activity | None:
        """Return what the item says that the sender did, if it is no message."""
        found = mapping.read_activity(kind, item)
        if found is None:
            return None
        what, about, words = found
        at = moment(item.get("timestamp"))
        return Activity(what, sender, about, words, message_id=identifier(item, "id"), occurred_at=at)

    def call(self, item: dict[str, Any]) -> Event:
        """Return the event of a call, which may say that a person called in vain."""
        event = self.unhandled("calls", "not_a_turn", "calls", item, identifier(item, "id"))
        sender = self.sender(item)
        if sender is None or not mapping.is_missed_call(item):
            return event
        at = moment(item.get("timestamp"))
        missed = Activity(
            ActivityKind.MISSED_CALL, sender, text="called, and nobody answered", message_id=event.message_id
        )
        return replace(event, happened=replace(missed, occurred_at=at))

    def echo(self, key: str, item: dict[str, Any]) -> Event:
        """Return the event of a message that the business wrote in its own WhatsApp app."""
        kind = text(item, "type")[:MAX_KIND]
        event = self.unhandled(kind, "echo", key, item, identifier(item, "id"))
        known = [
            (each, address)
            for name in ("to", "to_user_id")
            if (address := identifier(item, name)) and (each := address_kind(address))
        ]
        words = (mapping.read_text(kind, item) or "").strip()
        if not known or not words or not event.message_id:
            return event
        to = Sender(known[0][1], known[0][0], aliases=tuple(known[1:]))
        at, described = moment(item.get("timestamp")), mapping.read_metadata(kind, item)
        written = ColleagueMessage(to, words, event.message_id, _APP, at, described)
        return replace(event, happened=replace(written, media=whatsapp_media.read_media(kind, item)))

    def status(self, item: dict[str, Any]) -> Event:
        provider_message_id = identifier(item, "id")
        word = text(item, "status")
        status = mapping.STATUSES.get(word)
        if status is None or not provider_message_id:
            why = "unknown_type" if word and provider_message_id else "malformed"
            return self.unhandled("status", why, "statuses", item, provider_message_id)
        code, reason, refuses_account = _failure(item)
        return Receipt(
            account=self.account,
            provider_message_id=provider_message_id,
            status=status,
            occurred_at=moment(item.get("timestamp")),
            our_message_id=identifier(item, "biz_opaque_callback_data") or None,
            code=code,
            reason=reason,
            account_broken=status is ReceiptStatus.FAILED and refuses_account,
            outside_window=status is ReceiptStatus.FAILED and mapping.ERRORS.is_outside_window(code),
        )

    def sender(self, item: dict[str, Any]) -> Sender | None:
        """Return the sender, or None if the item names none.

        A person has a phone number, a business-scoped user id, or both; `from` holds either. The reply goes to the
        address in `from`, else to the user id. The username is not kept: people change it.
        """
        person = self.person(item)
        known: dict[str, AddressKind] = {}
        digits = ""
        for holder, keys in ((item, _OF_SENDER), (person, _OF_CONTACT)):
            for key in keys:
                address = identifier(holder, key) if key in holder else ""
                if address and address not in known and (kind := address_kind(address)):
                    known[address] = kind
                    digits = digits or (address if kind is AddressKind.PHONE else "")
        if not known:
            return None
        (address, kind), *aliases = known.items()
        return Sender(
            address=address,
            kind=kind,
            phone=from_whatsapp(digits) if digits else None,
            name=person_name(text(record(person, "profile"), "name")),
            aliases=tuple([(kind, address) for address, kind in aliases]),
        )

    def person(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the payload's contact of the sender, {} if none. Contacts come in any order, and may be missing."""
        if self.people is None:
            self.people = {}
            for contact in items(self.value, "contacts"):
                for key in ("wa_id", "user_id"):
                    if name := text(contact, key):
                        self.people[name] = contact
        return self.people.get(text(item, "from")) or self.people.get(text(item, "from_user_id")) or {}

    def unhandled(self, kind: str, reason: str, key: str = "", item: Any = None, message_id: str = "") -> Unhandled:
        """Return the event, with the payload narrowed to the item and its contact (without a `key`: to the change)."""
        change = self.change
        if key:
            value: dict[str, Any] = {
                name: self.value[name] for name in ("messaging_product", "metadata") if name in self.value
            }
            if type(item) is dict and (person := self.person(item)):
                value["contacts"] = [person]
            value[key] = item if item is self.value.get(key) else [item]  # what should be an array stays as it is
            change = {"field": self.change.get("field", "messages"), "value": value}
        entry = {"id": self.entry.get("id"), "changes": [change]}
        if "time" in self.entry:
            entry["time"] = self.entry["time"]
        return unhandled(self.account, kind, reason, webhook_object=OBJECT, entry=entry, message_id=message_id)


def _moved(item: dict[str, Any]) -> tuple[AddressChange, ...]:
    """Return the address changes that a system message reports: the number, and the user ids that change with it."""
    system = record(item, "system")
    pairs = [
        (identifier(system, f"previous_{name}"), identifier(system, name)) for name in ("user_id", "parent_user_id")
    ]
    if "number" in text(system, "type"):
        pairs.insert(0, (identifier(item, "from"), identifier(system, "wa_id") or identifier(system, "new_wa_id")))
    return tuple(
        AddressChange(kind, before, after)
        for before, after in pairs
        if before != after and (kind := address_kind(before)) and kind == address_kind(after)
    )


def address_kind(address: str) -> AddressKind | None:
    """Return whether the address is a phone number or a business-scoped user id; None if it is neither."""
    if address.isascii() and address.isdigit() and len(address) <= 20:
        return AddressKind.PHONE
    return AddressKind.BSUID if is_business_scoped(address) else None


def _failure(item: dict[str, Any]) -> tuple[str, str, bool]:
    """Return the code and reason of a failed status, and whether it refuses the account; blank for other statuses."""
    errors = items(item, "errors")
    if not errors:
        return "", "", False
    error = errors[0]
    code = value_of(error, "code")
    refusal = mapping.ERRORS.account_refusal(code)  # Meta's own sentence may quote a token
    details = text(record(error, "error_data"), "details") or text(error, "message") or text(error, "title")
    written = str(code)[:MAX_KIND] if type(code) in (int, str) else ""
    return written, (refusal or details)[:_MAX_REASON], bool(refusal)
