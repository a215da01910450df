"""What waits, by client and kind: right numbers, read through indexes with one statement, each client's own only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import Client, Conversation, InboundEvent, Message, RollingSummary
from conversations.services.core.sql import rows
from conversations.services.jobs import backlog
from conversations.services.tenants import api_keys
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import sign_in
from tests.routes import WebServer, assert_failure

pytestmark = pytest.mark.django_db

EVERYTHING = {"replies": 1, "sends": 1, "summaries": 1, "remembering": 1, "archiving": 1, "events": 1}
METRICS = {"Authorization": "Bearer a-metrics-key"}
INDEXES = (
    "reply_owed",
    "messages_queued",
    "to_be_summarised",
    "to_be_remembered",
    "to_be_archived",
    "events_to_retry",
)


@pytest.fixture
def metrics_key(settings: Any) -> None:
    settings.METRICS_KEY = "a-metrics-key"


def leave_everything_waiting(*doors: Door) -> None:
    """One of each kind waits at each client, the reply for five minutes."""
    for door in doors:
        door.says("Hello", user_id="ann")
    reply_to_all()
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=40))
    for door in doors:
        _leave_the_rest_waiting(door)


def _leave_the_rest_waiting(door: Door) -> None:
    now = timezone.now()
    door.says("Hello", user_id="ben")
    waits = Conversation.objects.filter(client=door.shop, reply_owed=True)
    waits.update(reply_due_at=now - timedelta(minutes=5))
    RollingSummary.objects.create(conversation=waits.get(), due_at=now)
    ended: dict[str, Any] = {"client": door.shop, "status": "closed", "ended_by": "user", "ended_at": now}
    factories.ConversationFactory(**ended, remember_due_at=now)
    long_ago = now - door.shop.archive_after - timedelta(hours=1)
    factories.ConversationFactory(**ended | {"ended_at": long_ago}, remembered_at=long_ago)
    factories.ConversationFactory(**ended, remembered_at=now)  # its archiving is not due
    InboundEvent.objects.create(client=door.shop, provider="whatsapp", kind="message", reason="processing_failed")
    InboundEvent.objects.create(client=door.shop, provider="whatsapp", kind="message", reason="unknown_type")


def counts(waiting: Any) -> dict[str, int]:
    return {kind: each["count"] for kind, each in waiting.items()}


def ask(headers: dict[str, str]) -> Any:
    answer = WebServer().call("GET", "/health/backlog", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json["data"]


def test_the_metrics_key_shows_what_waits_at_each_client(
    door: Door, neighbour: Client, neighbours_key: str, metrics_key: None
) -> None:
    assert ask(METRICS)["clients"] == []
    leave_everything_waiting(door, Door(neighbour, neighbours_key))
    found = ask(METRICS)
    assert counts(found["total"]) == dict.fromkeys(EVERYTHING, 2)
    assert {each["client_id"]: counts(each["waiting"]) for each in found["clients"]} == {
        str(door.shop.pk): EVERYTHING,
        str(neighbour.pk): EVERYTHING,
    }
    assert {each["sub_domain"] for each in found["clients"]} == {door.shop.sub_domain, neighbour.sub_domain}
    assert 300 <= found["total"]["replies"]["oldest_seconds"] < 360
    assert 40 <= found["total"]["sends"]["oldest_seconds"] < 100
    assert 3600 <= found["total"]["archiving"]["oldest_seconds"] < 3660
    assert found["complete"]


def test_a_client_s_key_shows_its_own_only(door: Door, neighbour: Client, neighbours_key: str) -> None:
    leave_everything_waiting(Door(neighbour, neighbours_key))
    assert counts(ask({"X-Service-API-Key": door.key})["total"]) == dict.fromkeys(EVERYTHING, 0)
    leave_everything_waiting(door)
    found = ask({"X-Service-API-Key": door.key})
    assert counts(found["total"]) == EVERYTHING
    assert [each["client_id"] for each in found["clients"]] == [str(door.shop.pk)]


@pytest.mark.parametrize("key", ["a-metrics-key", ""])
@pytest.mark.parametrize("sent", ["wrong", "", "a-metrics-ke", "ä", "\x00"])
def test_no_other_key_shows_anything(shop: Client, settings: Any, key: str, sent: str) -> None:
    settings.METRICS_KEY = key
    for headers in ({"Authorization": f"Bearer {sent}"}, {"Authorization": f"Basic {key}"}, {}):
        answer = WebServer().call("GET", "/health/backlog", headers=headers)
        assert_failure(answer, 401)


def test_a_revoked_key_shows_nothing(shop: Client, metrics_key: None) -> None:
    row, key = api_keys.create_api_key(shop)
    api_keys.revoke(row.pk)
    assert_failure(WebServer(key=key).call("GET", "/health/backlog"), 401)


def test_events_of_nobody_are_shown_to_the_metrics_key(metrics_key: None) -> None:
    InboundEvent.objects.create(provider="whatsapp", kind="message", reason="processing_failed")
    [nobodys] = ask(METRICS)["clients"]
    assert (nobodys["client_id"], nobodys["waiting"]["events"]["count"]) == (None, 1)


def test_a_hold_keeps_a_conversation_from_waiting_for_the_archive(door: Door) -> None:
    leave_everything_waiting(door)
    Conversation.objects.update(hold_reason="a lawsuit")
    assert ask({"X-Service-API-Key": door.key})["total"]["archiving"]["count"] == 0


def test_it_counts_to_a_bound_and_says_when_it_did_not_read_all(
    door: Door, monkeypatch: pytest.MonkeyPatch, metrics_key: None
) -> None:
    monkeypatch.setattr(backlog, "MOST_COUNTED", 2)
    for number in range(4):
        door.says("Hello", user_id=f"ann {number}")
    Conversation.objects.update(reply_due_at=timezone.now() - timedelta(minutes=2))
    found = ask(METRICS)
    assert (found["total"]["replies"]["count"], found["total"]["replies"]["more"]) == (2, True)
    assert found["complete"]
    monkeypatch.setattr(backlog, "MOST_READ", 3)
    assert not ask(METRICS)["complete"]


def test_a_flood_at_one_client_hides_nothing_of_another(
    door: Door, neighbour: Client, neighbours_key: str, monkeypatch: pytest.MonkeyPatch, metrics_key: None
) -> None:
    monkeypatch.setattr(backlog, "MOST_READ", 3)
    flooded, other = sorted((door, Door(neighbour, neighbours_key)), key=lambda each: each.shop.pk)
    for number in range(9):
        flooded.says("Hello", user_id=f"ann {number}")
    Conversation.objects.update(reply_due_at=timezone.now() - timedelta(minutes=2))
    leave_everything_waiting(other)
    Conversation.objects.filter(client=flooded.shop).update(reply_owed=True, reply_due_at=timezone.now())
    found = ask(METRICS)
    waiting = {each["client_id"]: counts(each["waiting"]) for each in found["clients"]}
    assert waiting[str(other.shop.pk)] == EVERYTHING
    assert waiting[str(flooded.shop.pk)]["replies"] == 3
    assert not found["complete"]
    own = ask({"X-Service-API-Key": other.key})
    assert own["total"]["replies"]["oldest_seconds"] >= 300
    assert own["complete"], "another's flood leaves nothing of its own unread"


def test_summaries_that_were_not_all_read_are_said_to_be_incomplete(
    door: Door, neighbour: Client, neighbours_key: str, monkeypatch: pytest.MonkeyPatch, metrics_key: None
) -> None:
    leave_everything_waiting(door, Door(neighbour, neighbours_key))
    assert ask(METRICS)["complete"]
    monkeypatch.setattr(backlog, "MOST_READ", 2)
    InboundEvent.objects.all().delete()
    Message.objects.all().delete()
    assert not ask(METRICS)["complete"], "two clients have one each"


def test_the_dashboard_shows_the_same_to_the_client_s_staff(door: Door, neighbour: Client, neighbours_key: str) -> None:
    for number in range(2):
        Door(neighbour, neighbours_key).says("Hello", user_id=f"ann {number}")
    leave_everything_waiting(door)
    page = sign_in("vera", door.shop, "viewer").get("/admin/")
    shown = {number.name: number.value for number in page.context["waiting"]}
    assert shown == {
        "For a person": "0",
        **dict.fromkeys(("Due replies", "Unsent messages", "Summaries"), "1"),
        **dict.fromkeys(("To be remembered", "To be archived", "Events to process"), "1"),
    }
    assert {number.name for number in page.context["waiting"] if number.alarming} == {"Due replies"}


def test_one_statement_reads_it_through_indexes_of_what_waits(door: Door, metrics_key: None) -> None:
    leave_everything_waiting(door)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = "\n".join(line for (line,) in rows(f"EXPLAIN {backlog._statement()}", timezone.now()))
    assert [index for index in INDEXES if index not in plan] == [], plan
    with CaptureQueriesContext(connection) as seen:
        ask(METRICS)
    assert len(seen) == 1
