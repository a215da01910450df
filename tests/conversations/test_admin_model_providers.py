"""Model providers in the back office: keys go in and never out, superusers set addresses, tenants see their own."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.admin.access import Role
from conversations.models import Assistant, Client, ModelProvider, ProviderModel, StaffAction
from tests import factories
from tests.conversations.staff import signed_in, staff, superuser
from tests.fakes.model_list import FakeModelList

pytestmark = pytest.mark.django_db

KEY = "sk-TOPSECRET-1"


@pytest.fixture
def ann(shop: Client) -> HttpClient:
    """The shop's manager, signed in."""
    return signed_in(staff("ann", shop=Role.MANAGER))


@pytest.fixture
def boss(db: Any) -> HttpClient:
    """A superuser, signed in."""
    return signed_in(superuser())


def address(name: str, *args: Any, model: str = "modelprovider") -> str:
    return reverse(f"admin:conversations_{model}_{name}", args=args)


def form(**fields: Any) -> dict[str, Any]:
    usual = {"name": "House", "kind": "openai", "api_key": KEY, "query": "{}", "body": "{}", "is_active": "on"}
    return {name: str(value) for name, value in {**usual, **fields}.items()}


def saved(answer: Any) -> None:
    errors = answer.context["errors"] if answer.context and "errors" in answer.context else ""
    assert answer.status_code == 302, errors


def errors_of(answer: Any) -> str:
    """The sentences with which the form was refused."""
    assert answer.status_code == 200
    form = answer.context["adminform"].form
    return " ".join(sentence for sentences in form.errors.values() for sentence in sentences)


# --- keys and settings


def test_a_manager_adds_a_provider_whose_key_is_never_shown(ann: HttpClient, shop: Client) -> None:
    saved(ann.post(address("add"), form(client=shop.pk, kind="anthropic", timeout_seconds="30")))
    provider = ModelProvider.objects.get()
    assert (provider.client, provider.name, provider.kind, provider.timeout_seconds) == (shop, "House", "anthropic", 30)
    assert provider.credentials == {"api_key": KEY}
    page = ann.get(address("change", provider.pk)).content.decode()
    assert "stored; leave blank to keep it" in page
    shown = page + ann.get(address("changelist")).content.decode()
    assert KEY not in shown + str(list(StaffAction.objects.values()))


def test_a_blank_key_keeps_the_stored_one_and_a_new_one_mends_the_provider(ann: HttpClient, shop: Client) -> None:
    provider = factories.ModelProviderFactory(client=shop, credentials={"api_key": KEY}, health="broken")
    saved(ann.post(address("change", provider.pk), form(api_key="", name="Other")))
    provider.refresh_from_db()
    assert (provider.name, provider.credentials, provider.health) == ("Other", {"api_key": KEY}, "broken")
    saved(ann.post(address("change", provider.pk), form(api_key="sk-new")))
    provider.refresh_from_db()
    assert (provider.credentials, provider.health) == ({"api_key": "sk-new"}, "ok")
    assert StaffAction.objects.latest("id").changes["api_key"] == ["…", "…"]


def test_header_values_go_in_and_never_out(boss: HttpClient, shop: Client) -> None:
    headers = {"X-Secret": "TOPSECRET-2", "X-Team": "a"}
    saved(boss.post(address("add"), form(client=shop.pk, new_headers=json.dumps(headers))))
    provider = ModelProvider.objects.get()
    assert provider.headers == headers
    page = boss.get(address("change", provider.pk)).content.decode()
    assert "X-Secret, X-Team" in page
    saved(boss.post(address("change", provider.pk), form(api_key="", new_headers="")))
    assert ModelProvider.objects.get().headers == headers, "blank keeps them"
    wrong = boss.post(address("change", provider.pk), form(name="", new_headers=json.dumps(headers)))
    assert "TOPSECRET-2" not in wrong.content.decode(), "not even what was just typed"
    saved(boss.post(address("change", provider.pk), form(api_key="", new_headers="{}")))
    assert ModelProvider.objects.get().headers == {}
    assert "TOPSECRET-2" not in page + str(list(StaffAction.objects.values()))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"api_key": ""}, "Enter the API key."),
        ({"api_key": "sk two words"}, "one word of plain characters"),
        ({"api_key": "ключ"}, "one word of plain characters"),
        ({"kind": "openai_compatible"}, "needs a base URL"),
        ({"base_url": "ftp://llm.example"}, "Write an address"),
        ({"base_url": "https://"}, "Write an address"),
        ({"base_url": "http://[::1"}, "Write an address"),
        ({"base_url": "https://bob:pw@llm.example"}, "without user and password"),
        ({"base_url": "https://llm.example/v1#x"}, "without its # part"),
        ({"new_headers": "X-Team: a"}, "Write the headers as a JSON object"),
        ({"new_headers": '["a"]'}, "Write the headers as a JSON object"),
        ({"new_headers": '{"X": 1}'}, "Write the headers as a JSON object"),
        ({"new_headers": '{"X y": "a"}'}, "A header has a plain name"),
        ({"new_headers": '{"X": "a\\r\\nY: b"}'}, "A header has a plain name"),
        ({"new_headers": '{"Host": "internal"}'}, "The header Host cannot be set"),
        ({"new_headers": json.dumps({f"X-{n}": "a" for n in range(21)})}, "There may be 20 headers"),
        ({"query": "{"}, "Enter a valid JSON."),
        ({"query": '{"version": 1}'}, "Write a JSON object of texts"),
        ({"query": '{"a": "\\u0000"}'}, "cannot be stored"),
        ({"body": "[]"}, ""),
        ({"body": "[1]"}, "Write a JSON object"),
        ({"body": '{"messages": []}'}, "The body parameter messages cannot be set"),
        ({"body": '{"a": NaN}'}, "not plain JSON"),
        ({"body": '{"a": [{"b": "\\ud800"}]}'}, "cannot be stored"),
        ({"body": json.dumps({"a": "x" * 20_000})}, "20,000 characters"),
        ({"timeout_seconds": "0"}, "greater than or equal to 0.1"),
        ({"timeout_seconds": "nan"}, "Enter a number"),
        ({"name": "x" * 101}, "at most 100 characters"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(boss: HttpClient, fields: Any, sentence: str) -> None:
    answer = boss.post(address("add"), form(**fields))
    if not sentence:
        saved(answer)  # an empty list is as good as nothing
        assert ModelProvider.objects.get().body == {}
        return
    assert sentence in errors_of(answer)
    assert not ModelProvider.objects.exists()
    assert not StaffAction.objects.exists()


def test_blank_parameters_mean_none(boss: HttpClient) -> None:
    saved(boss.post(address("add"), form(query="", body="")))
    provider = ModelProvider.objects.get()
    assert (provider.client, provider.query, provider.body) == (None, {}, {})


@pytest.mark.parametrize("base_url", ["http://ollama:11434/v1", "https://a.example/openai/?api-version=2026-10-01"])
def test_a_server_of_ones_own_may_have_any_address(boss: HttpClient, base_url: str) -> None:
    saved(boss.post(address("add"), form(kind="openai_compatible", api_key="", base_url=base_url)))
    assert ModelProvider.objects.get().base_url == base_url


def test_a_name_stands_for_one_provider(boss: HttpClient, shop: Client) -> None:
    for client in ("", shop.pk):
        saved(boss.post(address("add"), form(client=client)))
        assert "of this name already" in errors_of(boss.post(address("add"), form(client=client)))
        other = factories.ModelProviderFactory(client=shop if client else None)
        assert "of this name already" in errors_of(boss.post(address("change", other.pk), form()))


# --- who may what


def test_managers_cannot_reach_other_addresses(ann: HttpClient, shop: Client) -> None:
    inside = {"base_url": "http://169.254.169.254", "new_headers": '{"X": "a"}'}
    saved(ann.post(address("add"), form(client=shop.pk, **inside)))
    provider = ModelProvider.objects.get()
    assert (provider.base_url, provider.headers) == ("", {})
    saved(ann.post(address("change", provider.pk), form(**inside)))
    provider.refresh_from_db()
    assert (provider.base_url, provider.headers) == ("", {})
    refused = ann.post(address("add"), form(client=shop.pk, name="B", kind="openai_compatible", **inside))
    assert "not one of the available choices" in errors_of(refused)
    page = ann.get(address("add")).content.decode()
    assert "base_url" not in page
    assert "new_headers" not in page


def test_managers_cannot_make_one_for_everybody(ann: HttpClient, neighbour: Client) -> None:
    assert "required" in errors_of(ann.post(address("add"), form()))
    assert errors_of(ann.post(address("add"), form(client=neighbour.pk)))
    assert not ModelProvider.objects.exists()


def test_managers_see_their_own_alone_but_choose_the_installations(
    ann: HttpClient, shop: Client, neighbour: Client
) -> None:
    shared = factories.ModelProviderFactory(name="Everybodys", credentials={"api_key": KEY})
    factories.ModelProviderFactory(name="Mine", client=shop)
    other = factories.ModelProviderFactory(name="Neighbours", client=neighbour)
    off = factories.ModelProviderFactory(name="Switched off", client=shop, is_active=False)
    listed = ann.get(address("changelist")).content.decode()
    assert "Mine" in listed
    assert "Everybodys" not in listed
    assert "Neighbours" not in listed
    for hidden in (shared, other):
        for page in ("change", "delete", "refresh_models", "forget_learned"):
            assert ann.get(address(page, hidden.pk)).status_code in (302, 404)
    assistant = Assistant.objects.get(client=shop)
    page = ann.get(address("change", assistant.pk, model="assistant")).content.decode()
    assert "Mine (Shop)" in page
    assert "Everybodys (for every client)" in page
    assert "Neighbours" not in page
    assert off.name not in page
    assert KEY not in page


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AGENT])
def test_others_of_the_staff_may_look(shop: Client, role: str) -> None:
    provider = factories.ModelProviderFactory(client=shop, credentials={"api_key": KEY}, headers={"X-Team": "TOP"})
    http = signed_in(staff("vera", shop=role))
    page = http.get(address("change", provider.pk)).content.decode()
    assert "X-Team" in page
    assert "TOP" not in page
    assert KEY not in page
    assert http.post(address("change", provider.pk), form(name="Other")).status_code == 403
    for name in ("add", "changelist"):
        assert http.get(address(name)).status_code == (403 if name == "add" else 200)
    for action in ("refresh_models", "forget_learned"):
        assert http.post(address(action, provider.pk)).status_code == 403


def test_the_environments_provider_is_read_only(boss: HttpClient, settings: Any) -> None:
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = KEY, "https://llm.example/v1"
    row = factories.ModelProviderFactory(name="OpenAI", from_environment=True, credentials={})
    page = boss.get(address("change", row.pk)).content.decode()
    assert "Set in the environment: OPENAI_API_KEY, OPENAI_BASE_URL" in page
    assert "https://llm.example/v1" in page
    assert KEY not in page
    assert "Refresh models" in page
    assert boss.post(address("change", row.pk), form()).status_code == 403
    assert boss.post(address("delete", row.pk), {"post": "yes"}).status_code == 403


# --- deleting


def test_a_provider_in_use_is_not_deleted(ann: HttpClient, shop: Client) -> None:
    provider = factories.ModelProviderFactory(name="House", client=shop)
    assistant = Assistant.objects.get(client=shop)
    Assistant.objects.filter(pk=assistant.pk).update(model_provider=provider, model="gpt-6-luna")
    Client.objects.filter(pk=shop.pk).update(embedding_provider=provider)
    for method in (ann.get, ann.post):
        answer = method(address("delete", provider.pk), {"post": "yes"}, follow=True)
        assert "House is in use and cannot be deleted" in answer.content.decode()
        assert "the assistant Ada of Shop, the client Shop." in answer.content.decode()
    assert ModelProvider.objects.exists()
    Assistant.objects.filter(pk=assistant.pk).update(model_provider=None)
    Client.objects.filter(pk=shop.pk).update(embedding_provider=None)
    ProviderModel.objects.create(provider=provider, client=shop, model="gpt-6-luna")
    assert ann.post(address("delete", provider.pk), {"post": "yes"}).status_code == 302
    assert not ModelProvider.objects.exists()
    assert StaffAction.objects.latest("id").verb == "deleted"


# --- assistants and clients that name providers


def assistant_form(assistant: Assistant, **changes: Any) -> dict[str, str]:
    usual = {"name": "Ada", "key": "ada", "system_prompt": "You are Ada.", "engine": "openai", "fallback": "Sorry."}
    usual |= {"history_length": "10", "context_budget": "8000", "human_after_failures": "3", "greeting": "Hello."}
    usual |= {"spoken_language": "en-US", "template_language": "en", "opener": "Hola", "uses_tools": "on"}
    usual |= {"agent_timeout_seconds": "30", "agent_deadline_seconds": "600"}
    return {name: str(value) for name, value in {**usual, **changes}.items()}


def test_an_assistant_names_providers_of_its_client_and_of_the_installation(
    boss: HttpClient, shop: Client, neighbour: Client
) -> None:
    mine, shared = factories.ModelProviderFactory(client=shop), factories.ModelProviderFactory()
    other = factories.ModelProviderFactory(client=neighbour)
    assistant = Assistant.objects.get(client=shop)
    page = address("change", assistant.pk, model="assistant")
    chosen = {"model_provider": mine.pk, "model": "gpt-6-luna", "reasoning_effort": "low"}
    chosen |= {"fallback_provider": shared.pk, "fallback_model": "gpt-5.6-luna"}
    saved(boss.post(page, assistant_form(assistant, **chosen)))
    assistant.refresh_from_db()
    assert (assistant.model_provider, assistant.fallback_provider) == (mine, shared)
    assert assistant.reasoning_effort == "low"
    for field in ("model_provider", "fallback_provider"):
        answer = boss.post(page, assistant_form(assistant, **{**chosen, field: other.pk}))
        assert "not one of the available choices" in errors_of(answer)
    new = {"client": shop.pk, "key": "bea", "model": "m", "model_provider": other.pk}
    answer = boss.post(address("add", model="assistant"), assistant_form(assistant, **new))
    assert "belongs to another client" in errors_of(answer)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": ""}, "A model provider needs a model."),
        ({"fallback": "x", "fallback_model": ""}, "A second provider needs a second model."),
        ({"reasoning_effort": "Very High"}, "Write one word"),
    ],
)
def test_half_a_choice_is_refused(boss: HttpClient, shop: Client, fields: Any, sentence: str) -> None:
    provider = factories.ModelProviderFactory()
    assistant = Assistant.objects.get(client=shop)
    whole = {"model_provider": provider.pk, "model": "m", "fallback_provider": provider.pk, "fallback_model": "n"}
    answer = boss.post(
        address("change", assistant.pk, model="assistant"), assistant_form(assistant, **{**whole, **fields})
    )
    assert sentence in errors_of(answer)


def test_a_client_names_providers_that_can_do_what_it_wants(ann: HttpClient, shop: Client, neighbour: Client) -> None:
    claude = factories.ModelProviderFactory(client=shop, kind="anthropic", name="Claude")
    other = factories.ModelProviderFactory(client=neighbour)
    usual = {
        "stale_after": "10 minutes",
        "expire_after": "24 hours",
        "archive_after": "30 days",
        "default_goal": "Sell",
    }
    usual |= {"longest_wait": "6 seconds", "hand_back_after": "2 hours", "when_away": "ask", "time_zone": "UTC"}
    page = address("change", shop.pk, model="client")
    refused = ann.post(page, {**usual, "embedding_provider": claude.pk})
    assert "Claude makes no embeddings" in errors_of(refused)
    assert errors_of(ann.post(page, {**usual, "summary_provider": other.pk, "summary_model": "m"}))
    assert "A provider of summaries needs a model." in errors_of(
        ann.post(page, {**usual, "summary_provider": claude.pk})
    )
    saved(ann.post(page, {**usual, "summary_provider": claude.pk, "summary_model": "claude-haiku-5-5"}))
    shop.refresh_from_db()
    assert (shop.summary_provider, shop.embedding_provider) == (claude, None)


# --- what is known of its models


LEARNED = {"tools": {"value": False, "at": "2026-11-29T10:00:00+00:00", "why": "unsupported_parameter"}}


def test_its_page_says_what_was_learned_when_and_why(ann: HttpClient, shop: Client) -> None:
    provider = factories.ModelProviderFactory(client=shop)
    of = {"provider": provider, "client": shop}
    ProviderModel.objects.create(model="gpt-4o-mini", learned=LEARNED, shutdown_date=date(2027, 1, 14), **of)
    ProviderModel.objects.create(model="<b>bold</b>", learned={"odd": "no object"}, **of)
    assistant = Assistant.objects.get(client=shop)
    Assistant.objects.filter(pk=assistant.pk).update(model_provider=provider, model="gpt-4o-mini", engine="openai")
    page = ann.get(address("change", provider.pk)).content.decode()
    assert "It has no tools" in page
    assert "29 November 2026" in page
    assert "unsupported_parameter" in page
    assert "$0.15 in, $0.60 out" in page
    assert "14 January 2027" in page
    assert "1 assistant" in page
    assert "<b>bold" not in page
    assert "It has no tools" in ann.get(address("change", assistant.pk, model="assistant")).content.decode()
    ann.get(address("forget_learned", provider.pk))
    assert ProviderModel.objects.get(model="gpt-4o-mini").learned, "asking forgets nothing"
    answer = ann.post(address("forget_learned", provider.pk), follow=True)
    assert "forgotten" in answer.content.decode()
    assert not ProviderModel.objects.exclude(learned={}).exists()
    assert StaffAction.objects.latest("id").verb == "forgot what was learned of"


def test_its_models_are_refreshed_by_a_confirmed_action(ann: HttpClient, shop: Client) -> None:
    with FakeModelList("gpt-6-luna", "gpt-7") as fake:
        provider = factories.ModelProviderFactory(client=shop, name="House", base_url=fake.base_url)
        ann.get(address("refresh_models", provider.pk))
        assert fake.requests == []
        answer = ann.post(address("refresh_models", provider.pk), follow=True).content.decode()
        assert "House lists 2 models; 2 are new, 0 are gone." in answer
        assert "gpt-7" in answer
        fake.key = "another"
        refused = ann.post(address("refresh_models", provider.pk), follow=True).content.decode()
        assert "it refuses the key (status 401)" in refused


def test_a_long_list_of_models_makes_no_long_page(
    ann: HttpClient, shop: Client, django_assert_max_num_queries: Any
) -> None:
    provider = factories.ModelProviderFactory(client=shop)
    ProviderModel.objects.bulk_create(
        ProviderModel(provider=provider, client=shop, model=f"model-{n:04}") for n in range(2_000)
    )
    with django_assert_max_num_queries(14):
        page = ann.get(address("change", provider.pk)).content.decode()
    assert "300 of 2000 other models" in page
    assert len(page) < 120_000
