"""The shop's accounts at the fakes of Meta and 360dialog, and their webhooks posted as they post them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client as HttpClient

from channels_out.simulators.meta import SignedWebhook
from conversations.models import ChannelAccount, Client
from conversations.services.tenants import setup
from tests.fakes.dialog360 import FakeDialog360
from tests.fakes.messenger import FakeMessenger
from tests.fakes.meta import FakeMeta

CHANNELS = {FakeMeta: "whatsapp", FakeDialog360: "whatsapp", FakeMessenger: "messenger"}


def account_at(provider: Any, client: Client, **changes: str) -> ChannelAccount:
    """The client's account at the provider."""
    if isinstance(provider, FakeDialog360):
        name, address = "dialog360", provider.phone_number_id
        credentials = {"api_key": provider.api_key, "webhook_secret": provider.webhook_secret}
    else:
        messenger = isinstance(provider, FakeMessenger)
        name, address = ("messenger", provider.page) if messenger else ("whatsapp", provider.phone_number_id)
        credentials = {key: getattr(provider, key) for key in ("access_token", "app_secret", "verify_token")}
    return setup.create_channel_account(
        client,
        channel=CHANNELS[type(provider)],
        provider=name,
        address=address,
        credentials=credentials | changes,
        base_url=provider.base_url,
    )


@pytest.fixture
def account(meta: FakeMeta, shop: Client) -> ChannelAccount:
    """The shop's account at Meta's fake, in place of its sandboxes."""
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel__in=["whatsapp", "messenger"]).delete()
    return account_at(meta, shop)


@pytest.fixture
def page(shop: Client) -> Iterator[FakeMessenger]:
    """A Facebook page of the shop's."""
    with FakeMessenger() as fake:
        account_at(fake, shop)
        yield fake


def post(webhook: SignedWebhook, channel: str) -> tuple[int, Any]:
    """What the webhook's door answers: the status, and the data or the whole failure."""
    answer = HttpClient(raise_request_exception=False).post(
        f"/webhooks/{channel}/inbound",
        data=webhook.body,
        content_type="application/json",
        headers=dict(webhook.headers),
    )
    envelope = json.loads(answer.content)
    return answer.status_code, envelope.get("data", envelope)


def post_whatsapp(webhook: SignedWebhook, path: str = "/webhooks/whatsapp/inbound") -> tuple[int, Any]:
    """Post a webhook of Meta's for WhatsApp. Returns the status and the whole envelope."""
    answer = HttpClient(raise_request_exception=False).post(
        path, data=webhook.body, content_type="application/json", headers=dict(webhook.headers)
    )
    return answer.status_code, json.loads(answer.content)
