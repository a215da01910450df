"""With a key alone in the environment everything works that a model does: a reply, a tool, a summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from conversations.models import Assistant, Chunk, Client, Conversation, ModelProvider, ProviderModel, Step, Turn
from conversations.services.history import remember
from memory.language_models import transport
from memory.language_models.contract import Kind
from memory.models import Memory
from tests.conftest import Door, reply_to_all
from tests.conversations.conftest import close
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.responses_api import FakeResponses

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-first-1234567890"
SUMMARY = "Ann wants a red kettle; its colour is to be asked."


@pytest.fixture
def openai(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeResponses]:
    """OpenAI, at which the key in the environment is valid. Its models are those of the end of 2026."""
    with FakeResponses(api_key=KEY) as fake:
        settings.OPENAI_API_KEY, settings.OPENAI_MODEL = KEY, "gpt-6-luna"
        monkeypatch.setitem(transport.OWN_ADDRESS, Kind.OPENAI, fake.base_url)
        yield fake


def test_a_key_alone_answers_adds_a_step_and_summarises(shop: Client, door: Door, openai: FakeResponses) -> None:
    Assistant.objects.filter(client=shop).update(engine="auto", temperature=0.3, max_tokens=300)
    openai.then("reply", tool_calls=[("add_step", {"description": "Ask the colour"})])
    openai.then("reply", text="Which colour shall it be?")
    conversation_id = door.says("I want a kettle.", phone="+51999999999")["conversation_id"]
    reply_to_all()

    assert Chunk.objects.get(conversation=conversation_id, role="ai").content == "Which colour shall it be?"
    assert Step.objects.get().description == "Ask the colour"
    turn = Turn.objects.get()
    assert (turn.status, turn.model, turn.calls) == ("committed", "gpt-6-luna", 2)
    assert turn.tokens_in > 0

    openai.reply = lambda _messages: SUMMARY
    close(conversation_id)
    assert remember.remember_ended() == 1
    assert Memory.objects.get().summary_kind == "llm"
    assert Conversation.objects.get(pk=conversation_id).summary == SUMMARY
    refused = [request.problem for request in openai.requests if request.problem]
    assert len(refused) == 1, "the temperature, once: the summary knows already"
    assert {request.path for request in openai.requests} == {"/v1/responses"}


def test_no_key_is_shown_logged_or_stored(
    shop: Client, door: Door, openai: FakeResponses, caplog: pytest.LogCaptureFixture
) -> None:
    Assistant.objects.filter(client=shop).update(engine="auto")
    openai.api_key = "another"
    door.says("I want a kettle.")
    reply_to_all()

    assert KEY not in caplog.text
    assert KEY not in str(list(Turn.objects.values())) + str(list(ModelProvider.objects.values()))
    provider = ModelProvider.objects.get()
    assert (provider.from_environment, provider.health) == (True, "broken")
    conversation = Conversation.objects.get()
    told = "The provider refuses the key. Enter a valid key at the model provider. (invalid_api_key)"
    assert conversation.needs_staff_reason == told
    openai.api_key = KEY
    door.says("Hello?")
    reply_to_all()
    provider.refresh_from_db()
    assert provider.health == "ok"


def test_an_assistant_is_tried_by_command(shop: Client, openai: FakeResponses, capsys: Any) -> None:
    Assistant.objects.filter(client=shop).update(engine="auto", temperature=0.3)
    openai.then("reply", text="Hello.")
    openai.then("reply", tool_calls=[("find_article", {"name": "kettle"})])
    openai.then("reply", tool_calls=[("price_of", {"number": "K-17"})])
    openai.then("reply", text="It costs 41.70.")
    openai.then("reply", text="one, two, three, four")
    openai.then("reply", text=SUMMARY)
    openai.then("reply", text="heliotrope")
    openai.then("reply", text="Red.")
    call_command("try_assistant", client="shop", assistant="ada", picture=True)

    said = capsys.readouterr().out
    assert said.count("ok    ") == 6
    assert "FAILED" not in said
    assert "Learned: It does not take the parameter temperature." in said
    assert ProviderModel.objects.get().learned["omits.temperature"]["value"] is True


def test_a_trial_says_what_to_change(shop: Client, openai: FakeResponses, capsys: Any) -> None:
    Assistant.objects.filter(client=shop).update(engine="auto", model="gpt-9")
    with pytest.raises(CommandError, match="4 of the checks failed"):
        call_command("try_assistant", client="shop", assistant="ada")
    said = capsys.readouterr().out
    assert "The provider does not know the model." in said
    assert "To do: Check its name against the list on the provider's page." in said

    Assistant.objects.filter(client=shop).update(engine="offline")
    with pytest.raises(CommandError, match="1 of the checks failed"):
        call_command("try_assistant", client="shop", assistant="ada")
    assert "no language model" in capsys.readouterr().out


def test_a_client_with_a_provider_of_its_own_needs_no_environment(shop: Client, door: Door) -> None:
    with FakeAnthropic(api_key="sk-ant-1") as claude:
        provider = ModelProvider.objects.create(
            client=shop, name="Claude", kind="anthropic", base_url=claude.base_url, credentials={"api_key": "sk-ant-1"}
        )
        Assistant.objects.filter(client=shop).update(
            engine="auto", model_provider=provider, model="claude-opus-4-8", reasoning_effort="low"
        )
        claude.then("reply", thinking="First a step.", tool_calls=[("add_step", {"description": "Ask the colour"})])
        claude.then("reply", text="Which colour?")
        conversation_id = door.says("I want a kettle.", phone="+51999999999")["conversation_id"]
        reply_to_all()
        claude.reply = lambda _messages: SUMMARY
        close(conversation_id)
        remember.remember_ended()

    assert Chunk.objects.get(conversation=conversation_id, role="ai").content == "Which colour?"
    assert Step.objects.get().description == "Ask the colour"
    assert Memory.objects.get().summary == SUMMARY
    refused = [request.problem for request in claude.requests if request.problem]
    assert refused == ["`temperature` is deprecated for this model."], "a summary's, once"
