"""Messenger: a Facebook page's conversations, through Meta's Graph API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from channels_out import http
from channels_out.adapters import messenger_inbound, messenger_outbound, meta
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


class MessengerAdapter(Adapter):
    """An account's address is the id of its page, its base URL the Graph API's with the version in it.

    `app_secret` belongs to the Meta app, not to the page: it may hold several, separated by commas or whitespace.
    """

    provider = "messenger"
    title = "Messenger (Meta)"
    address_name = "page id"
    channel = Channel.MESSENGER
    text_limit = messenger_outbound.TEXT_LIMIT
    limit_unit = messenger_outbound.LIMIT_UNIT
    credentials = ("access_token", "app_secret", "verify_token")
    signed_in = (meta.SIGNATURE_HEADER,)
    reply_window = messenger_outbound.REPLY_WINDOW
    marks_read = True
    counts_by_time = True

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> Answer | None:
        """The answer to Meta's subscription check."""
        return meta.handshake(request, accounts)

    def addresses(self, request: InboundRequest) -> list[str]:
        """The pages of all entries."""
        return messenger_inbound.addresses(request.json())

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if the account's Meta app signed the body."""
        meta.verify(request, account)

    def parse(self, request: InboundRequest) -> list[Event]:
        """Everything that happened on every page."""
        return messenger_inbound.events(request.json())

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """The payload, or the entries of one page."""
        return messenger_inbound.of_account(request.json(), address) if address else super().keep(request)

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text. Meta takes no idempotency key, but gives our message id back in the echo."""
        return messenger_outbound.result(_post(account, messenger_outbound.body(message)))

    def mark_read(self, account: Account, answered: BeingAnswered, *, typing: bool) -> None:
        """Mark the person's messages seen and show a typing indicator, for 20 seconds at most."""
        for action in ("mark_seen", *(["typing_on"] if typing else [])):
            content = {"recipient": {"id": answered.sender}, "sender_action": action}
            if refusal := messenger_outbound.ERRORS.refusal(_post(account, content)):
                raise refusal

    def check(self, account: Account) -> str:
        """Read the page's own record. Source: Meta, Graph API, "Page"."""
        answer = http.get(
            f"{_page_url(account)}?fields=name",
            headers=meta.authorization(account),
            timeout=account.timeout,
        )
        return messenger_outbound.account_name(answer)


def _post(account: Account, content: dict[str, Any]) -> http.HttpAnswer:
    headers = meta.authorization(account)
    return http.post_json(f"{_page_url(account)}/messages", content, headers=headers, timeout=account.timeout)


def _page_url(account: Account) -> str:
    return f"{account.base_url}/{quote(account.address, safe='')}"
