"""What goes by the clock, by HTTP: only with the secret, and not at all where there is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Chunk, Conversation
from conversations.services.retention import retention
from tests import factories
from tests.routes import WebServer, assert_failure

pytestmark = pytest.mark.django_db
ROUTES = ["/cron/sweep", "/cron/cleanup"]


@pytest.fixture
def secret(settings: Any) -> dict[str, str]:
    settings.CRON_SECRET = "a-secret"
    return {"Authorization": "Bearer a-secret"}


@pytest.mark.parametrize("path", ROUTES)
def test_there_is_no_route_without_a_secret(path: str, settings: Any) -> None:
    settings.CRON_SECRET = ""
    for shown in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
        assert_failure(WebServer().call("POST", path, headers=shown), 404, code="not_found")


@pytest.mark.parametrize("path", ROUTES)
def test_only_the_secret_opens(path: str, secret: dict[str, str]) -> None:
    for shown in ({}, {"Authorization": "Bearer another"}, {"Authorization": "Basic a-secret"}, {"X-Key": "a-secret"}):
        assert_failure(WebServer().call("POST", path, headers=shown), 401, code="not_authenticated")
    assert_failure(WebServer().call("DELETE", path, headers=secret), 405)
    for method in ("GET", "POST"):
        assert WebServer().call(method, path, headers=secret).json["success"] is True


def test_web_sessions_are_deleted_after_thirty_idle_days(secret: dict[str, str]) -> None:
    old = factories.ConversationFactory(channel="web", thread="1", aged=timedelta(days=30, minutes=1))
    Chunk.objects.create(conversation=old, position=1, role="user", content="Hello")
    kept = [
        factories.ConversationFactory(channel="web", thread="2", aged=timedelta(days=29, hours=23)),
        factories.ConversationFactory(channel="sms", aged=timedelta(days=400)),
    ]
    answer = WebServer().call("GET", "/cron/cleanup", headers=secret)
    assert answer.json["data"]["web_sessions"] == 1
    kept_words = {"guest_sessions", "web_sessions", "sessions", "memories", "turns", "receipts", "inbound_events"}
    assert kept_words <= answer.json["data"].keys(), "what monitors read"
    assert set(Conversation.objects.values_list("pk", flat=True)) == {each.pk for each in kept}
    assert not Chunk.objects.exists()
    assert retention.clean_up(timezone.now()).web_sessions == 0


def test_a_sweep_ages_what_is_due(secret: dict[str, str]) -> None:
    session = factories.ConversationFactory(aged=timedelta(minutes=11))
    assert WebServer().call("POST", "/cron/sweep", headers=secret).json["data"]["stale"] == 1
    session.refresh_from_db()
    assert session.status == "stale"
