"""Models that end: staff are told 60 days before on the dashboard and on the assistant, and see only their own."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from conversations.admin.access import Role
from conversations.models import Assistant, Client, ProviderModel
from conversations.services.tenants import model_endings
from conversations.services.tenants.model_endings import endings, endings_of
from tests import factories
from tests.conversations.staff import signed_in, staff, superuser

pytestmark = pytest.mark.django_db

SHUTDOWN = date(2027, 1, 14)  # gpt-4o-mini's, by the catalogue


@pytest.fixture(autouse=True)
def _key(settings: Any) -> None:
    settings.OPENAI_API_KEY = "sk-environment"
    settings.OPENAI_MODEL = "gpt-6-luna"


def uses(client: Client, model: str, **more: Any) -> Assistant:
    return factories.AssistantFactory(client=client, is_default=False, engine="auto", model=model, **more)


def said(client_ids: Any, today: date) -> list[str]:
    return [ending.sentence for ending in endings(client_ids, today)]


def test_it_tells_sixty_days_before_and_after_it_has_ended(shop: Client) -> None:
    uses(shop, "gpt-4o-mini")
    assert said([shop.pk], SHUTDOWN - timedelta(days=61)) == []
    notice = "gpt-4o-mini ends on 14 January 2027. 1 assistant uses it. Use gpt-6-luna instead."
    assert said([shop.pk], SHUTDOWN - timedelta(days=60)) == [notice]
    over = "gpt-4o-mini ended on 14 January 2027. 1 assistant uses it. Use gpt-6-luna instead."
    assert said([shop.pk], SHUTDOWN) == [over]
    assert said([shop.pk], SHUTDOWN + timedelta(days=400)) == [over]


def test_the_providers_own_date_comes_before_the_catalogues(shop: Client) -> None:
    house = factories.ModelProviderFactory(client=shop, name="House")
    uses(shop, "gpt-4o-mini", model_provider=house)
    ProviderModel.objects.create(provider=house, client=shop, model="gpt-4o-mini", shutdown_date=date(2026, 12, 24))
    assert said([shop.pk], date(2026, 12, 1)) == [
        "gpt-4o-mini at House ends on 24 December 2026. 1 assistant uses it. Use gpt-6-luna instead."
    ]
    uses(shop, "house-model", model_provider=house)
    ProviderModel.objects.create(provider=house, client=shop, model="house-model", shutdown_date=date(2026, 12, 2))
    assert said([shop.pk], date(2026, 12, 1))[0] == (
        "house-model at House ends on 2 December 2026. 1 assistant uses it. Choose another model."
    )


def test_second_models_and_summaries_count(shop: Client) -> None:
    uses(shop, "gpt-6-luna", fallback_model="gpt-4o-mini")
    uses(shop, "gpt-4o-mini")
    anthropic = factories.ModelProviderFactory(kind="anthropic", name="Claude")
    uses(shop, "gpt-6-luna", fallback_provider=anthropic, fallback_model="claude-opus-4-5-20251101")
    shop.summary_model = "gpt-4o-mini"
    shop.save()
    assert said([shop.pk], date(2027, 1, 2)) == [
        "gpt-4o-mini ends on 14 January 2027. 2 assistants and 1 client use it. Use gpt-6-luna instead.",
        "claude-opus-4-5-20251101 at Claude ends on 22 January 2027. 1 assistant uses it. Use claude-opus-5-5 instead.",
    ]


def test_the_default_model_counts_for_who_uses_it_and_for_superusers(shop: Client, settings: Any) -> None:
    settings.OPENAI_MODEL = "gpt-4o"
    assert said([shop.pk], date(2027, 1, 2)) == [], "its assistant is offline"
    assert said(None, date(2027, 1, 2)) == ["gpt-4o ends on 14 January 2027. Use gpt-6-luna instead."]
    uses(shop, "")
    [notice] = said([shop.pk], date(2027, 1, 2))
    assert "1 assistant uses it" in notice
    settings.OPENAI_API_KEY = ""
    assert said(None, date(2027, 1, 2)) == [], "nobody is asked: the installation has no provider"


def test_assistants_that_ask_no_model_do_not_count(shop: Client, neighbour: Client) -> None:
    uses(shop, "gpt-4o-mini").delete()
    places = {"retell_agent_id": "agent_1", "agent_url": "https://agent.example/"}
    for engine in ("offline", "retell", "agent"):
        factories.AssistantFactory(client=shop, is_default=False, engine=engine, model="gpt-4o-mini", **places)
    uses(neighbour, "gpt-4o-mini")
    Client.objects.filter(pk=neighbour.pk).update(is_active=False)
    assert said(None, date(2027, 1, 2)) == []


def test_the_environments_row_and_the_environment_are_one_provider(shop: Client) -> None:
    row = factories.ModelProviderFactory(name="OpenAI", from_environment=True, credentials={})
    uses(shop, "gpt-4o-mini")
    uses(shop, "gpt-4o-mini", model_provider=row)
    ProviderModel.objects.create(provider=row, model="gpt-4o-mini", shutdown_date=date(2027, 1, 3))
    [notice] = said([shop.pk], date(2027, 1, 2))
    assert notice == "gpt-4o-mini ends on 3 January 2027. 2 assistants use it. Use gpt-6-luna instead."


def test_tenants_see_only_their_own(shop: Client, neighbour: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_endings, "NOTICE", timedelta(days=20_000))
    house = factories.ModelProviderFactory(client=neighbour, name="Neighbours House")
    uses(neighbour, "gpt-4o-mini", model_provider=house)
    uses(shop, "gpt-4o")
    index = reverse("admin:index")
    ann = signed_in(staff("ann", shop=Role.VIEWER)).get(index).content.decode()
    assert "gpt-4o ends on 14 January 2027" in ann or "gpt-4o ended on 14 January 2027" in ann
    assert "gpt-4o-mini" not in ann
    assert "Neighbours House" not in ann
    boss = signed_in(superuser()).get(index).content.decode()
    assert "gpt-4o-mini at Neighbours House" in boss


def test_the_assistants_page_says_so(shop: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_endings, "NOTICE", timedelta(days=20_000))
    assistant = uses(shop, "gpt-4o-mini", fallback_model="gpt-4.1")
    page = reverse("admin:conversations_assistant_change", args=[assistant.pk])
    for role in (Role.VIEWER, Role.MANAGER):
        shown = signed_in(staff(role, shop=role)).get(page).content.decode()
        assert shown.count("Use gpt-6-luna instead.") == 2
        assert "gpt-4.1 end" in shown
    fine = uses(shop, "gpt-6-luna")
    page = reverse("admin:conversations_assistant_change", args=[fine.pk])
    assert "instead." not in signed_in(superuser()).get(page).content.decode()
    assert endings_of(factories.AssistantFactory(client=shop, is_default=False, model="gpt-4o"), SHUTDOWN) == []


def test_two_queries_are_enough_however_many_use_models(shop: Client) -> None:
    for number in range(3):
        with CaptureQueriesContext(connection) as seen:
            found = endings(None, date(2027, 1, 2))
        assert len(seen) == 2, seen.captured_queries
        assert len(found) == 2 * number
        house = factories.ModelProviderFactory(client=shop, name=f"House {number}")
        for _ in range(5):
            uses(shop, "gpt-4.1-nano", model_provider=house, fallback_model="gpt-4o-mini")
