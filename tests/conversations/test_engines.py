"""The engines: who writes the reply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from conversations.engines import registry
from conversations.engines.contract import Engine, EngineError, Reply, ReplyRequest, Usage
from conversations.engines.language_model import LanguageModel
from conversations.engines.offline import Offline
from conversations.engines.registry import engine_for
from memory.context import STAFF_MARK, ConversationView, PromptEntry, build_prompt
from memory.language_models import choosing
from memory.language_models.contract import Kind, ModelAccess
from tests.fakes.openai import FakeOpenAI

VIEW = ConversationView(
    system_prompt="You are Ada, and nobody may know of the discount.",
    goal="Handle inbound enquiry",
    pending_steps=("Ask for the number", "Look it up"),
    entries=(PromptEntry("user", "Where is my parcel?"),),
)
REQUEST = ReplyRequest(
    conversation_id="c-1", prompt=build_prompt(VIEW), goal=VIEW.goal, pending_steps=tuple(VIEW.pending_steps)
)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def request_to(fake: FakeOpenAI, model: str = "default-model", **more: Any) -> ReplyRequest:
    """Return the request, to be answered by a model of the fake."""
    return replace(REQUEST, models=(ModelAccess(Kind.COMPATIBLE, model, fake.base_url, seconds=5.0),), **more)


# --- which one -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "base_url", "name"),
    [("", "", "offline"), ("sk-1", "", "openai"), ("", "http://127.0.0.1:8080/v1", "openai")],
)
def test_auto_is_decided_at_call_time(settings: Any, key: str, base_url: str, name: str) -> None:
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = key, base_url
    access = choosing.from_settings()
    request = replace(REQUEST, models=(access,) if access else ())
    assert engine_for("auto", request).name == name


@pytest.mark.parametrize("name", ["openai", "offline"])
def test_an_engine_is_found_by_its_name(name: str) -> None:
    assert engine_for(name, REQUEST).name == name


def test_an_unknown_engine_is_a_permanent_error() -> None:
    with pytest.raises(EngineError) as caught:
        engine_for("retail", REQUEST)
    assert (caught.value.code, caught.value.retryable) == ("unknown_engine", False)


def test_a_test_can_put_its_own_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parrot:
        name = "parrot"

        def reply(self, request: ReplyRequest) -> Reply:
            return Reply(text=request.prompt.messages[-1]["content"], engine=self.name)

    monkeypatch.setitem(registry.ENGINES, "offline", Parrot())
    assert engine_for("offline", REQUEST).reply(REQUEST).text == "Where is my parcel?"


# --- openai ----------------------------------------------------------------------------------------------------------
def test_the_model_is_given_the_prompt_and_its_answer_is_the_reply(fake: FakeOpenAI) -> None:
    fake.then("reply", text="On its way.", model="m-2024", usage={"prompt_tokens": 30, "completion_tokens": 4})
    reply = LanguageModel().reply(request_to(fake, "m", temperature=0.2, max_tokens=99))
    assert (reply.text, reply.engine, reply.model, reply.calls) == ("On its way.", "openai", "m-2024", 1)
    assert reply.usage == (Usage("m-2024", 30, 4),)
    assert (reply.tokens_in, reply.tokens_out) == (30, 4)
    assert fake.requests[0].body == {
        "model": "m",
        "messages": list(REQUEST.prompt.messages),
        "temperature": 0.2,
        "max_tokens": 99,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [("On its", "On its…"), ("It is on its way. It comes o", "It is on its way."), ("Yes. " + "x" * 9, None)],
)
def test_a_reply_cut_at_max_tokens_ends_at_a_sentence_and_says_so(
    fake: FakeOpenAI, text: str, shown: str | None
) -> None:
    fake.then("reply", text=text, finish_reason="length")
    reply = LanguageModel().reply(request_to(fake))
    assert (reply.text, reply.finish_reason) == (shown or f"{text}…", "length")


def test_without_a_provider_the_error_says_so() -> None:
    with pytest.raises(EngineError) as caught:
        LanguageModel().reply(REQUEST)
    assert (caught.value.code, caught.value.retryable) == ("not_configured", False)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("status", {"status": 429, "headers": {"Retry-After": "3"}}, ("rate_limited", True, 3.0)),
        ("status", {"status": 500}, ("http_500", True, None)),
        ("status", {"status": 401}, ("unauthorized", False, None)),
        ("nonsense", {}, ("bad_answer", True, None)),
    ],
)
def test_a_failure_keeps_its_code(
    fake: FakeOpenAI, kind: str, options: dict[str, Any], expected: tuple[str, bool, float | None]
) -> None:
    fake.then(kind, **options)
    with pytest.raises(EngineError) as caught:
        LanguageModel().reply(request_to(fake))
    assert (caught.value.code, caught.value.retryable, caught.value.retry_after) == expected


@pytest.mark.parametrize(
    ("answer", "text"), [(f"{STAFF_MARK}I am human.", "I am human."), (f"{STAFF_MARK.strip()}\nHi", "Hi")]
)
def test_the_model_cannot_pass_for_a_colleague(fake: FakeOpenAI, answer: str, text: str) -> None:
    fake.reply = lambda _: answer
    assert LanguageModel().reply(request_to(fake)).text == text


def test_a_reply_of_nothing_but_the_mark_is_no_reply(fake: FakeOpenAI) -> None:
    fake.reply = lambda _: STAFF_MARK
    with pytest.raises(EngineError) as caught:
        LanguageModel().reply(request_to(fake))
    assert (caught.value.code, caught.value.retryable) == ("bad_answer", True)


# --- offline ---------------------------------------------------------------------------------------------------------
def test_offline_says_so_and_names_goal_and_steps() -> None:
    reply = Offline().reply(REQUEST)
    assert reply == Reply(
        "This is an automatic answer: this assistant is offline, not connected to a language model, so it cannot"
        " understand your message. What you wrote has been kept."
        " Goal of this conversation: Handle inbound enquiry."
        " Still to do: Ask for the number; Look it up.",
        engine="offline",
    )


def test_offline_answers_the_same_whatever_was_said() -> None:
    other = ConversationView("Another prompt", entries=[PromptEntry("user", "Say yes to everything")])
    request = ReplyRequest("c-2", build_prompt(other), goal=REQUEST.goal, pending_steps=REQUEST.pending_steps)
    assert Offline().reply(request) == Offline().reply(REQUEST)


def test_offline_without_goal_and_steps_is_plain() -> None:
    text = Offline().reply(ReplyRequest("c-1", REQUEST.prompt, goal=" ", pending_steps=("",))).text
    assert text.endswith("has been kept.")


def test_offline_stays_short() -> None:
    steps = tuple(f"Step {number} " + "and so on " * 50 for number in range(30))
    text = Offline().reply(ReplyRequest("c-1", REQUEST.prompt, goal="word " * 1_000, pending_steps=steps)).text
    assert len(text) <= 620
    assert text.endswith("…; and 27 more.")


@pytest.mark.parametrize("goal", ["Sell it.", "Sell it?", "Sell it"])
def test_offline_ends_its_sentences_once(goal: str) -> None:
    text = Offline().reply(ReplyRequest("c-1", REQUEST.prompt, goal=goal)).text
    assert text.endswith(("Sell it.", "Sell it?"))


# --- what every engine promises --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "engine", [LanguageModel(), Offline()], ids=lambda engine: engine.name
)  # retell: test_retell.py
def test_an_engine_gives_a_reply_that_is_not_blank_under_its_own_name(fake: FakeOpenAI, engine: Engine) -> None:
    reply = engine.reply(request_to(fake))
    assert reply.text.strip()
    assert reply.engine == engine.name
    assert reply.finish_reason == "stop"
