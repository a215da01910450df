"""Messenger end to end: the page's signed webhook in, its send route out, over real HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from channels_out.simulators import messenger as composed
from conversations.models import Chunk, Contact, Conversation, InboundEvent, Message
from conversations.services.delivery import claiming, sending
from conversations.services.inbound import messages, replay
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.messenger import PERSON, FakeMessenger
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db


@pytest.fixture
def page():
    with FakeMessenger() as fake:
        yield fake


@pytest.fixture
def account(page, shop):
    return account_at(page, shop)


@pytest.fixture
def answered(page, account):
    """A person was answered; returns the message as Messenger has it."""
    post(page.text_webhook("Hello"), "messenger")
    reply_to_all()
    send_all()
    return page.sent[0]


def milliseconds(moment):
    return int(moment.timestamp() * 1000)


def statuses():
    return list(Message.objects.order_by("chunk_id", "part").values_list("status", flat=True))


def say(text):
    from conversations.services.core.ledger import SYSTEM
    from conversations.services.staff_actions import send

    send.send(Conversation.objects.get().pk, text, actor=SYSTEM, now=timezone.now())


def test_a_signed_webhook_opens_a_session_is_answered_and_the_answer_goes_out(page, account):
    status, outcome = post(page.text_webhook("Is my order on its way?"), "messenger")

    assert (status, outcome) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.channel_account) == ("messenger", account)
    assert (conversation.device.address, conversation.device.kind) == (PERSON, "psid")
    assert conversation.is_guest is True, "a page tells no phone"
    reply_to_all()
    send_all()
    [sent] = page.sent
    assert (sent.to, sent.our_message_id) == (PERSON, str(Message.objects.get().pk))
    assert Message.objects.get().provider_message_id == sent.mid


def test_buttons_quick_replies_and_attachments_are_readable(page, account):
    items = [
        composed.postback(page.page, PERSON, "Get started", "START"),
        composed.message(page.page, PERSON, text="Yes", quick_reply={"payload": "yes-7"}),
        composed.message(page.page, PERSON, attachments=[composed.attachment("image"), {"type": "audio"}]),
    ]
    post(page.webhook(*items), "messenger")

    said = Chunk.objects.filter(role="user").order_by("position")
    assert [chunk.content for chunk in said] == ["Get started", "Yes", "[image] [audio]"]
    assert [chunk.metadata.get("payload") for chunk in said] == ["START", "yes-7", None]
    assert said[2].metadata["attachments"][0]["url"] == "https://cdn.example/1"


def test_the_pages_own_echo_is_no_message_and_settles_a_send_without_an_answer(page, account):
    post(page.text_webhook("Hello"), "messenger")
    reply_to_all()
    page.fail_next(Fault(cut="after"))
    send_all()
    assert statuses() == ["unknown"]

    post(page.echo_webhook(page.sent[0]), "messenger")
    assert statuses() == ["sent"]
    assert Message.objects.get().provider_message_id == page.sent[0].mid
    assert Chunk.objects.filter(role="user").count() == 1
    assert reply_to_all() == 0


def test_what_a_person_types_in_the_pages_inbox_is_no_users_word(page, account, answered):
    post(page.webhook(composed.echo(page.page, PERSON, "This is Bea of the shop")), "messenger")
    assert Chunk.objects.filter(role="user").count() == 1
    assert Chunk.objects.filter(role="ai").last().content == "This is Bea of the shop"
    assert reply_to_all() == 0


def test_standby_is_kept_and_not_answered(page, account):
    item = composed.text(page.page, PERSON, "I talk to a person")
    assert post(page.webhook(item, key="standby"), "messenger")[1]["recorded"] == 1
    assert not Conversation.objects.exists()


def test_delivery_by_id_and_reading_by_time_move_forward_alone(page, account, answered):
    person = (page.page, PERSON)
    post(page.webhook(composed.read(*person)), "messenger")
    assert statuses() == ["read"]
    post(page.webhook(composed.delivery(*person, mids=[answered.mid])), "messenger")
    post(page.echo_webhook(answered), "messenger")
    assert statuses() == ["read"]
    message = Message.objects.get()
    assert message.delivered_at
    assert message.read_at


def test_a_watermark_moves_all_earlier_messages_of_that_person_and_no_others(page, account, answered):
    say("One")
    say("Two")
    send_all()
    before_the_last = Message.objects.order_by("chunk_id").last().sending_at - timedelta(milliseconds=1)
    other = page.text_webhook("I am somebody else", sender="9999")
    post(other, "messenger")
    reply_to_all()
    send_all()

    watermark = milliseconds(before_the_last)
    post(page.webhook(composed.delivery(page.page, PERSON, watermark=watermark)), "messenger")
    assert statuses() == ["delivered", "delivered", "sent", "sent"]
    post(page.webhook(composed.read(page.page, PERSON, watermark=watermark)), "messenger")
    assert statuses() == ["read", "read", "sent", "sent"]
    post(page.webhook(composed.delivery(page.page, PERSON)), "messenger")
    assert statuses() == ["read", "read", "delivered", "sent"], "it never goes back"


def test_a_watermark_of_another_page_moves_nothing(page, account, answered):
    with FakeMessenger(page="222") as second:
        account_at(second, factories.ClientFactory())
        post(second.webhook(composed.read("222", PERSON)), "messenger")
    assert statuses() == ["sent"]


def test_a_watermark_that_is_faster_than_our_own_commit_is_kept_and_applied(page, account):
    post(page.text_webhook("Hello"), "messenger")
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    send = sending.begin(claimed, token, timezone.now())
    result = send.send()
    post(page.webhook(composed.read(page.page, PERSON)), "messenger")
    assert statuses() == ["sending"]

    sending.record_sent(send, result, timezone.now())
    assert statuses() == ["read"]
    assert not InboundEvent.objects.exists()


def test_an_older_watermark_says_nothing_of_what_is_just_being_sent(page, account):
    post(page.text_webhook("Hello"), "messenger")
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    send = sending.begin(claimed, token, timezone.now())
    result = send.send()
    before = milliseconds(timezone.now() - timedelta(seconds=30))
    post(page.webhook(composed.read(page.page, PERSON, watermark=before)), "messenger")
    sending.record_sent(send, result, timezone.now())
    assert statuses() == ["sent"]


def test_an_error_inside_a_200_is_an_error(page, account):
    post(page.text_webhook("Hello"), "messenger")
    reply_to_all()
    page.error_next(551, status=200, subcode=1545041)
    send_all()
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "551")
    assert "cannot be written to" in message.reason


def test_two_tenants_pages_in_one_post(page, account):
    with FakeMessenger(page="222") as second:
        theirs = account_at(second, factories.ClientFactory())
    entries = [composed.entry(each, composed.text(each, PERSON, "hi")) for each in (page.page, "222")]
    status, outcome = post(page.signed({"object": "page", "entry": entries}), "messenger")

    assert (status, outcome["messages"]) == (200, 2)
    assert {c.client for c in Conversation.objects.all()} == {account.client, theirs.client}
    assert Contact.objects.count() == 2


def test_what_failed_of_two_tenants_pages_is_kept_and_replayed_apart(page, account, monkeypatch):
    """Each tenant's staff see, and replay, their own page's part."""
    with FakeMessenger(page="222") as second:
        theirs = account_at(second, factories.ClientFactory())
    real = messages.settle
    monkeypatch.setattr(
        messages,
        "settle",
        lambda client, arrival, **_: 1 / 0 if arrival.text == "hi" else real(client, arrival),
    )
    entries = [composed.entry(each, composed.text(each, PERSON, "hi")) for each in (page.page, "222", page.page)]
    assert post(page.signed({"object": "page", "entry": entries}), "messenger")[1]["recorded"] == 3

    ours, others = InboundEvent.objects.order_by("id")
    assert (ours.client, others.client) == (account.client, theirs.client)
    assert [entry["id"] for entry in ours.raw["entry"]] == [page.page, page.page]
    assert [entry["id"] for entry in others.raw["entry"]] == ["222"]
    monkeypatch.setattr(messages, "settle", real)
    assert replay.replay(ours.pk, timezone.now()).sentence == "Settled. Messages: 2."
    assert [conversation.client for conversation in Conversation.objects.all()] == [account.client]
    assert replay.replay(others.pk, timezone.now()).settled
    assert Conversation.objects.count() == 2


def test_the_handshake_proves_that_the_address_is_ours(page, account):
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": page.verify_token}
    answer = HttpClient().get("/webhooks/messenger/inbound", query)
    assert (answer.status_code, answer.content) == (200, b"1158201444")
