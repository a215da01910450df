"""WhatsApp through Meta's Cloud API."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from channels_out import http
from channels_out.adapters import meta, whatsapp_inbound, whatsapp_outbound
from channels_out.contract import Account, Adapter, Answer, InboundRequest, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.events import Event
from channels_out.kinds import Channel


class WhatsAppAdapter(Adapter):
    """An account's address is its `phone_number_id`, its base URL the Graph API's with the version in it.

    `app_secret` belongs to the Meta app, not to the number: it may hold several, separated by commas or whitespace.
    """

    provider = "whatsapp"
    channel = Channel.WHATSAPP
    text_limit = whatsapp_outbound.TEXT_LIMIT
    limit_unit = whatsapp_outbound.LIMIT_UNIT
    credentials = ("access_token", "app_secret", "verify_token")

    def recognises(self, request: InboundRequest) -> bool:
        """Whether it carries Meta's signature header."""
        return meta.SIGNATURE_HEADER in request.headers

    def handshake(self, request: InboundRequest, accounts: Sequence[Account]) -> Answer | None:
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

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text. Meta takes no idempotency key, but gives our message id back with every status."""
        answer = http.post_json(
            f"{_url(account)}/messages",
            whatsapp_outbound.body(message),
            headers=_authorization(account),
            timeout=account.timeout,
        )
        return whatsapp_outbound.result(answer)

    def check(self, account: Account) -> str:
        """Read the phone number's own record. Source: Meta, WhatsApp Business Management API, "Phone numbers"."""
        answer = http.get(
            f"{_url(account)}?fields=verified_name,display_phone_number",
            headers=_authorization(account),
            timeout=account.timeout,
        )
        return whatsapp_outbound.account_name(answer)


def _url(account: Account) -> str:
    return f"{account.base_url}/{quote(account.address, safe='')}"


def _authorization(account: Account) -> dict[str, str]:
    token = account.credentials.get("access_token", "")
    if not token:
        raise SendError("The account has no access token.", code="no_credentials", account_broken=True)
    return {"Authorization": f"Bearer {token}"}
