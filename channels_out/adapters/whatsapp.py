"""WhatsApp through Meta's Cloud API: how a payload is walked through, and how a message is composed.

A payload nests: entries (WhatsApp Business accounts, each shared by several numbers), changes (each of one number),
then messages and statuses. The same message may be in it twice. 360dialog passes the same payloads on. A change is read
in `whatsapp_changes`; the types of messages, the statuses and the error codes are in `whatsapp_mapping`.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages", "Business-scoped user IDs", "Send messages".
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from channels_out.adapters import meta_account_checks as checks
from channels_out.adapters import whatsapp_mapping as mapping
from channels_out.adapters import whatsapp_media
from channels_out.adapters.meta import MAX_KIND, MetaAdapter, unhandled
from channels_out.adapters.whatsapp_changes import OBJECT, Change, account_of, address_kind
from channels_out.choices import LABEL, ChoiceForm, Choices, form_of
from channels_out.contract import Account, Finding, InboundReference, InboundRequest, MediaLink, OutboundMessage
from channels_out.errors import SendError
from channels_out.events import Event
from channels_out.formatting import Formatting
from channels_out.kinds import AddressKind, Channel
from channels_out.shapes import identifier, items, record, text
from channels_out.templates import CatalogueTemplate, read_listed

_NUMBER_FIELDS = "status,quality_rating,name_status,webhook_configuration"
_TEMPLATE_FIELDS = "name,language,status,category,quality_score,rejected_reason,components"
PAGE, MOST_PAGES = 100, 20  # templates in an answer, and answers


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
    webhook_object = OBJECT
    errors = mapping.ERRORS
    record_fields = "verified_name,display_phone_number"
    account_key = "phone_number_id"
    file_rules = whatsapp_media.RULES

    def entry_accounts(self, entry: Any) -> list[str]:
        """Return the phone number ids of the entry's changes."""
        return [account for change in items(entry, "changes") if (account := account_of(change))]

    def entry_events(self, entry: Any) -> list[Event]:
        """Return every message and status of every change."""
        changes = items(entry, "changes")
        if not changes:
            return [unhandled("", "entry", "malformed", webhook_object=OBJECT, entry=entry)]
        return [event for change in changes for event in Change(entry, change).events()]

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
        changes = [change for change in items(entry, "changes") if account_of(change) == address]
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
        return [(kind, address) for address in found if (kind := address_kind(address))]

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
