"""The main job in a cluster. These run where CITUS_DATABASE_URL names a coordinator, and so do all other tests then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from conversations.models import Chunk, Client, Message
from conversations.services.jobs import backlog, sweep
from conversations.services.tenants import servers
from tests.citus.places import ONLY_IN_CLUSTER
from tests.conftest import Door, reply_to_all, send_all

pytestmark = ONLY_IN_CLUSTER


def test_every_table_is_placed_and_a_second_run_does_nothing(db: Any) -> None:
    assert servers.placing().to_do() == []
    assert servers.distribute() == 0


def test_a_message_is_stored_answered_and_sent_once(shop: Client, door: Door) -> None:
    first = door.says("Hello", message_id="m1")
    again = door.says("Hello", message_id="m1")
    assert (again["duplicate"], again["conversation_id"]) == (True, first["conversation_id"])
    assert backlog.backlog(None, timezone.now()).total["replies"].count == 1

    assert reply_to_all() == 1
    assert send_all() == 1

    assert [c.role for c in Chunk.objects.filter(client=shop).order_by("position")][2:] == ["user", "ai"]
    assert Message.objects.get(client=shop).status == "delivered"


def test_a_sweep_ages_what_is_silent(door: Door) -> None:
    pk = door.says("Hello")["conversation_id"]
    report = sweep.sweep(timezone.now() + timedelta(minutes=11))
    assert report.stale == 1
    assert door.get(f"/conversations/{pk}")["status"] == "stale"
