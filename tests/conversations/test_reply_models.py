"""The model of a reply: the assistant's provider, the installation's, and what was learned of either."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.engines.registry import ask
from conversations.models import Assistant, Chunk, Conversation, ModelProvider, ProviderModel, Turn
from conversations.services.replies import leases, pipeline, prompt_records
from conversations.services.tenants import model_providers
from memory.language_models.contract import Fact
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.fakes.openai import FakeOpenAI
from tests.races.threads import together

pytestmark = pytest.mark.django_db

KEY = "sk-of-the-shop"


@pytest.fixture
def model(shop: Any, settings: Any) -> Any:
    """The installation's model, which writes the shop's replies."""
    Assistant.objects.filter(client=shop).update(engine="auto", model="tiny", temperature=0.2, max_tokens=300)
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


@pytest.fixture
def own(shop: Any) -> Any:
    """A provider of the shop's own, which its assistant names."""
    with FakeOpenAI(api_key=KEY) as fake:
        provider = ModelProvider.objects.create(
            client=shop,
            name="Own",
            kind="openai_compatible",
            base_url=f"{fake.base_url}/?api-version=2026-10-01",
            credentials={"api_key": KEY},
            headers={"X-Team": "shop"},
            query={"region": "eu"},
            body={"temperature": 1, "max_completion_tokens": 77},
        )
        Assistant.objects.filter(client=shop).update(engine="openai", model_provider=provider, model="large")
        yield fake


def refuse(fake: FakeOpenAI, name: str) -> None:
    """Let the next request be refused because of the parameter of that name."""
    error = {"message": f"Unsupported parameter: '{name}'.", "param": name, "code": "unsupported_parameter"}
    fake.then("status", status=400, body=json.dumps({"error": error}))


def queries_of_prepare() -> tuple[list[str], Any]:
    """Claim the reply that is due and prepare it; return its statements, and what it prepared."""
    [claim] = leases.claim(timezone.now(), 1)
    with CaptureQueriesContext(connection) as seen:
        prepared = pipeline.prepare(claim)
    return [query["sql"] for query in seen.captured_queries], prepared


# --- the installation's provider -------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_the_row_of_the_settings_provider_is_made_once_by_whoever_comes_first(settings: Any) -> None:
    settings.OPENAI_BASE_URL = "http://127.0.0.1:9/v1"
    for name in ("", model_providers.ENVIRONMENT):  # the second time somebody has the name already
        ModelProvider.objects.all().delete()
        if name:
            ModelProvider.objects.create(name=name, kind="openai")
        accesses = together(*[lambda: model_providers.accesses_of(None)] * 20)
        row = ModelProvider.objects.get(from_environment=True)
        assert {access.provider_id for [access] in accesses} == {row.pk}
        assert (row.client_id, row.kind, row.base_url, row.credentials) == (None, "openai_compatible", "", {})


def test_the_settings_provider_keeps_neither_key_nor_address(door: Door, model: FakeOpenAI, settings: Any) -> None:
    settings.OPENAI_API_KEY = model.api_key = "sk-secret-1234"
    door.says("Hello")
    reply_to_all()
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(p)::text FROM model_providers p")
        [(row,)] = cursor.fetchall()
    assert "sk-secret-1234" not in row
    assert "127.0.0.1" not in row
    assert model.requests[0].headers["authorization"] == "Bearer sk-secret-1234"
    assert Chunk.objects.get(role="ai").content == "You said: Hello"


def test_a_settings_provider_that_is_switched_off_is_not_asked(door: Door, model: FakeOpenAI) -> None:
    model_providers.environment_provider()
    ModelProvider.objects.update(is_active=False)
    door.says("Hello")
    reply_to_all()
    assert model.requests == []
    assert Turn.objects.get().engine == "offline"


# --- what is learned -------------------------------------------------------------------------------------------------
def test_what_a_reply_taught_is_kept_with_it_and_used_by_the_next(door: Door, model: FakeOpenAI) -> None:
    refuse(model, "max_tokens")
    refuse(model, "temperature")
    door.says("Hello")
    assert reply_to_all() == 1
    assert Chunk.objects.get(role="ai").content == "You said: Hello", "the person notices nothing"
    learned = ProviderModel.objects.get(provider__from_environment=True, model="tiny").learned
    assert {name: (fact["value"], fact["why"]) for name, fact in learned.items()} == {
        "max_tokens_name": ("max_completion_tokens", "max_tokens"),
        "omits.temperature": (True, "temperature"),
    }
    assert all(fact["at"] for fact in learned.values())

    door.says("And again")
    assert reply_to_all() == 1
    [asked] = model.requests[3:]
    assert asked.body["max_completion_tokens"] == 300
    assert not {"max_tokens", "temperature"} & set(asked.body)


def test_what_a_failure_taught_is_kept_as_well(door: Door, model: FakeOpenAI) -> None:
    refuse(model, "temperature")
    model.then("status", status=503)
    door.says("Hello")
    reply_to_all()
    assert Turn.objects.get().code == "http_503"
    assert list(ProviderModel.objects.get().learned) == ["omits.temperature"]

    Conversation.objects.update(reply_due_at=timezone.now())
    reply_to_all()
    assert len(model.requests) == 3, "the parameter is not tried again"
    assert "temperature" not in model.requests[2].body


def test_facts_of_one_model_say_nothing_of_another_or_of_another_provider(shop: Any, model: FakeOpenAI) -> None:
    first = model_providers.environment_provider()
    other = ModelProvider.objects.create(client=shop, name="Other", kind="openai_compatible", base_url=model.base_url)
    [access] = model_providers.accesses_of(Assistant.objects.get(client=shop))
    model_providers.learn(access, [Fact("tools", False, "tools")])
    assistant = Assistant.objects.get(client=shop)
    assert model_providers.accesses_of(assistant)[0].known == {"tools": False}
    assert model_providers.accesses_of(assistant, model="large")[0].known == {}
    assistant.model_provider = other
    assert model_providers.accesses_of(assistant)[0].known == {}
    assert model_providers.forget(first) == 1
    assistant.model_provider = None
    assert model_providers.accesses_of(assistant)[0].known == {}


@pytest.mark.django_db(transaction=True)
def test_what_replies_learn_at_the_same_moment_is_all_kept(shop: Any, model: FakeOpenAI) -> None:
    [access] = model_providers.accesses_of(Assistant.objects.get(client=shop))
    jobs = [lambda n=n: model_providers.learn(access, [Fact(f"omits.p{n}", True, "x")]) for n in range(20)]
    together(*jobs)
    assert len(ProviderModel.objects.get().learned) == 20


def test_the_model_costs_a_prompt_one_query_known_or_not(door: Door, model: FakeOpenAI) -> None:
    Assistant.objects.update(engine="offline")
    door.says("Hello", user_id="bob")
    before, (request, _) = queries_of_prepare()
    assert request.models == ()

    Assistant.objects.update(engine="auto")
    model_providers.environment_provider()
    door.says("Hello", user_id="ann")
    fresh, (request, _) = queries_of_prepare()
    assert len(fresh) == len(before) + 1
    assert request.models[0].known == {}

    model_providers.learn(request.models[0], [Fact("tools", False, "tools")])
    door.says("Hello", user_id="eve")
    known, (request, _) = queries_of_prepare()
    assert len(known) == len(before) + 1
    assert request.models[0].known == {"tools": False}


def test_a_reply_that_teaches_nothing_writes_nothing_of_the_model(door: Door, model: FakeOpenAI) -> None:
    door.says("Hello")
    _, (request, _) = queries_of_prepare()
    outcome = ask("openai", request)
    turn = Turn.objects.get()
    claim = leases.ClaimedTurn(turn.client_id, turn.pk, turn.conversation_id, turn.attempt, recalls=False, calls=False)
    with CaptureQueriesContext(connection) as seen:
        assert pipeline.commit(claim, outcome, timezone.now()) == "committed"
    written = [
        query["sql"] for query in seen.captured_queries if re.search("model_providers|provider_models", query["sql"])
    ]
    assert written == []


# --- a provider of the client's own ----------------------------------------------------------------------------------
def test_an_assistant_with_its_own_provider_uses_its_key_headers_query_and_body(door: Door, own: FakeOpenAI) -> None:
    door.says("Hello")
    reply_to_all()
    [asked] = own.requests
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-team"] == "shop"
    assert (asked.path, asked.query) == ("/v1/chat/completions", {"api-version": "2026-10-01", "region": "eu"})
    assert (asked.body["model"], asked.body["temperature"], asked.body["max_completion_tokens"]) == ("large", 1, 77)
    assert Turn.objects.get().model == "large"
    assert Chunk.objects.get(role="ai").content == "You said: Hello"


def test_a_provider_that_refuses_the_key_is_shown_as_broken_until_it_answers(door: Door, own: FakeOpenAI) -> None:
    own.api_key = "sk-another"
    door.says("Hello")
    reply_to_all()
    provider = ModelProvider.objects.get()
    assert (Turn.objects.get().code, provider.health) == ("unauthorized", "broken")
    assert provider.health_reason == "The provider refuses the key."

    own.api_key = KEY
    door.says("Hello?")
    reply_to_all()
    provider.refresh_from_db()
    assert (provider.health, provider.health_reason) == ("ok", "")


def test_a_provider_that_is_down_for_a_moment_is_not_broken(door: Door, own: FakeOpenAI) -> None:
    own.then("status", status=503)
    door.says("Hello")
    reply_to_all()
    assert (Turn.objects.get().code, ModelProvider.objects.get().health) == ("http_503", "ok")


def test_no_assistant_reaches_another_client_s_provider(shop: Any, own: FakeOpenAI) -> None:
    """A provider's key is its client's, whatever an assistant's row names."""
    neighbours = factories.AssistantFactory(model_provider=ModelProvider.objects.get(), model="large")
    assert model_providers.accesses_of(neighbours) == ()
    [access] = model_providers.accesses_of(Assistant.objects.get(client=shop))
    assert access.key == KEY
    ModelProvider.objects.update(client=None)
    assert [each.key for each in model_providers.accesses_of(neighbours)] == [KEY], "it is everybody's now"


def test_the_prompt_snapshot_and_its_repetition_use_the_same_provider(door: Door, own: FakeOpenAI) -> None:
    door.says("Hello")
    reply_to_all()
    turn = Turn.objects.select_related("conversation__assistant", "conversation__client").get()
    assert turn.prompt["request"]["model"] == "large"
    again = prompt_records.run_again(turn, current_prompt=False)
    assert (again.text, again.model, len(own.requests)) == ("You said: Hello", "large", 2)
    assert KEY not in json.dumps(turn.prompt)
