"""Instagram through the Messenger adapter: its signed webhook in, the answer out, over real HTTP."""

from __future__ import annotations

import pytest
from django.utils import timezone

from channels_out.simulators import messenger as composed
from conversations.models import Chunk, ContactIdentity, Conversation, InboundEvent, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.inbound import replay
from conversations.services.staff_actions import send
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.messenger import FakeMessenger

pytestmark = pytest.mark.django_db

INSTAGRAM, PERSON = "17841400000000001", "1254477777772919"


@pytest.fixture
def instagram():
    with FakeMessenger(INSTAGRAM) as fake:
        yield fake


@pytest.fixture
def account(instagram, shop):
    return account_at(instagram, shop)


def happens(instagram, *items):
    payload = composed.payload(INSTAGRAM, *items) | {"object": "instagram"}
    return post(instagram.signed(payload), "messenger")


def says(instagram, words="Is my order on its way?", mid="m_in1"):
    return happens(instagram, composed.text(INSTAGRAM, PERSON, words, mid=mid))


def test_a_message_opens_a_conversation_once_and_is_answered(instagram, account):
    for _ in range(2):
        assert says(instagram) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    reply_to_all()
    send_all()
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.channel_account, conversation.status) == ("messenger", account, "active")
    assert ContactIdentity.objects.get().address == PERSON
    assert Chunk.objects.get(role="user").content == "Is my order on its way?"
    [sent] = instagram.sent
    assert sent.to == PERSON
    assert instagram.requests[-1].path.endswith(f"/{INSTAGRAM}/messages")
    assert not InboundEvent.objects.exists()


def test_what_was_seen_is_named_by_id(instagram, account):
    says(instagram)
    reply_to_all()
    send_all()
    who = {"sender": {"id": PERSON}, "recipient": {"id": INSTAGRAM}, "timestamp": 1754119029000}
    happens(instagram, {**who, "read": {"mid": instagram.sent[0].mid}})
    assert Message.objects.get().status == "read"


def test_an_echo_is_not_answered_and_what_is_kept_can_be_replayed(instagram, account):
    happens(instagram, composed.echo(INSTAGRAM, PERSON, "Typed in the app", mid="m_out9"))
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.channel_account, kept.raw["object"]) == ("echo", account, "instagram")
    replay.replay(kept.pk, timezone.now())
    assert not Conversation.objects.exists()


def test_a_long_text_goes_in_parts_of_a_thousand_bytes(instagram, account):
    says(instagram)
    Conversation.objects.update(reply_owed=False)
    send.send(Conversation.objects.get().pk, "ñ" * 900, actor=SYSTEM, now=timezone.now())
    send_all()
    assert [len(sent.text.encode()) for sent in instagram.sent] == [1000, 800]


def test_another_object_and_a_strangers_signature_are_refused(instagram, account):
    payload = composed.payload(INSTAGRAM, composed.text(INSTAGRAM, PERSON, "Hello")) | {"object": "threads"}
    assert post(instagram.signed(payload), "messenger")[1] == {"messages": 0, "receipts": 0, "recorded": 1}
    assert InboundEvent.objects.get().reason == "malformed"
    with FakeMessenger(INSTAGRAM, app_secret="another") as stranger:
        assert says(stranger)[0] == 403
    assert not Conversation.objects.exists()
