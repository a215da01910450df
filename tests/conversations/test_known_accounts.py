"""A provider's webhook of an account that this process has met before: fast, and never by what counts no more."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from django.db import OperationalError, connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from channels_out.adapters.whatsapp import WhatsAppAdapter
from conversations.models import ChannelAccount, Chunk, Client, Conversation, InboundEvent, RefusedWebhooks
from conversations.services.inbound import messages
from conversations.services.tenants import account_cache, setup
from tests import factories
from tests.fakes.meta import FakeMeta
from tests.races.invariants import assert_sound
from tests.races.threads import together
from tests.routes import Answer, WebServer

pytestmark = pytest.mark.django_db
INBOUND = "/webhooks/whatsapp/inbound"


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
    assert RefusedWebhooks.objects.get(channel_account=known).count == 1
    assert RefusedWebhooks.objects.aggregate(total=Sum("count")) == {"total": 1}


def test_rules_of_redaction_that_were_changed_hold_from_the_next_message_on(meta, known, shop, server):
    card = "4111 1111 1111 1111"
    says = [f"Mine is {card}, code SECRET-7"]
    say(server, meta, says[0])
    Client.objects.filter(pk=shop.pk).update(redaction_patterns=[r"SECRET-\d+"])
    say(server, meta, says[0])
    Client.objects.filter(pk=shop.pk).update(redaction_patterns=[], redact_cards=False)
    say(server, meta, says[0])
    assert heard()[1:] == [
        "Mine is [card number removed], code SECRET-7",
        "Mine is [card number removed], code [redacted]",
        says[0],
    ]


@pytest.mark.parametrize("step", ["verify", "parse"])
def test_what_cannot_be_read_at_once_is_told_by_the_thorough_way_alone(meta, known, server, monkeypatch, caplog, step):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(WhatsAppAdapter, step, fail)
    with caplog.at_level(logging.ERROR):
        answer = say(server, meta, "A secret")
    if step == "verify":
        assert answer.status == 500
    else:
        assert (answer.status, answer.json["data"]["recorded"]) == (200, 1)
        assert InboundEvent.objects.get().reason == "processing_failed"
    assert not [line for line in caplog.records if "at once" in line.getMessage()]
    assert heard() == ["Hello"]


def test_a_fault_of_appending_is_logged_and_the_message_settled_by_the_thorough_way(
    meta, known, server, monkeypatch, caplog
):
    def fail(*arguments):
        raise ZeroDivisionError(arguments)

    monkeypatch.setattr(messages, "append_from", fail)
    with caplog.at_level(logging.ERROR):
        assert say(server, meta, "A secret").json["data"]["messages"] == 1
    assert heard() == ["Hello", "A secret"]
    assert [line.getMessage() for line in caplog.records] == [f"message not appended at once: account={known.pk}"]
    assert caplog.records[0].exc_info


def test_a_database_that_is_away_is_told_to_the_provider(meta, known, server, monkeypatch, caplog):
    def fail(*arguments):
        raise OperationalError

    monkeypatch.setattr(messages, "append_from", fail)
    monkeypatch.setattr(connection, "close", lambda: None)  # or the test's own transaction would be gone
    with caplog.at_level(logging.ERROR):
        answer = say(server, meta, "Hello?")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert not caplog.records
    assert heard() == ["Hello"]


@pytest.mark.django_db(transaction=True)
def test_40_simultaneous_deliveries_of_one_message_to_an_active_session_are_one_chunk(meta, known, server):
    def delivered():
        return say(WebServer(), meta, "Once", message_id="wamid.once")

    answers = together(*[delivered] * 40, *(partial(say, WebServer(), meta, f"message {n}") for n in range(10)))
    assert {(answer.status, answer.json["data"]["messages"]) for answer in answers} == {(200, 1)}
    assert sorted(heard()) == sorted(["Hello", "Once", *(f"message {n}" for n in range(10))])
    assert Conversation.objects.get().inbound_sequence == 12
    assert_sound()


def test_only_so_many_are_known(meta, account, server, monkeypatch):
    monkeypatch.setattr(account_cache, "MOST", 1)
    other = ChannelAccount(provider="whatsapp", channel="whatsapp", address="another")
    other.version = "0"
    account_cache.remember([other])
    assert say(server, meta, "Hello").status == 200
    assert list(account_cache._known) == [("whatsapp", "whatsapp", meta.phone_number_id)]
