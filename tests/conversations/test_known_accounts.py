"""A provider's webhook of an account that this process has met before: fast, and never by what counts no more."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.models import ChannelAccount, Chunk, Conversation, InboundEvent
from conversations.services.arriving import known_accounts
from conversations.services.clients import setup
from tests import factories
from tests.fakes.meta import FakeMeta
from tests.routes import Answer, WebServer

pytestmark = pytest.mark.django_db
INBOUND = "/webhooks/whatsapp/inbound"


@pytest.fixture
def meta():
    with FakeMeta() as fake:
        yield fake


@pytest.fixture
def account(meta, shop):
    return setup.create_channel_account(
        shop,
        channel="whatsapp",
        provider="whatsapp",
        address=meta.phone_number_id,
        credentials={"access_token": meta.access_token, "app_secret": meta.app_secret, "verify_token": "v"},
    )


@pytest.fixture
def server():
    return WebServer()


@pytest.fixture
def known(meta, account, server):
    """An account that was met, with an active session."""
    assert say(server, meta, "Hello").status == 200
    assert Chunk.objects.filter(role="user").count() == 1
    return account


def say(server: WebServer, meta: FakeMeta, text: str, **more: str) -> Answer:
    webhook = meta.text_webhook(text, sender="51999999999", **more)
    return server.call("POST", INBOUND, webhook.body, headers=dict(webhook.headers))


def heard() -> list[str]:
    return list(Chunk.objects.filter(role="user").order_by("position").values_list("content", flat=True))


def test_a_message_is_one_statement(meta, known, server):
    with CaptureQueriesContext(connection) as captured:
        answer = say(server, meta, "And another thing")
    assert (answer.status, answer.json["data"]) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    assert len(captured) == 1
    assert heard() == ["Hello", "And another thing"]


def test_the_same_message_again_is_one(meta, known, server):
    for _ in range(3):
        assert say(server, meta, "Once", message_id="wamid.once").json["data"]["messages"] == 1
    assert heard() == ["Hello", "Once"]


def test_a_secret_that_was_replaced_signs_nothing_from_then_on(meta, known, server):
    ChannelAccount.objects.update(credentials={"app_secret": "another-secret"})
    assert say(server, meta, "Forged?").status == 403
    assert heard() == ["Hello"]


def test_a_secret_that_was_set_signs_from_then_on(meta, known, server):
    ChannelAccount.objects.update(credentials={"app_secret": "another-secret"})
    assert say(server, meta, "Too early").status == 403
    meta.app_secret = "another-secret"
    assert say(server, meta, "Now").status == 200
    assert heard() == ["Hello", "Now"]


def test_an_account_that_was_switched_off_takes_nothing(meta, known, server):
    ChannelAccount.objects.update(is_active=False)
    say(server, meta, "Anybody there?")
    assert heard() == ["Hello"]


def test_a_client_that_was_switched_off_takes_nothing(meta, known, shop, server):
    shop.is_active = False
    shop.save()
    say(server, meta, "Anybody there?")
    assert heard() == ["Hello"]


def test_an_address_that_went_to_another_client_is_theirs(meta, known, server):
    other_shop = factories.ClientFactory()
    ChannelAccount.objects.update(client=other_shop)
    assert say(server, meta, "Hello there").status == 200
    assert Conversation.objects.get(client=other_shop).chunks.get(role="user").content == "Hello there"
    assert Conversation.objects.exclude(client=other_shop).get().chunks.filter(role="user").count() == 1


def test_two_changes_in_one_transaction_are_two_versions(meta, known, server):
    for secret in ("second", "third"):
        ChannelAccount.objects.update(credentials={"app_secret": secret})
        meta.app_secret = secret
        assert say(server, meta, secret).status == 200
    assert heard() == ["Hello", "second", "third"]


def test_a_bad_signature_is_refused_and_counted_once(meta, known, server):
    webhook = meta.text_webhook("Forged", sender="51999999999")
    headers = dict(webhook.headers) | {"X-Hub-Signature-256": "sha256=" + "0" * 64}
    answer = server.call("POST", INBOUND, webhook.body, headers=headers)
    assert (answer.status, answer.json["code"]) == (403, "invalid_signature")
    assert heard() == ["Hello"]
    assert not InboundEvent.objects.exists()


def test_only_so_many_are_known(meta, account, server, monkeypatch):
    monkeypatch.setattr(known_accounts, "MOST", 1)
    other = ChannelAccount(provider="whatsapp", channel="whatsapp", address="another")
    other.version = "0"
    known_accounts.remember([other])
    assert say(server, meta, "Hello").status == 200
    assert list(known_accounts._known) == [("whatsapp", "whatsapp", meta.phone_number_id)]
