"""The providers' lists of models: read within bounds, compared with the time before, and never a reason to give up."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from conversations import tasks
from conversations.models import Client, ModelProvider, ProviderModel
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import model_listing
from tests import factories
from tests.fakes.model_list import FakeModelList
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db

KEY = "sk-list"


@pytest.fixture
def fake() -> Any:
    """A server with two models."""
    with FakeModelList("gpt-6-luna", "gpt-4o-mini") as server:
        server.models["gpt-4o-mini"] = "2027-01-14"
        yield server


def compatible(fake: FakeModelList, **more: Any) -> ModelProvider:
    return factories.ModelProviderFactory(**{"kind": "openai_compatible", "base_url": fake.base_url, **more})


def printed(*arguments: str) -> str:
    out = io.StringIO()
    call_command("refresh_models", *arguments, stdout=out, stderr=io.StringIO())
    assert KEY not in out.getvalue()
    return out.getvalue()


def rows() -> dict[str, date | None]:
    return dict(ProviderModel.objects.values_list("model", "shutdown_date"))


def test_it_prints_what_is_new_what_is_gone_and_what_ends(fake: FakeModelList, db: Any) -> None:
    compatible(fake, name="House")
    said = printed()
    assert said == "House: 2 models.\n  new:  gpt-4o-mini, gpt-6-luna\n  ends on 2027-01-14: gpt-4o-mini\n"
    assert rows() == {"gpt-4o-mini": date(2027, 1, 14), "gpt-6-luna": None}
    assert printed() == "House: 2 models.\n  ends on 2027-01-14: gpt-4o-mini\n", "nothing is new twice"
    del fake.models["gpt-4o-mini"]
    fake.models["gpt-7"] = None
    assert printed() == "House: 2 models.\n  new:  gpt-7\n  gone: gpt-4o-mini\n"
    assert printed() == "House: 2 models.\n", "nothing is gone twice"


def test_a_dry_run_stores_nothing(fake: FakeModelList, db: Any) -> None:
    compatible(fake, name="House")
    assert "new:  gpt-4o-mini" in printed("--dry-run")
    assert rows() == {}


def test_what_was_learned_stays_and_a_date_may_change(fake: FakeModelList, shop: Client) -> None:
    provider = compatible(fake, client=shop)
    learned = {"tools": {"value": False, "at": "2026-11-29T10:00:00Z", "why": "unsupported"}}
    ProviderModel.objects.create(client=shop, provider=provider, model="gpt-4o-mini", learned=learned)
    first = timezone.now()
    model_listing.refresh(provider, first)
    fake.models["gpt-4o-mini"] = None
    model_listing.refresh(provider, first + timedelta(days=1))
    row = ProviderModel.objects.get(model="gpt-4o-mini")
    assert (row.learned, row.shutdown_date, row.client) == (learned, None, shop)
    assert (row.first_listed_at, row.last_listed_at) == (first, first + timedelta(days=1))


def test_models_that_are_long_gone_are_forgotten_unless_something_was_learned(fake: FakeModelList, db: Any) -> None:
    provider = compatible(fake)
    long_ago = timezone.now() - timedelta(days=31)
    of = {"provider": provider, "last_listed_at": long_ago}
    ProviderModel.objects.create(model="old", **of)
    ProviderModel.objects.create(model="known", learned={"tools": {"value": True}}, **of)
    model_listing.refresh(provider, timezone.now())
    assert set(rows()) == {"known", "gpt-4o-mini", "gpt-6-luna"}


def test_anthropic_gives_its_list_in_pages(db: Any) -> None:
    with FakeModelList(*(f"claude-{n}" for n in range(5)), page=2) as fake:
        factories.ModelProviderFactory(kind="anthropic", name="Anthropic", base_url=fake.url)
        assert printed().startswith("Anthropic: 5 models.\n")
        assert len(fake.requests) == 3
        assert fake.requests[0].headers["x-api-key"] == KEY
        assert all("authorization" not in request.headers for request in fake.requests)
    assert len(rows()) == 5


def test_it_sends_the_providers_own_headers_and_parameters(fake: FakeModelList, db: Any) -> None:
    fake.key = ""
    compatible(
        fake,
        credentials={},
        headers={"api-key": "azure-key"},
        base_url=f"{fake.base_url}/?api-version=2026-10-01",
        query={"team": "a b"},
    )
    printed()
    request = fake.requests[0]
    assert request.path == "/v1/models?api-version=2026-10-01&team=a+b"
    assert request.headers["api-key"] == "azure-key"
    assert "authorization" not in request.headers


def test_the_environments_provider_takes_key_and_address_from_there(
    fake: FakeModelList, db: Any, settings: Any
) -> None:
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = KEY, fake.base_url
    assert printed().startswith("Environment: 2 models."), "its row is made where nothing has needed it yet"
    row = ModelProvider.objects.get()
    assert row.from_environment
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = ""
    assert "create_model_provider" in printed(), "who is not configured is not asked"
    with pytest.raises(ConflictError, match="switched off or not configured"):
        model_listing.refresh(row, timezone.now())


def test_one_that_fails_does_not_stop_the_others(fake: FakeModelList, db: Any) -> None:
    compatible(fake, name="A wrong key", credentials={"api_key": "sk-wrong"})
    compatible(fake, name="B nobody", base_url="http://127.0.0.1:9/v1")
    compatible(fake, name="C works")
    compatible(fake, name="D switched off", is_active=False)
    said = printed()
    assert said.splitlines()[:3] == [
        "A wrong key: not read: it refuses the key (status 401).",
        "B nobody: not read: no connection, or it broke off.",
        "C works: 2 models.",
    ]
    assert "D switched off" not in said
    assert "sk-wrong" not in said


def test_it_fails_if_all_fail(fake: FakeModelList, db: Any) -> None:
    compatible(fake, name="House", credentials={"api_key": "sk-wrong"})
    with pytest.raises(CommandError, match="No model provider gave its list"):
        printed()
    with pytest.raises(CommandError, match="no active model provider 'Barn'"):
        printed("--provider", "Barn")


def test_without_providers_it_says_how_to_get_one(db: Any) -> None:
    assert "create_model_provider" in printed()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault(status=500), "it failed (status 500)"),
        (Fault(status=403), "the key may not read the list (status 403)"),
        (Fault(status=404), "it has no list of models (status 404)"),
        (Fault(status=302, headers={"Location": "http://127.0.0.1:9/"}), "it wants another address (status 302)"),
        (Fault(status=200, content=b"<html>"), "its answer is no list of models"),
        (Fault(status=200, content=b"[1]"), "its answer is no list of models"),
        (Fault(status=200, content={"data": {"id": "x"}}), "its answer is no list of models"),
        (Fault(status=200, content=b"[" * 100_000), "its answer is no list of models"),
        (Fault(status=200, content=b" " * (4 * 1024 * 1024 + 1)), "its list of models is too long"),
        (Fault(cut="before"), "no connection, or it broke off"),
        (Fault(cut="body"), "no connection, or it broke off"),
    ],
)
def test_a_bad_answer_changes_nothing(fake: FakeModelList, db: Any, fault: Fault, sentence: str) -> None:
    provider = compatible(fake, name="House")
    model_listing.refresh(provider, timezone.now())
    before = rows()
    fake.fail_next(fault)
    with pytest.raises(ConflictError) as caught:
        model_listing.refresh(provider, timezone.now())
    assert str(caught.value) == f"The list of House could not be read: {sentence}."
    assert rows() == before


def test_a_slow_answer_is_not_waited_for(fake: FakeModelList, db: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_listing, "SECONDS", 0.3)
    provider = compatible(fake)
    fake.fail_next(Fault(hang=30))
    with pytest.raises(ConflictError, match="could not be read"):
        model_listing.refresh(provider, timezone.now())


def test_strange_entries_are_left_out(fake: FakeModelList, db: Any) -> None:
    strange = [None, 7, "x", {}, {"id": None}, {"id": ""}, {"id": "x" * 101}, {"id": "a\x00b"}, {"id": "\ud800"}]
    strange += [{"id": "a\nb"}, {"id": ["x"]}, {"id": "odd", "shutdown_date": "soon"}, {"id": "odd"}]
    strange += [{"id": "number", "shutdown_date": 7}, {"id": "late", "shutdown_date": "2027-01-14T00:00:00Z"}]
    fake.fail_next(Fault(status=200, content=json.dumps({"data": strange}).encode()))
    model_listing.refresh(compatible(fake), timezone.now())
    assert rows() == {"odd": None, "number": None, "late": date(2027, 1, 14)}


def test_a_server_without_models_says_null(fake: FakeModelList, db: Any) -> None:
    fake.fail_next(Fault(status=200, content={"object": "list", "data": None}))
    assert model_listing.refresh(compatible(fake), timezone.now()).count == 0


def test_endless_lists_end(db: Any) -> None:
    with FakeModelList(*(f"model-{n}" for n in range(2_100))) as fake:
        assert model_listing.refresh(compatible(fake), timezone.now()).count == model_listing.MOST_MODELS
    with FakeModelList("claude-1") as fake:
        page = {"data": [{"id": "claude-1"}], "has_more": True, "last_id": "claude-1"}
        fake.fail_next(Fault(status=200, content=page), times=50)
        provider = factories.ModelProviderFactory(kind="anthropic", base_url=fake.url)
        assert model_listing.refresh(provider, timezone.now()).count == 1
        assert len(fake.requests) == 2, "a page that leads to itself is not read for ever"


def test_it_says_whose_provider_it_was(fake: FakeModelList, shop: Client) -> None:
    compatible(fake, name="House", client=shop)
    compatible(fake, name="House")
    assert {line for line in printed("--provider", "House").splitlines() if "models." in line} == {
        "House: 2 models.",
        "House (shop): 2 models.",
    }


@pytest.mark.django_db(transaction=True)
def test_two_refreshes_at_once_store_each_model_once(fake: FakeModelList, db: Any) -> None:
    fake.models |= {f"model-{n}": None for n in range(50)}
    provider = compatible(fake)

    def refresh(_: int) -> Any:
        try:
            return model_listing.refresh(provider, timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(refresh, range(12)))
    assert sorted(len(report.new) for report in reports) == [0] * 11 + [52]
    assert len(rows()) == 52
    assert not any(report.gone for report in reports)


def test_a_provider_that_is_deleted_meanwhile_is_reported(fake: FakeModelList, db: Any) -> None:
    provider = compatible(fake, name="House")
    [source] = model_listing.sources("House")
    provider.delete()
    report = model_listing._stored(source, {"gpt-7": None}, timezone.now(), dry_run=False)
    assert report.error == "it was deleted meanwhile"
    assert rows() == {}


def test_the_daily_task_reads_them_all(fake: FakeModelList, db: Any) -> None:
    compatible(fake)
    compatible(fake, credentials={"api_key": "sk-wrong"})
    tasks.refresh_models()
    assert set(rows()) == {"gpt-4o-mini", "gpt-6-luna"}
