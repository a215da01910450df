"""`/metrics`: for METRICS_KEY alone, with the counts of what was done and what waits by client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from conversations.http.counted import route_of
from conversations.models import Client, SendCircuit
from conversations.services.events import deliveries, endpoints
from conversations.services.events.numbering import number_all
from conversations.services.jobs import sweep
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.routes import WebServer, assert_failure

pytestmark = pytest.mark.django_db


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The values, by name and the labels' values in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(settings: Any) -> dict[tuple[str, ...], float]:
    settings.METRICS_KEY = "a-key"
    answer = WebServer().call("GET", "/metrics", headers={"Authorization": "Bearer a-key"})
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("text/plain")
    return samples(answer.body.decode())


def test_it_is_there_for_those_with_the_key_alone(server: WebServer, settings: Any) -> None:
    settings.METRICS_KEY = ""
    assert_failure(server.call("GET", "/metrics"), 404)
    settings.METRICS_KEY = "a-key"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a-key"}):
        assert_failure(server.call("GET", "/metrics", headers=headers), 401)
    assert_failure(server.call("GET", "/metrics"), 401)  # with an API key


def test_what_is_done_is_counted(door: Door, settings: Any) -> None:
    before = read(settings)
    for number in range(3):
        door.says(f"Hello {number}")
    reply_to_all()
    send_all()
    number_all()
    factories.ConversationFactory(client=door.shop, aged=timedelta(hours=2))
    sweep.sweep(timezone.now())
    after = read(settings)

    def grown(*name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown("convo_events_total", "message.in") == 3
    assert grown("convo_events_total", "message.out") == 1
    assert grown("convo_turns_total", "", "offline", "committed") == 1
    assert grown("convo_sends_total", "", "sandbox") == 1
    assert grown("convo_sweeps_total") == 1
    assert grown("convo_sweep_seconds_count") == 1
    assert {what: grown("convo_swept_total", what) for what in ("stale", "expired")} == {"stale": 1, "expired": 0}
    assert grown("convo_database_seconds_count", "thread") > 10


def test_what_waits_is_read_from_rows(door: Door, neighbour: Client, settings: Any) -> None:
    door.says("Hello")
    endpoint, _ = endpoints.create_endpoint(door.shop, "https://example.com/events")
    door.says("Hello again")
    number_all()
    now = read(settings)
    assert now["convo_waiting", "shop", "replies"] == 1
    assert now["convo_waiting_oldest_seconds", "shop", "replies"] >= 0
    assert now["convo_waiting", "shop", "events_out"] >= 1
    assert not [name for name in now if "neighbour" in name]
    account = door.shop.channel_accounts.filter(channel="sms").get()
    SendCircuit.objects.create(
        channel_account=account, client=door.shop, opened_at=timezone.now(), probe_at=timezone.now(), failures=3
    )
    posts = deliveries.claim(timezone.now(), {}, 1)
    deliveries.record([deliveries.Outcome(posts[0].delivery_id, endpoint.pk, 410, "gone")], timezone.now())
    later = read(settings)
    assert later["convo_circuits_open", "sandbox"] == 1
    assert later["convo_event_endpoints_in_trouble", "shop", "paused"] == 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/webhooks/sms/inbound", "/webhooks/sms/inbound"),
        ("/webhooks/nonsense/inbound", "/webhooks"),
        ("/conversations", "/conversations"),
        ("/conversations/0197a1c4-11f2-7b0d-8c55-6a3e90d1f2b4", "/conversations/{id}"),
        ("/conversations/0197a1c4-11f2-7b0d-8c55-6a3e90d1f2b4/send", "/conversations/{id}/…"),
        ("/api/v1/conversations/user/+51999999999", "/api"),
        ("/wp-login.php", "other"),
        ("/", "/"),
        ("//", "other"),
    ],
)
def test_a_label_names_no_person_and_nothing_that_strangers_invent(path: str, route: str) -> None:
    assert route_of(path) == route
