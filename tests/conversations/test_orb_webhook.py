"""An orb, end to end: a gateway's signed event in, the reply posted to the gateway, over real HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from channels_out.simulators import orb
from conversations.models import ChannelAccount, Chunk, Contact, Conversation, InboundEvent, Message, RefusedWebhooks
from conversations.services.core.errors import InvalidError
from conversations.services.delivery import sending
from conversations.services.tenants import setup
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import sign_in
from tests.conversations.orb_door import INBOUND, hears, post
from tests.fakes.orb import FakeGateway
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db


def test_a_device_is_answered_and_receipts_move_the_answer_on(gateway, orb_account):
    status, envelope = hears(gateway, "Where is my parcel?", name="Ann", metadata={"room": "kitchen"})
    assert (status, envelope["data"]) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    assert Chunk.objects.get(role="user").metadata == {"room": "kitchen"}
    reply_to_all()
    send_all()

    [event] = gateway.said
    message = Message.objects.get()
    assert (message.status, event["data"]["device_id"]) == ("sent", "orb-7")
    assert event["data"]["content"]["text"] == message.text
    for kind in ("read", "delivered"):
        post(gateway, orb.receipt(gateway.name, kind, event["data"]["message_id"]))
    message.refresh_from_db()
    assert message.status == "read"


def test_a_repeated_event_is_one_message_whichever_way_it_is_repeated(gateway, orb_account):
    event = orb.said(gateway.name, "orb-7", "Hello", message_id="m1")
    post(gateway, event, event_id="evt_1")
    post(gateway, event, event_id="evt_1")
    post(gateway, event, event_id="evt_2")
    assert Chunk.objects.filter(role="user").count() == 1


@pytest.mark.parametrize("signing", [{"secret": orb.new_secret()}, {"at": int(time.time()) - 600}])
def test_what_is_forged_or_replayed_later_is_refused_and_counted(gateway, orb_account, signing):
    status, envelope = post(gateway, orb.said(gateway.name, "orb-7", "Hello"), **signing)
    assert (status, envelope["code"]) == (403, "invalid_signature")
    assert not Conversation.objects.exists()
    assert RefusedWebhooks.objects.get().channel_account == orb_account


def test_our_own_posts_sent_back_to_us_are_no_messages(gateway, orb_account):
    hears(gateway)
    reply_to_all()
    send_all()
    [sent] = [each for each in gateway.requests if b"message.reply" in each.body]
    headers = {name: value for name, value in sent.headers.items() if name.startswith("webhook-")}
    answer = HttpClient().post(INBOUND, sent.body, "application/json", headers=headers)
    assert answer.status_code == 200
    assert Chunk.objects.filter(role="user").count() == 1
    assert InboundEvent.objects.get().kind == "message.reply"


def test_an_unclear_send_is_repeated_under_its_id_and_heard_once(gateway, orb_account):
    hears(gateway)
    reply_to_all()
    gateway.fail_next(Fault(cut="after"))
    send_all()
    assert Message.objects.get().status == "queued"
    Message.objects.update(due_at=timezone.now())
    send_all()
    message = Message.objects.get()
    assert message.status == "sent"
    assert gateway.posts == {str(message.pk): 2}
    assert len(gateway.said) == 1


def test_a_person_whom_the_client_knows_is_the_same_person_on_every_device(gateway, orb_account, door):
    door.says("Hello", user_id="ann", name="Ann")
    hears(gateway, "One", user_id="ann")
    post(gateway, orb.said(gateway.name, "orb-8", "Two", user_id="ann"))
    assert Contact.objects.get().user_id == "ann"
    reply_to_all()
    send_all()
    assert [event["data"]["device_id"] for event in gateway.said] == ["orb-8"], "where the newest message came from"


def test_another_tenants_gateway_is_not_spoken_for(gateway, orb_account):
    with FakeGateway("cellar") as other:
        setup.create_channel_account(
            factories.ClientFactory(),
            channel="orb",
            provider="orb",
            address="cellar",
            credentials={"secret": other.secret},
            base_url=other.url,
        )
        assert post(gateway, orb.said("cellar", "orb-7", "Hello"))[0] == 403
    assert not Conversation.objects.exists()


def test_a_private_address_is_not_posted_to_unless_the_setting_allows_it(gateway, orb_account, settings):
    settings.ORB_PRIVATE_NETWORKS = []
    hears(gateway)
    reply_to_all()
    send_all()
    orb_account.refresh_from_db()
    assert (orb_account.health, gateway.connections) == ("broken", 0)
    assert "private_address" in orb_account.health_reason
    assert Message.objects.get().status == "queued"


def test_an_account_says_where_its_gateway_is_and_managers_may(shop, gateway):
    with pytest.raises(InvalidError, match="base URL"):
        setup.create_channel_account(
            shop, channel="orb", provider="orb", address="x", credentials={"secret": gateway.secret}
        )
    manager = sign_in("mona", shop, "manager")
    add = reverse("admin:conversations_channelaccount_add") + "?kind=orb:orb"
    form: dict[str, Any] = {
        "client": shop.pk,
        "address": "kitchen",
        "credential_secret": gateway.secret,
        "is_active": "on",
    }
    assert b"needs a base URL" in manager.post(add, form).content
    assert manager.post(add, {**form, "base_url": gateway.url}).status_code == 302
    account = ChannelAccount.objects.get(provider="orb")
    assert (account.base_url, sending.adapter_of(account).needs_base_url) == (gateway.url, True)
