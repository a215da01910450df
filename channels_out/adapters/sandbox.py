"""The sandbox: accepts every message as delivered, so that Convo can be tried without a provider."""

from __future__ import annotations

from channels_out.contract import Account, Adapter, FileRule, OutboundMessage, SendResult
from channels_out.formatting import Formatting
from channels_out.kinds import Channel, MediaKind, ReceiptStatus

_FORMATTINGS = {Channel.WHATSAPP: Formatting.WHATSAPP, Channel.VOICE: Formatting.SPEECH}


class SandboxAdapter(Adapter):
    """A provider of any channel that calls no network and takes no webhooks."""

    provider = "sandbox"
    title = "Sandbox"
    text_limit = 4096
    sends_idempotently = True
    file_rules = (FileRule(MediaKind.DOCUMENT, 1_000_000_000),)

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.formatting = _FORMATTINGS.get(channel, Formatting.PLAIN)

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Return the message as delivered. It gets the same provider id each time that it is sent."""
        return SendResult(f"sandbox.{message.message_id}", ReceiptStatus.DELIVERED)

    def check(self, account: Account) -> str:
        """Return "Sandbox": there is no provider to ask."""
        return "Sandbox"
