"""Receipts in bursts: a provider sends several for each message, and many at once. They cost little and say as much."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from channels_out.simulators import whatsapp
from channels_out.simulators.meta import signed_by_meta
from conversations.models import ChannelAccount, Conversation, InboundEvent, Message
from conversations.services.delivery import receipts_bulk
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at
from tests.fakes.meta import FakeMeta
from tests.routes import WebServer

pytestmark = pytest.mark.django_db
BURST = ("sent", "delivered", "read")


@pytest.fixture
def account(meta, shop):
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel="whatsapp").delete()
    return account_at(meta, shop)


@pytest.fixture
def server():
    return WebServer()


@pytest.fixture
def answered(meta, account, server):
    """Each of so many people wrote and got an answer, which Meta took. Returns the answers."""

    def make(people):
        texts = [whatsapp.text("Hello", sender=f"5199999{number:04}") for number in range(people)]
        post(server, meta.webhook(messages=texts))
        reply_to_all()
        send_all()
        assert len(meta.sent) == people
        return meta.sent

    return make


def post(server, webhook):
    answer = server.call("POST", "/webhooks/whatsapp/inbound", webhook.body, headers=dict(webhook.headers))
    assert answer.status == 200, answer.body
    return answer.json["data"]


def burst(meta, sent, words=BURST):
    return meta.webhook(statuses=[whatsapp.status(each.wamid, word) for each in sent for word in words])


def statuses():
    return list(Message.objects.order_by("chunk_id").values_list("status", flat=True))


def test_receipts_of_one_message_are_one_statement(meta, answered, server):
    sent = answered(1)
    with CaptureQueriesContext(connection) as captured:
        assert post(server, burst(meta, sent)) == {"messages": 0, "receipts": 3, "recorded": 0}
    assert len(captured) == 1
    assert statuses() == ["read"]
    message = Message.objects.get()
    assert message.sent_at
    assert message.delivered_at
    assert message.read_at


def test_many_in_one_webhook_are_one_statement_too(meta, answered, server):
    sent = answered(20)
    with CaptureQueriesContext(connection) as captured:
        assert post(server, burst(meta, sent))["receipts"] == 60
    assert len(captured) == 1
    assert statuses() == ["read"] * 20


def test_each_time_is_the_provider_s_own_whatever_the_order(meta, answered, server):
    [sent] = answered(1)
    times = {"read": 1_900, "sent": 1_100, "delivered": 1_500}
    begun = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    Message.objects.update(sent_at=None)
    said = [{**whatsapp.status(sent.wamid, word), "timestamp": str(begun + at)} for word, at in times.items()]
    post(server, meta.webhook(statuses=said))
    message = Message.objects.get()
    noted = {"sent": message.sent_at, "delivered": message.delivered_at, "read": message.read_at}
    assert {word: int(at.timestamp()) - begun for word, at in noted.items()} == times


def test_what_is_said_already_changes_nothing(meta, answered, server):
    sent = answered(1)
    post(server, burst(meta, sent))
    before = Message.objects.values().get()
    assert post(server, burst(meta, sent, ["sent", "delivered", "read"]))["receipts"] == 3
    assert Message.objects.values().get() == before


@pytest.mark.parametrize(
    ("words", "ends"),
    [(["failed", "delivered"], "failed"), (["sent", "failed"], "failed"), (["read", "failed"], "read")],
)
def test_a_failure_among_them_keeps_its_place(meta, answered, server, words, ends):
    first, second = answered(2)
    said = [whatsapp.status(first.wamid, word, error=131026 if word == "failed" else 0) for word in words]
    assert post(server, meta.webhook(statuses=[*said, whatsapp.status(second.wamid, "read")]))["receipts"] == 3
    ended = dict(Message.objects.values_list("provider_message_id", "status"))
    assert ended == {first.wamid: ends, second.wamid: "read"}
    failures = Conversation.objects.get(device__address=first.to).events.filter(kind="message_failed").count()
    assert failures == (ends == "failed")


def test_one_of_nothing_we_know_is_kept_and_the_others_count(meta, answered, server):
    sent = answered(2)
    stray = whatsapp.status("wamid.of-another-program", "read")
    webhook = meta.webhook(statuses=[stray, *(whatsapp.status(each.wamid, "read") for each in sent)])
    assert post(server, webhook) == {"messages": 0, "receipts": 2, "recorded": 1}
    assert statuses() == ["read", "read"]
    assert InboundEvent.objects.get().message_id == "wamid.of-another-program"


def test_messages_beside_them_are_heard(meta, answered, server):
    [sent] = answered(1)
    webhook = meta.webhook(
        messages=[whatsapp.text("Thanks", sender=sent.to)], statuses=[whatsapp.status(sent.wamid, "read")]
    )
    assert post(server, webhook) == {"messages": 1, "receipts": 1, "recorded": 0}
    assert statuses() == ["read"]
    assert Conversation.objects.get().inbound_sequence == 2


def test_another_tenant_s_receipts_say_nothing_of_our_messages(meta, answered, server):
    [sent] = answered(1)
    with FakeMeta("222", app_secret="theirs") as other:
        account_at(other, factories.ClientFactory())
        forged = whatsapp.payload("222", statuses=[whatsapp.status(sent.wamid, "read")])
        for _ in range(2):  # the second time their account is known
            assert post(server, signed_by_meta(forged, "theirs"))["recorded"] == 1
    assert statuses() == ["sent"]


def test_a_secret_that_was_replaced_signs_no_receipts_from_then_on(meta, answered, server):
    sent = answered(1)
    ChannelAccount.objects.filter(provider="whatsapp").update(credentials={"app_secret": "another"})
    webhook = burst(meta, sent)
    answer = server.call("POST", "/webhooks/whatsapp/inbound", webhook.body, headers=dict(webhook.headers))
    assert answer.status == 403
    assert statuses() == ["sent"]


def test_a_fault_of_the_one_statement_is_logged_and_each_receipt_applied(meta, answered, server, monkeypatch, caplog):
    def fail(*arguments):
        raise ZeroDivisionError

    sent = answered(2)
    monkeypatch.setattr(receipts_bulk, "apply", fail)
    with caplog.at_level(logging.ERROR):
        assert post(server, burst(meta, sent))["receipts"] == 6
    assert statuses() == ["read", "read"]
    assert {line.getMessage().partition(":")[0] for line in caplog.records} == {"receipts not applied at once"}
