"""Quotas of a client: how many messages its programs may pass on in a minute, and how many replies are in flight."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import Chunk, Client
from conversations.services.core.slots import Slots
from conversations.services.replies import leases
from conversations.services.tenants import quotas
from tests.conversations.own_json import Program
from tests.conversations.test_fair_claims import owing
from tests.routes import assert_failure

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, in seconds, a quarter past the beginning of a minute."""
    found = SimpleNamespace(now=1_800_000_015.0)
    monkeypatch.setattr(quotas, "time", SimpleNamespace(time=lambda: found.now))
    return found


@pytest.fixture
def limited(program: Program) -> Program:
    """The shop's program may pass on three messages a minute."""
    Client.objects.filter(pk=program.client_id).update(messages_per_minute=3)
    return program


def test_more_messages_than_its_quota_are_refused_until_the_next_minute(limited, clock):
    for _ in range(3):
        limited.says()
    answer = limited.passes_on()
    assert_failure(answer, 429, "rate_limited")
    assert answer.headers["Retry-After"] == "45"
    assert Chunk.objects.filter(role="user").count() == 3, "it is not stored"
    clock.now += 45
    for _ in range(3):
        limited.says()
    assert limited.passes_on().status == 429


def test_conversations_that_are_opened_count_as_well(limited):
    for user in ("ann", "bea", "cid"):
        limited.says(user_id=user)
    assert limited.passes_on(user_id="dan").status == 429


def test_a_client_that_uses_its_quota_up_is_refused_alone(limited, neighbour, neighbours_key):
    for _ in range(3):
        limited.says()
    assert limited.passes_on().status == 429
    other = Program(limited.server, neighbour.pk, neighbours_key)
    for _ in range(5):
        other.says()


def test_a_stranger_uses_nobody_s_quota_up_and_learns_nothing_of_it(limited, neighbours_key):
    for key in ("convo_wrong", neighbours_key):
        stranger = Program(limited.server, limited.client_id, key)
        before = [stranger.passes_on().status for _ in range(5)]
        for _ in range(3 if key == "convo_wrong" else 0):
            limited.says()
        assert [stranger.passes_on().status for _ in range(5)] == before
    assert limited.passes_on().status == 429


def test_what_is_refused_for_another_reason_does_not_count(limited):
    for _ in range(5):
        assert limited.passes_on("").status == 400
    for _ in range(3):
        limited.says()


def test_the_quota_costs_an_append_no_statement(limited):
    limited.says()
    with CaptureQueriesContext(connection) as seen:
        limited.says()
    assert [query for query in seen.captured_queries if "messages_per_minute" in query["sql"].split("FROM")[0]] == []


def test_no_more_replies_are_in_flight_than_the_client_may_have(shop, neighbour):
    Client.objects.filter(pk=shop.pk).update(replies_at_once=2)
    slots = Slots(100)
    owing(shop, 5)
    first = leases.claim(timezone.now(), slots)
    assert len(first) == 2
    assert leases.claim(timezone.now(), slots) == []
    owing(neighbour, 5)
    assert len(leases.claim(timezone.now(), slots)) == 5
    slots.let_go(first[0].turn_id)
    assert len(leases.claim(timezone.now(), slots)) == 1
