"""WhatsApp through Meta's Cloud API: how a payload is walked through, and how a message is composed.

A payload nests: entries (WhatsApp Business accounts, each shared by several numbers), changes (each of one number),
then messages and statuses. The same message may be in it twice. 360dialog passes the same payloads on. The types of
messages, the statuses and the error codes are in `whatsapp_mapping`.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages", "System messages", "Business-scoped user IDs", "Send messages".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from channels_out.adapters import meta_account_checks as checks
from channels_out.adapters import whatsapp_mapping as mapping
from channels_out.adapters import whatsapp_media
from channels_out.adapters.meta import MAX_KIND, MetaAdapter, unhandled
from channels_out.adapters.whatsapp_account_events import read_account_event
from channels_out.choices import LABEL, ChoiceForm, Choices, form_of
from channels_out.contract import Account, Finding, InboundReference, InboundRequest, MediaLink, OutboundMessage
from channels_out.errors import SendError
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
from channels_out.formatting import Formatting
from channels_out.kinds import ActivityKind, AddressKind, Channel, ReceiptStatus
from channels_out.phones import from_whatsapp, is_business_scoped
from channels_out.shapes import identifier, items, moment, person_name, record, text, value_of
from channels_out.templates import CatalogueTemplate, read_listed

_OBJECT = "whatsapp_business_account"
_MAX_REASON = 500
_NUMBER_FIELDS = "status,quality_rating,name_status,webhook_configuration"
_TEMPLATE_FIELDS = "name,language,status,category,quality_score,rejected_reason,components"
PAGE, MOST_PAGES = 100, 20  # templates in an answer, and answers
_APP = "WhatsApp Business app"

_PREFERENCES = "user_preferences"  # the field, and the key in its value
_ECHOES = {"smb_message_echoes": "message_echoes"}  # messages that the business wrote in its own WhatsApp app


class WhatsAppAdapter(MetaAdapter):
    """An account's address is its `phone_number_id`, its base URL the Graph API's with the version in it."""

    provider = "whatsapp"
    title = "WhatsApp Cloud (Meta)"
    address_name = "phone number id"
    channel = Channel.WHATSAPP
    text_limit = 4096
    choice_forms = (ChoiceForm("button", 3, title=20, text=1024), ChoiceForm("list", 10, 24, 72, text=1024))
    formatting = Formatting.WHATSAPP
    sends_templates = True
    marketing_refusals = frozenset({"131050"})
    lists_templates = True
    hears_colleagues = True
    webhook_object = _OBJECT
    errors = mapping.ERRORS
    record_fields = "verified_name,display_phone_number"
    account_key = "phone_number_id"
    file_rules = whatsapp_media.RULES

    def entry_accounts(self, entry: Any) -> list[str]:
        """Return the phone number ids of the entry's changes."""
        return [account for change in items(entry, "changes") if (account := _account(change))]

    def entry_events(self, entry: Any) -> list[Event]:
        """Return every message and status of every change."""
        changes = items(entry, "changes")
        if not changes:
            return [unhandled("", "entry", "malformed", webhook_object=_OBJECT, entry=entry)]
        return [event for change in changes for event in _Change(entry, change).events()]

    def businesses(self, request: InboundRequest) -> dict[str, str]:
        """Return the WhatsApp Business account, which is the entry's id, of each phone number id."""
        return {
            address: business
            for entry in self._entries(request)
            if (business := identifier(entry, "id")) and len(business) <= MAX_KIND
            for address in self.entry_accounts(entry)
        }

    def narrowed_entry(self, entry: Any, address: str) -> dict[str, Any] | None:
        """Return the entry with the changes of one phone number id."""
        changes = [change for change in items(entry, "changes") if _account(change) == address]
        return {**entry, "changes": changes} if changes else None

    def compose(self, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one text, of one with choices below it, or of one template."""
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
                "template": {
                    "name": template.name,
                    "language": {"code": template.language},
                    **({"components": list(template.components)} if template.components else {}),
                },
            }
        elif message.choices:
            content |= {"type": "interactive", "interactive": self._interactive(message.text, message.choices)}
        else:
            content |= {"type": "text", "text": {"body": message.text, "preview_url": False}}
        if message.reply_to:
            content["context"] = {"message_id": message.reply_to}
        return content

    def _interactive(self, words: str, choices: Choices) -> dict[str, Any]:
        """Return the text with buttons, or with a button that opens a list."""
        form = form_of(choices, self.choice_forms)
        if form and form.name == "button":
            buttons = [{"type": "reply", "reply": {"id": each.id, "title": each.title}} for each in choices.options]
            return {"type": "button", "body": {"text": words}, "action": {"buttons": buttons}}
        section = {"rows": [each.as_json() for each in choices.options]}
        action = {"button": choices.label or LABEL, "sections": [section]}
        return {"type": "list", "body": {"text": words}, "action": action}

    def accepted_id(self, content: Any) -> str:
        """Return the wamid of the first message."""
        messages = items(content, "messages")
        return identifier(messages[0], "id") if messages else ""

    def recipient_addresses(self, content: Any) -> list[tuple[AddressKind, str]]:
        """Return the WhatsApp id, which may be written otherwise than the number, and the business-scoped user id."""
        found = [identifier(person, key) for person in items(content, "contacts")[:1] for key in ("wa_id", "user_id")]
        return [(kind, address) for address in found if (kind := _address_kind(address))]

    def templates(self, account: Account, business: str) -> list[CatalogueTemplate]:
        """Return the templates of the WhatsApp Business account, page by page. The token is never in an address."""
        if not business:
            sentence = (
                "The WhatsApp Business account is not known: write its id on the account's page, or wait for the first"
                " message, which names it."
            )
            raise SendError(sentence, code="no_business")
        route = f"{account.base_url}/{quote(business, safe='')}/message_templates"
        found: list[CatalogueTemplate] = []
        after = ""
        for _ in range(MOST_PAGES):
            query = {"fields": _TEMPLATE_FIELDS, "limit": str(PAGE), **({"after": after} if after else {})}
            answer = self._read(account, f"{route}?{urlencode(query)}")
            found += filter(None, map(read_listed, items(answer, "data")))
            paging = record(answer, "paging")
            after = identifier(record(paging, "cursors"), "after") if text(paging, "next") else ""
            if not after:
                break
        return found

    def inspect(self, account: Account, business: str, webhook_url: str) -> list[Finding]:
        """Return the number's state, whether the app hears its business account, and the webhook's address."""
        number = self._read(account, f"{self._account_url(account)}?fields={_NUMBER_FIELDS}")
        found = [*checks.number_findings(number), *checks.webhook_findings(number, webhook_url)]
        if not business:
            return [*found, checks.NO_BUSINESS]
        route = f"{account.base_url}/{quote(business, safe='')}/subscribed_apps"
        return [*found, *checks.subscription_findings(self._read(account, route), webhook_url)]

    def account_name(self, content: Any) -> str:
        """Return the verified name and the phone number."""
        return " ".join(filter(None, (identifier(content, key) for key in self.record_fields.split(","))))

    def mark_read(self, account: Account, answered: InboundReference, *, typing: bool) -> None:
        """Mark the message read. If `typing`, the person sees for 25 seconds that a reply is being written."""
        content = {"messaging_product": "whatsapp", "status": "read", "message_id": answered.message_id}
        self._post(account, content | ({"typing_indicator": {"type": "text"}} if typing else {}))

    def content_of(self, account: Account, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one message. A file is uploaded first."""
        content = self.compose(message)
        if message.file:
            media_id = whatsapp_media.upload(
                self._media_url(account), message.file, self._authorization(account), account, self.errors
            )
            content.pop("text", None)
            content |= whatsapp_media.compose_file(message.file, media_id)
        return content

    def _media_url(self, account: Account) -> str:
        return f"{self._account_url(account)}/media"

    def media_link(self, account: Account, source: str) -> MediaLink:
        """Return the link that Meta gives for the file's id."""
        return whatsapp_media.link_of(account, source, self._authorization(account), self.errors)


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
            if (address := identifier(item, name)) and (each := _address_kind(address))
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
        if "time" in self.entry:
            entry["time"] = self.entry["time"]
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
