"""Work in the background goes from client to client: nobody's waits for another's backlog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from conversations.models import Client, Conversation, InboundEvent, RollingSummary
from conversations.services.core.rotation import in_rotation
from conversations.services.history import archive, remember
from conversations.services.inbound import replay
from conversations.services.replies import summaries
from tests import factories

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@pytest.fixture
def clients(shop: Client, neighbour: Client) -> list[Client]:
    """The shop, which has much to do in the background, and its neighbour."""
    return [shop, neighbour]


def ended(client: Client, **more: Any) -> Conversation:
    return factories.ConversationFactory(
        client=client, status="closed", ended_at=NOW - 40 * DAY, ended_by="user", **more
    )


def written(table: str, key: str) -> list[UUID]:
    """The clients of the table's conversations, in the order in which these rows were written last."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT s.client_id FROM {table} t JOIN conversations s ON s.id = t.{key} ORDER BY t.xmin::text::bigint"
        )
        return [client_id for (client_id,) in cursor.fetchall()]


@pytest.mark.django_db(transaction=True)
def test_conversations_are_remembered_in_turns_the_oldest_of_each_first(clients):
    shop, neighbour = clients
    theirs = [ended(shop, remember_due_at=NOW - DAY + each * SECOND).pk for each in range(5)]
    ended(neighbour, remember_due_at=NOW)
    assert remember.remember_ended() == 6
    done = list(Conversation.objects.order_by("remembered_at").values_list("pk", "client"))
    assert neighbour.pk in [client for _, client in done[:2]]
    assert [pk for pk, client in done if client == shop.pk] == theirs


@pytest.mark.django_db(transaction=True)
def test_summaries_are_settled_in_turns(clients):
    shop, neighbour = clients
    for number in range(5):
        RollingSummary.objects.create(
            conversation=factories.ConversationFactory(client=shop), due_at=NOW - DAY + number * SECOND
        )
    RollingSummary.objects.create(conversation=factories.ConversationFactory(client=neighbour), due_at=NOW)
    summaries.summarise_due()
    assert not summaries.is_pending()
    assert neighbour.pk in written("conversation_summaries", "conversation_id")[:2]


def test_conversations_are_archived_in_turns(clients, monkeypatch):
    monkeypatch.setattr(archive, "BATCH", 2)
    shop, neighbour = clients
    for client, number in ((shop, 7), (neighbour, 1)):
        for _ in range(number):
            ended(client, remembered_at=NOW)
    moved: list[int] = []

    def neighbours(_what: str, _count: int) -> None:
        moved.append(Conversation.objects.filter(client=neighbour, status="archived").count())

    assert archive.archive(NOW, neighbours) == 8
    assert moved[1] == 1, "after the first batch of the shop at the latest"


def test_events_are_replayed_in_turns_those_of_nobody_as_well(clients, monkeypatch):
    shop, neighbour = clients
    for number, client in enumerate([shop] * 5 + [neighbour, None]):
        InboundEvent.objects.create(
            client=client, provider="orb", kind="x", reason="processing_failed", retry_at=NOW - DAY + number * SECOND
        )
    tried = InboundEvent.objects.filter(attempts=1)
    monkeypatch.setattr(replay, "RETRIED_AT_ONCE", 4)
    replay.retry_failed(NOW)
    assert tried.count() == 4
    assert {neighbour.pk, None} <= set(tried.values_list("client", flat=True))
    replay.retry_failed(NOW)
    assert tried.count() == 7
    replay.retry_failed(NOW)
    assert not InboundEvent.objects.filter(attempts__gt=1).exists()


def test_a_larger_weight_is_a_longer_turn():
    left = {"heavy": 6, "light": 6}

    def claim(name: str) -> str | None:
        left[name] -= 1
        return name if left[name] >= 0 else None

    turns: Iterator[str] = in_rotation(lambda: [("heavy", 2), ("light", 1)], claim)
    assert [next(turns) for _ in range(6)] == ["heavy", "heavy", "light"] * 2


def test_nothing_is_claimed_when_the_time_is_over():
    assert list(in_rotation(lambda: [("shop", 1)], lambda name: name, until=0)) == []
