"""Whose reply and whose message comes next, where several clients have something due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, Message, Turn
from conversations.services.core.slots import CLIENT_TIMES, Slots, with_spare
from conversations.services.delivery import claiming
from conversations.services.replies import leases
from tests import factories
from tests.claims import message_ids

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def owing(client: Client, number: int = 1, due_at: datetime = NOW, **more: Any) -> list[Conversation]:
    """So many conversations of the client that owe a reply, the first of them longest."""
    return [
        factories.ConversationFactory(
            client=client, reply_owed=True, reply_due_at=due_at - HOUR + each * SECOND, inbound_sequence=1, **more
        )
        for each in range(number)
    ]


def queued(client: Client, number: int = 1, channel: str = "sms", **more: Any) -> list[Message]:
    """So many messages of the client, each of its own conversation, to be sent; the first of them longest due."""
    found = []
    for each in range(number):
        conversation = factories.ConversationFactory(client=client, channel=channel)
        chunk = Chunk.objects.create(conversation=conversation, position=1, role="ai", content="Hello")
        usual: dict[str, Any] = {
            "due_at": NOW - HOUR + each * SECOND,
            "to_address": "ann",
            "to_kind": "user",
            "text": "Hello",
        }
        usual["channel_account"] = conversation.channel_account
        found.append(Message.objects.create(conversation=conversation, chunk=chunk, **{**usual, **more}))
    return found


def clients_of_replies(slots: Slots | int) -> list[Client]:
    claimed = leases.claim(NOW, slots)
    return [Conversation.objects.select_related("client").get(pk=each.conversation_id).client for each in claimed]


def clients_of_sends(slots: Slots | int) -> list[Client]:
    claimed = message_ids(NOW, slots)
    found = Message.objects.select_related("conversation__client").in_bulk(claimed)
    return [found[pk].conversation.client for pk in claimed]


@pytest.mark.parametrize("what", ["replies", "sends"])
def test_a_client_without_a_backlog_waits_for_nobody_else_s(shop, neighbour, what):
    due, clients_of = (owing, clients_of_replies) if what == "replies" else (queued, clients_of_sends)
    due(shop, 20)
    due(neighbour)
    Conversation.objects.filter(client=neighbour, reply_owed=True).update(reply_due_at=NOW)
    assert sorted(clients_of(4), key=str) == [neighbour, shop, shop, shop]


@pytest.mark.parametrize("what", ["replies", "sends"])
def test_one_after_the_other_clients_take_turns(shop, neighbour, what):
    due, clients_of = (owing, clients_of_replies) if what == "replies" else (queued, clients_of_sends)
    slots = Slots(1)
    due(shop, 6)
    due(neighbour, 6)
    order = []
    for _ in range(6):
        order += clients_of(slots)
        for pk in slots.held:
            slots.let_go(pk)
    assert order[:2] * 3 == order
    assert set(order) == {shop, neighbour}


@pytest.mark.parametrize("what", ["replies", "sends"])
def test_a_larger_weight_is_a_larger_share(shop, neighbour, what):
    due, clients_of = (owing, clients_of_replies) if what == "replies" else (queued, clients_of_sends)
    Client.objects.filter(pk=shop.pk).update(weight=3)
    due(shop, 9)
    due(neighbour, 9)
    claimed = clients_of(8)
    assert (claimed.count(shop), claimed.count(neighbour)) == (6, 2)


def test_replies_of_one_client_in_flight_leave_slots_to_the_next(shop, neighbour):
    slots = Slots(with_spare(6, CLIENT_TIMES))
    owing(shop, 20)
    assert clients_of_replies(slots) == [shop] * 6
    assert clients_of_replies(slots) == []
    owing(neighbour, 5)
    assert neighbour in clients_of_replies(slots)


def test_a_hanging_account_leaves_slots_to_other_accounts_of_its_client_and_to_other_clients(shop, neighbour):
    slots = Slots(with_spare(16, claiming.ACCOUNT_TIMES))
    hanging = queued(shop, 20, channel="orb")
    assert sorted(message_ids(NOW, slots)) == sorted(each.pk for each in hanging[:16])
    assert message_ids(NOW, slots) == []
    [other] = queued(shop, channel="whatsapp")
    assert message_ids(NOW, slots) == [other.pk]
    queued(neighbour)
    assert clients_of_sends(slots) == [neighbour]


def test_retries_never_go_before_other_clients_new_messages(shop, neighbour):
    queued(shop, 5, attempts=1)
    [new] = queued(neighbour, due_at=NOW)
    assert message_ids(NOW, 1) == [new.pk]
    assert clients_of_sends(3) == [shop] * 3


def test_retries_of_replies_never_go_before_other_clients_new_ones(shop, neighbour):
    owing(shop, 5, reply_attempts=1)
    owing(neighbour)
    assert clients_of_replies(1) == [neighbour]
    assert clients_of_replies(3) == [shop] * 3


def test_of_one_account_the_message_that_is_due_longest_goes_first_also_before_a_retry(shop):
    first, second, third = queued(shop, 3)
    Message.objects.filter(pk=first.pk).update(attempts=1, due_at=NOW - SECOND)
    assert [message_ids(NOW, 1) for _ in range(3)] == [[second.pk], [third.pk], [first.pk]]


def test_what_is_not_due_or_may_not_be_sent_gives_no_turn_away(shop, neighbour):
    owing(shop, 3, due_at=NOW + 2 * HOUR)
    owing(shop, 3, taken_over_at=NOW)
    owing(neighbour)
    assert clients_of_replies(1) == [neighbour]
    queued(shop, 3, due_at=NOW + SECOND)
    for each in queued(shop, 2, channel="orb"):
        each.channel_account.health = "broken"
        each.channel_account.save()
    queued(neighbour)
    assert clients_of_sends(1) == [neighbour]
    assert clients_of_sends(1) == []


def test_a_message_without_an_account_holds_nobody_up(shop):
    [lost] = queued(shop)
    Message.objects.filter(pk=lost.pk).update(channel_account=None)
    [other] = queued(shop, channel="orb")
    assert message_ids(NOW, 10) == [other.pk]


def test_streamed_replies_are_begun_in_turns(shop, neighbour):
    for client, number in ((shop, 5), (neighbour, 1)):
        for each in range(number):
            conversation = factories.ConversationFactory(client=client, channel="web", thread=f"{client}-{each}")
            Turn.objects.create(
                conversation=conversation,
                attempt=0,
                inbound_sequence=1,
                streamed=True,
                lease_until=NOW - (number - each) * SECOND,
            )
    claimed = leases.claim_streamed(NOW, 2)
    clients = [Conversation.objects.get(pk=each.conversation_id).client for each in claimed]
    assert sorted(clients, key=str) == [neighbour, shop]
    assert len(leases.claim_streamed(NOW, Slots(with_spare(3, CLIENT_TIMES)))) == 3
    assert len(leases.claim_streamed(NOW, 10)) == 1


@pytest.mark.parametrize("weight", [0, 101])
def test_a_weight_is_within_its_bounds(shop, weight):
    with pytest.raises(IntegrityError, match="client_weighs_something"), transaction.atomic():
        Client.objects.filter(pk=shop.pk).update(weight=weight)
