"""WhatsApp through Meta's Cloud API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import quote

from channels_out import http
from channels_out.adapters import meta, whatsapp_inbound, whatsapp_outbound
from channels_out.contract import (
    Account,
    Adapter,
    Answer,
    BeingAnswered,
    InboundRequest,
    OutboundMessage,
    SendResult,
)
from channels_out.events import Event
from channels_out.kinds import Channel


class WhatsAppAdapter(Adapter):
    """An account's address is its `phone_number_id`, its base URL the Graph API's with the version in it.

    `app_secret` belongs to the Meta app, not to the number: it may hold several, separated by commas or whitespace.
    """

    provider = "whatsapp"
    title = "WhatsApp Cloud (Meta)"
    address_name = "phone number id"
    channel = Channel.WHATSAPP
    text_limit = whatsapp_outbound.TEXT_LIMIT
    limit_unit = whatsapp_outbound.LIMIT_UNIT
    credentials: ClassVar[tuple[str, ...]] = ("access_token", "app_secret", "verify_token")
    signed_in: ClassVar[tuple[str, ...]] = (meta.SIGNATURE_HEADER,)
    reply_window = whatsapp_outbound.REPLY_WINDOW
    sends_templates = True
    marks_read = True

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> Answer | None:
        """The answer to Meta's subscription check."""
        return meta.handshake(request, accounts)

    def addresses(self, request: InboundRequest) -> list[str]:
        """The phone number ids of all changes."""
        return whatsapp_inbound.addresses(request.json())

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if the account's Meta app signed the body."""
        meta.verify(request, account)

    def parse(self, request: InboundRequest) -> list[Event]:
        """Every message and status of every change."""
        return whatsapp_inbound.events(request.json())

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """The payload, or the changes of one phone number id."""
        return whatsapp_inbound.of_account(request.json(), address) if address else super().keep(request)

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text, or one template. Meta takes no idempotency key, but gives our message id back with every
        status."""
        return whatsapp_outbound.result(self._post(account, whatsapp_outbound.body(message)))

    def mark_read(self, account: Account, answered: BeingAnswered, *, typing: bool) -> None:
        """Mark the message read and show a typing indicator."""
        answer = self._post(account, whatsapp_outbound.read_mark(answered, typing=typing))
        if refusal := whatsapp_outbound.ERRORS.refusal(answer):
            raise refusal

    def check(self, account: Account) -> str:
        """Read the phone number's own record. Source: Meta, WhatsApp Business Management API, "Phone numbers"."""
        answer = http.get(
            f"{_number_url(account)}?fields=verified_name,display_phone_number",
            headers=self._authorization(account),
            timeout=account.timeout,
        )
        return whatsapp_outbound.account_name(answer)

    def _post(self, account: Account, content: dict[str, Any]) -> http.HttpAnswer:
        headers = self._authorization(account)
        return http.post_json(self._messages_url(account), content, headers=headers, timeout=account.timeout)

    def _messages_url(self, account: Account) -> str:
        return f"{_number_url(account)}/messages"

    def _authorization(self, account: Account) -> dict[str, str]:
        return meta.authorization(account)


def _number_url(account: Account) -> str:
    return f"{account.base_url}/{quote(account.address, safe='')}"
