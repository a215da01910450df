"""The commands that set up model providers and the assistants that name them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from conversations.models import Assistant, Client, ModelProvider
from tests import factories
from tests.conversations.test_commands import made, refused

pytestmark = pytest.mark.django_db

KEY = "sk-TOPSECRET"
HOUSE = ("create_model_provider", "--client", "shop", "--name", "House")


@pytest.fixture(autouse=True)
def _lines(monkeypatch: Any) -> None:
    """Two lines on standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\nTOPSECRET-2\n"))


def test_a_provider_is_printed_without_its_secrets(shop: Client) -> None:
    printed = made(
        *(*HOUSE, "--kind", "openai_compatible", "--api-key", "-", "--base-url", "https://llm.example/v1/?version=7"),
        *("--header", "X-Team=a", "--header", "X-Secret=-", "--query", "a=b=c", "--body", '{"top_k": 5}'),
        *("--timeout", "20"),
    )
    house = ModelProvider.objects.get()
    assert printed == {
        "client_id": str(shop.pk),
        "model_provider_id": str(house.pk),
        "name": "House",
        "kind": "openai_compatible",
        "base_url": "https://llm.example/v1/",
        "has_key": True,
        "headers": ["X-Secret", "X-Team"],
    }
    assert "TOPSECRET" not in str(printed)
    assert house.credentials == {"api_key": KEY}
    assert house.headers == {"X-Team": "a", "X-Secret": "TOPSECRET-2"}
    assert (house.query, house.body, house.timeout_seconds) == ({"a": "b=c"}, {"top_k": 5}, 20)
    assert (house.client, house.base_url) == (shop, "https://llm.example/v1/?version=7")


def test_a_provider_of_the_installation_has_no_client(db: Any) -> None:
    printed = made("create_model_provider", "--shared", "--name", "OpenAI", "--kind", "openai", "--api-key", KEY)
    assert printed["client_id"] is None
    assert ModelProvider.objects.get().client is None


def test_the_same_name_gets_the_new_settings(shop: Client) -> None:
    first = made(*HOUSE, "--kind", "openai", "--api-key", "sk-old", "--header", "X-Team=a")
    ModelProvider.objects.update(health="broken", health_reason="unauthorized")
    again = made(*HOUSE, "--kind", "openai", "--api-key", "-")
    assert again["model_provider_id"] == first["model_provider_id"]
    house = ModelProvider.objects.get()
    assert (house.credentials, house.headers, house.health) == ({"api_key": KEY}, {}, "ok")
    assert "of another kind" in refused(*HOUSE, "--kind", "anthropic", "--api-key", KEY)
    ModelProvider.objects.update(client=None, from_environment=True)
    shared = ("create_model_provider", "--shared", "--name", "House", "--kind", "openai")
    assert "already" in refused(*shared, "--api-key", KEY)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kind", "openai"], "Enter the API key."),
        (["--kind", "magic"], "--kind"),
        (["--kind", "openai_compatible"], "needs a base URL"),
        (["--kind", "openai", "--api-key", "a b"], "one word"),
        (["--kind", "openai", "--api-key", "k", "--base-url", "llm"], "base_url: Write an address"),
        (["--kind", "openai", "--api-key", "k", "--header", "secret"], "--header must be NAME=VALUE."),
        (["--kind", "openai", "--api-key", "k", "--header", "Host=x"], "The header Host cannot be set"),
        (["--kind", "openai", "--api-key", "k", "--query", "=x"], "--query must be NAME=VALUE."),
        (["--kind", "openai", "--api-key", "k", "--body", "{"], "--body must be a JSON object"),
        (["--kind", "openai", "--api-key", "k", "--body", "7"], "body: Write a JSON object"),
        (["--kind", "openai", "--api-key", "k", "--body", '{"stream": true}'], "The body parameter stream"),
        (["--kind", "openai", "--api-key", "k", "--timeout", "0"], "timeout_seconds: "),
        (["--kind", "openai", "--api-key", "k", "--timeout", "nan"], "timeout"),
        (["--kind", "openai", "--api-key", "k", "--name", "x" * 101], "name: "),
    ],
)
def test_what_cannot_work_is_refused_and_not_repeated(shop: Client, arguments: list[str], sentence: str) -> None:
    said = refused(*HOUSE, *arguments)
    assert sentence in said
    assert "secret" not in said


def test_it_needs_a_client_or_all_of_them(shop: Client) -> None:
    rest = ("--name", "House", "--kind", "openai", "--api-key", KEY)
    assert "required" in refused("create_model_provider", *rest)
    assert "not allowed" in refused("create_model_provider", "--shared", "--client", "shop", *rest)
    assert "create_client" in refused("create_model_provider", "--client", "nobody", *rest)


def test_an_empty_standard_input_is_no_key(shop: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "was empty" in refused(*HOUSE, "--kind", "openai", "--api-key", "-")


BEA = ("create_assistant", "--client", "shop", "--key", "bea")


def test_an_assistant_names_two_providers_and_their_models(shop: Client, neighbour: Client) -> None:
    factories.ModelProviderFactory(name="House", client=neighbour)
    shared, mine = factories.ModelProviderFactory(name="House"), factories.ModelProviderFactory(name="Own", client=shop)
    made(
        *(*BEA, "--provider", "Own", "--model", "gpt-6-luna", "--reasoning-effort", "low"),
        *("--fallback-provider", "House", "--fallback-model", "gpt-5.6-luna", "--engine", "openai"),
    )
    bea = Assistant.objects.get(key="bea")
    assert (bea.model_provider, bea.fallback_provider) == (mine, shared)
    assert (bea.reasoning_effort, bea.fallback_model) == ("low", "gpt-5.6-luna")
    own_house = factories.ModelProviderFactory(name="House", client=shop)
    made("create_assistant", "--client", "shop", "--key", "cid", "--provider", "House", "--model", "m")
    assert Assistant.objects.get(key="cid").model_provider == own_house, "a client's own comes first"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "Neighbours", "--model", "m"], "There is no model provider 'Neighbours'"),
        (["--provider", "House"], "A model provider needs a model."),
        (["--fallback-provider", "House"], "A second provider needs a second model."),
        (["--reasoning-effort", "Very High"], "reasoning_effort: Write one word"),
        (["--engine", "retell"], "The engine retell needs the id of a Retell agent."),
        (["--fallback-model", "x" * 101], "fallback_model: "),
    ],
)
def test_half_an_assistant_is_refused(shop: Client, neighbour: Client, arguments: list[str], sentence: str) -> None:
    factories.ModelProviderFactory(name="Neighbours", client=neighbour)
    factories.ModelProviderFactory(name="House")
    assert sentence in refused(*BEA, *arguments)
