"""WhatsApp's webhook payload, the same from Meta and from 360dialog, turned into events.

A payload nests: entries (WhatsApp Business accounts, each shared by several numbers), changes (each of one number),
then messages and statuses. Everything is a batch, different changes may belong to different tenants, and the same
message may be in it twice. An item that cannot be read becomes `Unhandled` and costs the others nothing.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages", "System messages" and "Business-scoped user IDs".
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from channels_out.adapters import whatsapp_contents, whatsapp_outbound
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, Moved, Receipt, Sender, Unhandled
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.phones import from_whatsapp
from channels_out.shapes import identifier, items, moment, person_name, record, text, value_of

_OBJECT = "whatsapp_business_account"
_BSUID = re.compile(r"[A-Z]{2}(\.ENT)?\.[A-Za-z0-9]{1,128}")
_MAX_KIND = 64
_MAX_REASON = 500

_NOT_TURNS = frozenset({"reaction", "edit", "revoke", "system", "request_welcome"})
_ECHOES = {"smb_message_echoes": "message_echoes"}  # what the business wrote in its own WhatsApp app

_STATUSES = {
    "sent": ReceiptStatus.SENT,
    "delivered": ReceiptStatus.DELIVERED,
    "read": ReceiptStatus.READ,
    "played": ReceiptStatus.READ,  # a voice note was listened to
    "failed": ReceiptStatus.FAILED,
}


def addresses(payload: Any) -> list[str]:
    """The phone number ids that the payload names, each once, in order. Raises InboundError (`malformed`)."""
    found: dict[str, None] = {}
    for entry in _entries(payload):
        for change in items(entry, "changes"):
            if account := _account(change):
                found[account] = None
    return list(found)


def events(payload: Any) -> list[Event]:
    """Everything the payload tells, in order. Raises InboundError (`malformed`)."""
    found: list[Event] = []
    for entry in _entries(payload):
        changes = items(entry, "changes")
        if not changes:
            found.append(Unhandled("", "entry", "malformed", raw={"object": _OBJECT, "entry": [entry]}))
        for change in changes:
            found.extend(_Change(entry, change).events())
    return found


def of_account(payload: Any, address: str) -> dict[str, Any]:
    """The payload narrowed to the changes of one phone number id. Raises InboundError (`malformed`)."""
    found = []
    for entry in _entries(payload):
        changes = [change for change in items(entry, "changes") if _account(change) == address]
        if changes:
            found.append({**entry, "changes": changes})
    return {"object": _OBJECT, "entry": found}


def _entries(payload: Any) -> list[Any]:
    entries = payload.get("entry") if type(payload) is dict else None
    if type(entries) is not list or payload.get("object", _OBJECT) != _OBJECT:
        raise InboundError("The body is no WhatsApp webhook.", code="malformed")
    return entries


def _account(change: Any) -> str:
    return identifier(record(record(change, "value"), "metadata"), "phone_number_id")


class _Change:
    """One change of an entry: what happened at one number."""

    __slots__ = ("account", "change", "entry", "people", "value")

    def __init__(self, entry: Any, change: Any) -> None:
        self.entry = entry
        self.change = change
        self.value = record(change, "value")
        self.account = _account(change)
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
                found.extend(
                    read(item) if type(item) is dict and self.account else self.unhandled(key, "malformed", key, item)
                    for item in batch
                )
            elif batch is not None:
                found.append(self.unhandled(key, "malformed", key, batch))
        found.extend(self.unhandled("errors", "not_a_turn", "errors", error) for error in items(self.value, "errors"))
        return found or [self.unhandled("messages", "malformed")]

    def other_field(self, field: str) -> list[Event]:
        """The app's other subscriptions: templates, account updates, history, and what the business wrote itself."""
        key = _ECHOES.get(field, "")
        echoes = items(self.value, key)
        if not echoes:
            return [self.unhandled(field, "not_a_turn")]
        return [self.unhandled(text(echo, "type"), "echo", key, echo, identifier(echo, "id")) for echo in echoes]

    def message(self, item: dict[str, Any]) -> Event:
        kind = text(item, "type")[:_MAX_KIND]
        message_id = identifier(item, "id")
        if kind in _NOT_TURNS or item.get("group_id"):
            unhandled = self.unhandled(kind, "not_a_turn", "messages", item, message_id)
            return replace(unhandled, moved=_moved(item)) if kind == "system" else unhandled
        sender = self.sender(item)
        if not message_id or sender is None:
            return self.unhandled(kind, "malformed", "messages", item, message_id)
        words = whatsapp_contents.read(kind, item)
        if words is None or not words.strip():
            return self.unhandled(kind, "unknown_type" if words is None else "not_a_turn", "messages", item, message_id)
        return InboundMessage(
            account=self.account,
            message_id=message_id,
            sender=sender,
            text=words,
            occurred_at=moment(item.get("timestamp")),
            kind=kind or "text",
            metadata=whatsapp_contents.metadata(kind, item),
        )

    def status(self, item: dict[str, Any]) -> Event:
        provider_message_id = identifier(item, "id")
        word = text(item, "status")
        status = _STATUSES.get(word)
        if status is None or not provider_message_id:
            reason = "unknown_type" if word and provider_message_id else "malformed"
            return self.unhandled("status", reason, "statuses", item, provider_message_id)
        code, why = _failure(item)
        return Receipt(
            account=self.account,
            provider_message_id=provider_message_id,
            status=status,
            occurred_at=moment(item.get("timestamp")),
            our_message_id=identifier(item, "biz_opaque_callback_data") or None,
            code=code,
            reason=why,
            account_broken=status is ReceiptStatus.FAILED and whatsapp_outbound.ERRORS.breaks_account(code),
        )

    def sender(self, item: dict[str, Any]) -> Sender | None:
        """Who wrote, or None if the item does not say.

        A person has a phone number, a business-scoped user id, or both; `from` holds either. The reply goes to what
        `from` holds, else to the user id. The username is not kept: people change it.
        """
        person = self.person(item)
        known = dict.fromkeys(
            address
            for address in (
                identifier(item, "from"),
                identifier(item, "from_user_id"),
                identifier(item, "from_parent_user_id"),
                identifier(person, "wa_id"),
                identifier(person, "user_id"),
                identifier(person, "parent_user_id"),
            )
            if address
        )
        kinds = [(kind, address) for address in known if (kind := _address_kind(address))]
        if not kinds:
            return None
        digits = next((address for kind, address in kinds if kind is AddressKind.PHONE), "")
        return Sender(
            address=kinds[0][1],
            kind=kinds[0][0],
            phone=from_whatsapp(digits) if digits else None,
            name=person_name(text(record(person, "profile"), "name")),
            aliases=tuple(kinds[1:]),
        )

    def person(self, item: dict[str, Any]) -> dict[str, Any]:
        """The contact that the message's sender matches; contacts may be missing, several, and in any order."""
        if self.people is None:
            self.people = {}
            for contact in items(self.value, "contacts"):
                for key in ("wa_id", "user_id"):
                    if name := text(contact, key):
                        self.people[name] = contact
        return self.people.get(text(item, "from")) or self.people.get(text(item, "from_user_id")) or {}

    def unhandled(self, kind: str, reason: str, key: str = "", item: Any = None, message_id: str = "") -> Unhandled:
        """The event, with the payload narrowed to the item and its person (to the whole change without a `key`)."""
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
        raw = {"object": _OBJECT, "entry": [entry]}
        return Unhandled(self.account, kind[:_MAX_KIND] or "unknown", reason, raw, message_id)


def _moved(item: dict[str, Any]) -> tuple[Moved, ...]:
    """What a system message says of the person's addresses: the number, and the user ids that change with it."""
    said = record(item, "system")
    pairs = [(identifier(said, f"previous_{name}"), identifier(said, name)) for name in ("user_id", "parent_user_id")]
    if "number" in text(said, "type"):
        pairs.insert(0, (identifier(item, "from"), identifier(said, "wa_id") or identifier(said, "new_wa_id")))
    return tuple(
        Moved(kind, before, after)
        for before, after in pairs
        if before != after and (kind := _address_kind(before)) and kind == _address_kind(after)
    )


def _address_kind(address: str) -> AddressKind | None:
    if address.isascii() and address.isdigit() and len(address) <= 20:
        return AddressKind.PHONE
    return AddressKind.BSUID if _BSUID.fullmatch(address) else None


def _failure(item: dict[str, Any]) -> tuple[str, str]:
    """Code and reason of a failed status, '' for any other."""
    errors = items(item, "errors")
    if not errors:
        return "", ""
    error = errors[0]
    code = value_of(error, "code")
    why = text(record(error, "error_data"), "details") or text(error, "message") or text(error, "title")
    if whatsapp_outbound.ERRORS.breaks_account(code):
        why = whatsapp_outbound.account_refused(int(str(code)[:10]))
    return str(code)[:_MAX_KIND] if type(code) in (int, str) else "", why[:_MAX_REASON]
