"""WhatsApp through Meta's Cloud API: how a payload is walked through, and how a message is composed.

A payload nests: entries (WhatsApp Business accounts, each shared by several numbers), changes (each of one number),
then messages and statuses. The same message may be in it twice. 360dialog passes the same payloads on. The types of
messages, the statuses and the error codes are in `whatsapp_mapping`.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages", "System messages", "Business-scoped user IDs", "Send messages".
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from channels_out.adapters import whatsapp_mapping as mapping
from channels_out.adapters.meta import MAX_KIND, MetaAdapter, unhandled
from channels_out.contract import Account, InboundReference, OutboundMessage
from channels_out.events import AddressChange, Event, InboundMessage, Receipt, Sender, Unhandled
from channels_out.kinds import AddressKind, Channel, ReceiptStatus
from channels_out.phones import from_whatsapp
from channels_out.shapes import identifier, items, moment, person_name, record, text, value_of

_OBJECT = "whatsapp_business_account"
_BSUID = re.compile(r"[A-Z]{2}(\.ENT)?\.[A-Za-z0-9]{1,128}")
_MAX_REASON = 500

_ECHOES = {"smb_message_echoes": "message_echoes"}  # messages that the business wrote in its own WhatsApp app


class WhatsAppAdapter(MetaAdapter):
    """An account's address is its `phone_number_id`, its base URL the Graph API's with the version in it."""

    provider = "whatsapp"
    title = "WhatsApp Cloud (Meta)"
    address_name = "phone number id"
    channel = Channel.WHATSAPP
    text_limit = 4096
    sends_templates = True
    webhook_object = _OBJECT
    errors = mapping.ERRORS
    record_fields = "verified_name,display_phone_number"
    account_key = "phone_number_id"

    def entry_accounts(self, entry: Any) -> list[str]:
        """Return the phone number ids of the entry's changes."""
        return [account for change in items(entry, "changes") if (account := _account(change))]

    def entry_events(self, entry: Any) -> list[Event]:
        """Return every message and status of every change."""
        changes = items(entry, "changes")
        if not changes:
            return [unhandled("", "entry", "malformed", webhook_object=_OBJECT, entry=entry)]
        return [event for change in changes for event in _Change(entry, change).events()]

    def narrowed_entry(self, entry: Any, address: str) -> dict[str, Any] | None:
        """Return the entry with the changes of one phone number id."""
        changes = [change for change in items(entry, "changes") if _account(change) == address]
        return {**entry, "changes": changes} if changes else None

    def compose(self, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one text, or of one template without variables."""
        to = "recipient" if message.to_kind == AddressKind.BSUID else "to"
        content: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            to: message.to,
            # Every status contains it, and so settles a send that got no answer.
            "biz_opaque_callback_data": message.message_id,
        }
        if template := message.template:
            content |= {
                "type": "template",
                "template": {"name": template.name, "language": {"code": template.language}},
            }
        else:
            content |= {"type": "text", "text": {"body": message.text, "preview_url": False}}
        if message.reply_to:
            content["context"] = {"message_id": message.reply_to}
        return content

    def accepted_id(self, content: Any) -> str:
        """Return the wamid of the first message."""
        messages = items(content, "messages")
        return identifier(messages[0], "id") if messages else ""

    def account_name(self, content: Any) -> str:
        """Return the verified name and the phone number."""
        return " ".join(filter(None, (identifier(content, key) for key in self.record_fields.split(","))))

    def mark_read(self, account: Account, answered: InboundReference, *, typing: bool) -> None:
        """Mark the message read. If `typing`, the person sees for 25 seconds that a reply is being written."""
        content = {"messaging_product": "whatsapp", "status": "read", "message_id": answered.message_id}
        self._post(account, content | ({"typing_indicator": {"type": "text"}} if typing else {}))


def _account(change: Any) -> str:
    return identifier(record(record(change, "value"), "metadata"), "phone_number_id")


class _Change:
    """One change of an entry: the messages and statuses of one number."""

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
        """Return the events of the app's other subscriptions: templates, account updates, history, and echoes."""
        key = _ECHOES.get(field, "")
        echoes = items(self.value, key)
        if not echoes:
            return [self.unhandled(field, "not_a_turn")]
        return [self.unhandled(text(echo, "type"), "echo", key, echo, identifier(echo, "id")) for echo in echoes]

    def message(self, item: dict[str, Any]) -> Event:
        kind = text(item, "type")[:MAX_KIND]
        message_id = identifier(item, "id")
        if kind in mapping.NOT_TURNS or item.get("group_id"):
            event = self.unhandled(kind, "not_a_turn", "messages", item, message_id)
            return replace(event, moved=_moved(item)) if kind == "system" else event
        sender = self.sender(item)
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
        )

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
        )

    def sender(self, item: dict[str, Any]) -> Sender | None:
        """Return the sender, or None if the item names none.

        A person has a phone number, a business-scoped user id, or both; `from` holds either. The reply goes to the
        address in `from`, else to the user id. The username is not kept: people change it.
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
        return unhandled(self.account, kind, reason, webhook_object=_OBJECT, entry=entry, message_id=message_id)


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
        if before != after and (kind := _address_kind(before)) and kind == _address_kind(after)
    )


def _address_kind(address: str) -> AddressKind | None:
    if address.isascii() and address.isdigit() and len(address) <= 20:
        return AddressKind.PHONE
    return AddressKind.BSUID if _BSUID.fullmatch(address) else None


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
