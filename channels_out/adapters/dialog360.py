"""WhatsApp through 360dialog: Meta's payloads both ways, with a key of 360dialog's and a secret header of our own.

360dialog signs nothing that we could verify: it sends the headers that we registered with the webhook's address. The
secret in such a header is the only proof of the sender. Source: 360dialog, "Webhook URL", "Messaging API".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from channels_out import http
from channels_out.adapters import meta_account_checks as checks
from channels_out.adapters.whatsapp import MOST_PAGES, PAGE, WhatsAppAdapter
from channels_out.contract import Account, Finding, InboundRequest, MediaLink, WebhookResponse
from channels_out.errors import InboundError, SendError
from channels_out.shapes import identifier, items, record, text
from channels_out.templates import CatalogueTemplate, read_listed

SECRET_HEADER = "x-convo-secret"  # noqa: S105 - its name; never Authorization, where an API key of ours may travel


class Dialog360Adapter(WhatsAppAdapter):
    """An account's address is the number's `phone_number_id`, as in the payloads; its key belongs to the number.

    `webhook_secret` is of our own choice.
    """

    provider = "dialog360"
    title = "WhatsApp through 360dialog"
    credentials = ("api_key", "webhook_secret")
    signed_with = "webhook_secret"
    signature_headers = (SECRET_HEADER,)  # whatever signatures 360dialog passes on beside it

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> WebhookResponse | None:
        """Return None: 360dialog asks nothing beforehand."""
        return None

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if the header contains one of the account's secrets. The body is as safe as the connection."""
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogatepass")
        for secret in account.secrets("webhook_secret"):
            if hmac.compare_digest(secret.encode(), given):
                return
        raise InboundError("The secret does not match.", code="invalid_signature")

    def check(self, account: Account) -> str:
        """Return the number and its health. Source: 360dialog, "Messaging Health Status"."""
        headers = self._authorization(account)
        answer = http.get(f"{account.base_url}/health_status", headers=headers, timeout=account.timeout)
        if error := self.errors.error_of(answer, otherwise="360dialog did not answer the question."):
            raise error
        health = record(answer.json(), "health_status")
        status = text(health, "can_send_message")
        if not status:
            raise SendError("360dialog's answer contains no health.", code="bad_answer")
        numbers = [each for each in items(health, "entities") if text(each, "entity_type") == "PHONE_NUMBER"]
        known = [number for each in numbers if (number := identifier(each, "id"))]
        if known and account.address not in known:
            sentence = "The API key belongs to another number than the account's phone number id."
            raise SendError(sentence, code="other_number", account_broken=True)
        return f"phone number {account.address}, {status.lower()}"

    def inspect(self, account: Account, business: str, webhook_url: str) -> list[Finding]:
        """Return whether 360dialog delivers to us. Source: 360dialog, "Webhook URL"."""
        set_to = text(self._read(account, f"{account.base_url}/v1/configs/webhook"), "url")
        return [checks.webhook_finding(set_to, webhook_url, "360dialog", "in the Hub, under Channel Webhook")]

    def templates(self, account: Account, business: str) -> list[CatalogueTemplate]:
        """Return the number's templates, which its key alone names. Source: 360dialog, "Template Messages"."""
        found: list[CatalogueTemplate] = []
        for page in range(MOST_PAGES):
            route = f"{account.base_url}/v1/configs/templates?limit={PAGE}&offset={page * PAGE}"
            listed = items(self._read(account, route), "waba_templates")
            found += filter(None, map(read_listed, listed))
            if len(listed) < PAGE:
                break
        return found

    def media_link(self, account: Account, source: str) -> MediaLink:
        """Return the link at 360dialog's host in place of Meta's, which takes no key of 360dialog's.

        Source: 360dialog, "Download media".
        """
        link = super().media_link(account, source)
        parts = urlsplit(link.url)
        return replace(link, url=f"{account.base_url}{parts.path}" + (f"?{parts.query}" if parts.query else ""))

    def _media_url(self, account: Account) -> str:
        return f"{account.base_url}/media"

    def _messages_url(self, account: Account) -> str:
        return f"{account.base_url}/messages"

    def _authorization(self, account: Account) -> dict[str, str]:
        key = account.credentials.get("api_key", "")
        if not key:
            raise SendError("The account has no API key.", code="no_credentials", account_broken=True)
        return {"D360-API-KEY": key}
