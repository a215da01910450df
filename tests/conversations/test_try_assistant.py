"""Trying an assistant in the admin: within limits of each user, and with no connection held while models answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from channels_out import mcp_tools
from conversations.admin.access import Role
from conversations.models import Assistant
from conversations.services.core.errors import TooManyError
from conversations.services.replies import trying
from conversations.services.replies.trying import Check
from conversations.services.tenants import tools
from tests.conversations.staff import signed_in, staff
from tests.fakes.openai import FakeOpenAI

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(shop: Any, settings: Any) -> Iterator[FakeOpenAI]:
    """A model that writes the shop's replies."""
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


@pytest.fixture
def boss(shop: Any) -> HttpClient:
    """A manager of the shop's."""
    return signed_in(staff("ann", shop=Role.MANAGER))


def tried(boss: HttpClient) -> Any:
    assistant = Assistant.objects.get()
    return boss.post(reverse("admin:conversations_assistant_try_check", args=[assistant.pk, Check.TEXT]))


def test_a_user_runs_so_many_checks_an_hour(boss, model, monkeypatch):
    monkeypatch.setattr(trying, "CHECKS_AN_HOUR", 2)
    assert [tried(boss).status_code for _ in range(3)] == [200, 200, 429]
    answer = tried(boss)
    assert "You have run 2 checks within an hour. Go on in 60 minutes." in answer.content.decode()
    assert int(answer["Retry-After"]) > 3_000
    assert len(model.requests) == 2


def test_a_user_runs_one_check_at_a_time(boss, model):
    ann, bea = 1, 2
    with trying.within_limits(ann, timezone.now()):
        with (
            pytest.raises(TooManyError, match="Another check of yours is running"),
            trying.within_limits(ann, timezone.now()),
        ):
            pass
        with trying.within_limits(bea, timezone.now()):
            pass
    with pytest.raises(ValueError, match="crash"), trying.within_limits(ann, timezone.now()):
        raise ValueError("crash")
    with trying.within_limits(ann, timezone.now()):
        pass


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_a_model_answers(boss, model, monkeypatch):
    held = []
    complete = trying.asking.complete

    def watched(*given: Any) -> Any:
        held.append(connection.connection is not None)
        return complete(*given)

    monkeypatch.setattr(trying.asking, "complete", watched)
    assert tried(boss).status_code == 200
    assert held == [False]


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_an_mcp_server_lists_its_tools(shop, monkeypatch):
    held = []
    monkeypatch.setattr(mcp_tools, "list_tools", lambda request: held.append(connection.connection is not None) or [])
    server = tools.create_mcp_server(shop, "crm", url="https://crm.example/mcp")
    assert tools.list_tools(server, timezone.now()) == []
    assert held == [False]
