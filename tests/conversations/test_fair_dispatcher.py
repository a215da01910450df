"""One dispatcher at work for several clients: nobody's backlog, hanging gateway or slow model stops another's reply."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from conversations.engines import registry
from conversations.engines.contract import Reply, ReplyRequest
from conversations.models import ChannelAccount, Client, Conversation, Message, SendCircuit, Turn
from tests import factories
from tests.conftest import Door
from tests.conversations.meta_doors import account_at, post_whatsapp
from tests.conversations.test_fair_claims import queued
from tests.fakes.meta import FakeMeta
from tests.fakes.orb import FakeGateway
from tests.fakes.server import Fault
from tests.races.threads import dispatching, eventually
from tests.sizes import LONG

pytestmark = pytest.mark.django_db(transaction=True)


class SlowEngine:
    """The engine of everybody: the flood's model answers when the test lets it, others' at once."""

    name = "offline"

    def __init__(self, flood: Client) -> None:
        self.flood, self.opened, self.guard = str(flood.pk), threading.Event(), threading.Lock()
        self.inside = 0
        self.seconds = 60.0
        self.theirs: set[str] = set()

    def reply(self, request: ReplyRequest) -> Reply:
        if request.conversation_id in self.theirs:
            with self.guard:
                self.inside += 1
            self.opened.wait(self.seconds)
            with self.guard:
                self.inside -= 1
        elif LONG:
            time.sleep(self.seconds)
        return Reply("Hello", "offline")


@pytest.fixture
def engine(shop: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowEngine]:
    slow = SlowEngine(shop)
    monkeypatch.setitem(registry.ENGINES, "offline", slow)
    yield slow
    slow.opened.set()


@pytest.fixture
def hanging(shop: Client, gateway: FakeGateway, orb_account: ChannelAccount, settings: Any) -> ChannelAccount:
    """The shop's gateway takes every request and never answers."""
    gateway.fail_next(Fault(hang=300, cut="before"), times=10_000)
    ChannelAccount.objects.filter(client=shop, channel="orb", provider="sandbox").delete()
    return orb_account


def flood_of_sends(account: ChannelAccount, number: int = 100) -> None:
    queued(account.client, number, channel="orb", channel_account=account, to_address="orb-7", to_kind="device")


def owe_replies(client: Client, number: int) -> set[str]:
    """So many conversations of the client are due at once."""
    account = factories.SandboxFactory(client=client)
    now = timezone.now()
    people = [factories.ContactFactory.build(client=client, user_id=f"flood-{each}") for each in range(number)]
    client.contacts.bulk_create(people)
    made = Conversation.objects.bulk_create(
        factories.ConversationFactory.build(
            client=client,
            contact=person,
            channel_account=account,
            reply_owed=True,
            reply_due_at=now,
            inbound_sequence=1,
        )
        for person in people
    )
    return {str(each.pk) for each in made}


def is_delivered(conversation_id: Any) -> bool:
    return Message.objects.filter(conversation_id=conversation_id, status__in=["sent", "delivered"]).exists()


def test_a_reply_on_whatsapp_does_not_wait_for_another_client_s_gateway_that_hangs(
    hanging, neighbour, gateway, settings
):
    settings.PROVIDER_TIMEOUT_SECONDS, settings.DISPATCH_SENDS = 120, 8
    flood_of_sends(hanging)
    with FakeMeta() as meta, dispatching():
        account_at(meta, neighbour)
        eventually(lambda: len(gateway.requests) == 8, "the gateway has got what one account may hold")
        post_whatsapp(meta.text_webhook("Hello"))
        eventually(lambda: meta.sent, "the neighbour's reply is sent")
        assert len(gateway.requests) == 8, "nothing of the flood had to end before"
        assert Message.objects.filter(status="queued", channel_account=hanging).count() == 92
        gateway.close()


def test_a_gateway_that_hangs_is_left_alone_after_its_first_time_outs(hanging, gateway, settings):
    settings.PROVIDER_TIMEOUT_SECONDS, settings.DISPATCH_SENDS = 0.5, 4
    settings.RETRY_BASE_SECONDS = 60
    flood_of_sends(hanging, 30)
    with dispatching():
        eventually(SendCircuit.objects.filter(opened_at__isnull=False).exists, "the circuit is open")
        eventually(lambda: not Message.objects.filter(status__in=["claimed", "sending"]).exists(), "all have ended")
    assert len(gateway.requests) <= 4 + 3, "the first, and what began before the third failure"


def test_a_reply_does_not_wait_for_another_client_s_flood(shop, neighbour, neighbours_key, engine, settings):
    settings.DISPATCH_REPLIES = 16
    engine.theirs = owe_replies(shop, 60)
    with dispatching():
        eventually(lambda: engine.inside == 16, "the flood holds what one client may hold")
        conversation_id = Door(neighbour, neighbours_key).says("Hello")["conversation_id"]
        eventually(lambda: is_delivered(conversation_id), "the neighbour's reply is delivered")
        assert engine.inside == 16, "nothing of the flood had to end before"
        assert Turn.objects.filter(conversation__client=shop, status="running").count() == 16
        engine.opened.set()
        eventually(lambda: not Conversation.objects.filter(reply_owed=True).exists(), "the flood is answered as well")


# --- the full form: measured ------------------------------------------------------------------------------------------
def seconds_until(done: Any, what: str) -> float:
    begun = time.monotonic()
    eventually(done, what, seconds=200)
    return time.monotonic() - begun


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="it measures times")
def test_a_reply_takes_no_longer_than_twice_its_time_while_a_gateway_hangs(hanging, neighbour, gateway):
    with FakeMeta() as meta, dispatching():
        account_at(meta, neighbour)
        post_whatsapp(meta.text_webhook("Hello", sender="51999999989"))
        seconds_until(lambda: meta.sent, "the first reply, which warms up")
        post_whatsapp(meta.text_webhook("Hello", sender="51999999990"))
        alone = seconds_until(lambda: len(meta.sent) == 2, "a reply alone")
        flood_of_sends(hanging)
        eventually(lambda: len(gateway.requests) >= 32, "the gateway holds what it may")
        post_whatsapp(meta.text_webhook("Hello", sender="51999999991"))
        busy = seconds_until(lambda: len(meta.sent) == 3, "a reply while the gateway hangs")
        assert busy <= 2 * alone + 0.2, (alone, busy)
        gateway.close()


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="it measures times")
def test_a_reply_takes_no_longer_than_twice_its_time_while_1_500_are_due(shop, neighbour, neighbours_key, engine):
    engine.seconds = 5.0
    door = Door(neighbour, neighbours_key)
    with dispatching():
        first = door.says("Hello", user_id="ann")["conversation_id"]
        alone = seconds_until(lambda: is_delivered(first), "a reply alone")
        engine.theirs = owe_replies(shop, 1500)
        eventually(lambda: engine.inside >= 200, "the flood holds what it may")
        second = door.says("Hello", user_id="bob")["conversation_id"]
        busy = seconds_until(lambda: is_delivered(second), "a reply while a flood is answered")
        assert busy <= 2 * alone, (alone, busy)
        engine.opened.set()
