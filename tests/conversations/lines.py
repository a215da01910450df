"""The shop's account at a provider of WhatsApp or Messenger, what it posts, and what makes that count no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channels_out.simulators.meta import SignedWebhook
from conversations.models import ChannelAccount, Chunk, Client, Conversation
from tests.conversations.conftest import close
from tests.conversations.meta_doors import CHANNELS, account_at
from tests.routes import Answer, WebServer

ANA, BEA = "51999999999", "51977777777"


@dataclass
class Line:
    """The shop's account at a provider, and what the provider posts."""

    provider: Any
    account: ChannelAccount
    server: WebServer

    @property
    def channel(self) -> str:
        return CHANNELS[type(self.provider)]

    @property
    def address(self) -> str:
        return self.account.address

    def posts(self, webhook: SignedWebhook) -> Answer:
        return self.server.call(
            "POST", f"/webhooks/{self.channel}/inbound", webhook.body, headers=dict(webhook.headers)
        )

    def hears(self, words: str = "Hello again", *, sender: str = ANA) -> Answer:
        return self.posts(self.provider.text_webhook(words, sender=sender))

    def takes(self, words: str = "Hello again", *, sender: str = ANA) -> Chunk:
        """The chunk of a message that is taken."""
        answer = self.hears(words, sender=sender)
        assert (answer.status, answer.json["data"]) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
        return Chunk.objects.filter(role="user").latest("id")

    def rotate(self, secret: str) -> None:
        """The account's secret is another one from now on; the provider does not know yet."""
        credentials = {**self.account.credentials, "app_secret": secret}
        ChannelAccount.objects.filter(pk=self.account.pk).update(credentials=credentials)


def open_line(provider: Any, shop: Client, server: WebServer) -> Line:
    """A line whose account this process knows. Ana is in a conversation, and Bea was in one."""
    channel = CHANNELS[type(provider)]
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel=channel).delete()
    line = Line(provider, account_at(provider, shop), server)
    for sender in (ANA, BEA):
        line.takes("Hello", sender=sender)
    close(Conversation.objects.get(device__address=BEA).pk)
    return line


def rotated(line: Line) -> None:
    line.rotate("another-secret")


def forged(line: Line) -> None:
    line.provider.app_secret = "a-stranger-s"


def account_off(line: Line) -> None:
    assert ChannelAccount.objects.filter(pk=line.account.pk).update(is_active=False) == 1


def client_off(line: Line) -> None:
    assert Client.objects.filter(pk=line.account.client_id).update(is_active=False) == 1


def account_moved(line: Line) -> None:
    """The number was given back and is another one's at the provider now."""
    ChannelAccount.objects.filter(pk=line.account.pk).update(address="another")


CHANGES = [rotated, forged, account_off, client_off]
