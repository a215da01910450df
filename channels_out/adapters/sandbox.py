"""The sandbox: takes every message and calls it delivered, so that Convo can be tried without a provider."""

from __future__ import annotations

from channels_out.contract import Account, Adapter, OutboundMessage, SendResult
from channels_out.kinds import Channel, ReceiptStatus


class SandboxAdapter(Adapter):
    """Stands in for a provider of any channel. Calls no network and takes no webhooks."""

    provider = "sandbox"
    title = "Sandbox"
    text_limit = 4096
    sends_idempotently = True

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Deliver at once. The same message gets the same provider id, however often it is sent."""
        return SendResult(f"sandbox.{message.message_id}", ReceiptStatus.DELIVERED)

    def check(self, account: Account) -> str:
        """There is nobody to ask."""
        return "Sandbox"
