"""The person sees that their message was read and that a reply is being written, by a real dispatcher's threads."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection
from django.utils import timezone

from channels_out.simulators import messenger as composed
from conversations.engines import registry
from conversations.engines.contract import Reply
from conversations.models import Conversation, Message
from conversations.services.delivery import read_marks
from conversations.services.replies import dispatcher, leases, pipeline
from tests.conftest import send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.messenger import PERSON, FakeMessenger
from tests.fakes.server import Fault


class SlowEngine:
    """Writes when it is told to."""

    name = "slow"

    def __init__(self):
        self.write = threading.Event()

    def reply(self, _request):
        self.write.wait(30)
        return Reply("Here it is", "slow")


@pytest.fixture
def running(monkeypatch):
    """A dispatcher on its own thread, and the engine that writes for it."""
    engine = SlowEngine()
    monkeypatch.setattr(registry, "engine_for", lambda _name, _request: engine)
    monkeypatch.setattr(dispatcher, "TYPING_AFTER_SECONDS", 0.05)
    one = dispatcher.Dispatcher(patience=20)

    def run():
        try:
            one.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield engine
    engine.write.set()
    one.stop()
    thread.join(30)


def wait_for(what):
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.django_db(transaction=True)
def test_whatsapp_shows_it_as_read_and_typing_while_the_reply_is_written(meta, shop, running):
    account_at(meta, shop)
    webhook = meta.text_webhook("Hello", message_id="wamid.in1")
    post(webhook, "whatsapp")
    wait_for(lambda: meta.marked)
    assert meta.sent == [], "the reply is still being written"
    running.write.set()
    wait_for(lambda: meta.sent)

    [mark] = meta.marked
    assert (mark["message_id"], mark["typing_indicator"]) == ("wamid.in1", {"type": "text"})


@pytest.mark.django_db(transaction=True)
def test_messenger_shows_it_as_seen_and_a_refusal_costs_nothing(shop, running):
    with FakeMessenger() as page:
        account_at(page, shop)
        page.fail_next(Fault(500))
        post(page.webhook(composed.text(page.page, PERSON, "Hello")), "messenger")
        wait_for(lambda: page.requests)
        running.write.set()
        wait_for(lambda: page.sent)
        assert page.actions == []
        wait_for(lambda: Message.objects.filter(status="sent").exists())


@pytest.mark.django_db
def test_a_message_that_another_program_brought_is_not_marked(meta, shop, door):
    account_at(meta, shop)
    door.says("Hello", channel="whatsapp", message_id="42")
    conversation = Conversation.objects.get()
    conversation.channel_account = shop.channel_accounts.get(provider="whatsapp")
    conversation.save()
    assert read_marks.mark_for_newest(conversation.client_id, conversation.pk) is None


@pytest.mark.django_db
def test_a_reply_that_was_overtaken_quotes_what_it_answers(meta, shop):
    """Somebody who never stops writing is answered all the same, and sees to what."""
    account_at(meta, shop)
    for number in range(3):
        post(meta.text_webhook(f"Question {number}", message_id=f"wamid.q{number}"), "whatsapp")
        [turn] = leases.claim(timezone.now(), 1)
        pipeline.prepare(turn)
        post(meta.text_webhook("And", message_id=f"wamid.and{number}"), "whatsapp")
        pipeline.commit(turn, Reply(f"Answer {number}", "offline"), timezone.now())
    send_all()

    [sent] = meta.sent
    assert (sent.text, sent.reply_to) == ("Answer 2", "wamid.q2")
    [turn] = leases.claim(timezone.now(), 1)
    pipeline.prepare(turn)
    pipeline.commit(turn, Reply("Everything", "offline"), timezone.now())
    send_all()
    assert (meta.sent[1].text, meta.sent[1].reply_to) == ("Everything", "")
