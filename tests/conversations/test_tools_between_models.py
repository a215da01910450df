"""A model that fails after it has called a tool: the next one is told, and nothing is done twice."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.models import Assistant, Chunk, ModelProvider, Turn
from memory.text import estimate_tokens
from tests.conftest import Door, reply_to_all
from tests.conversations import tool_shop
from tests.conversations.tool_shop import CHARGE, answers
from tests.fakes.openai import FakeOpenAI
from tests.fakes.paid_tool import PaidTool
from tests.fakes.server import Reply

pytestmark = pytest.mark.django_db

model, server, tool = tool_shop.model, tool_shop.server, tool_shop.tool


def test_the_second_model_knows_what_the_first_has_done(
    door: Door, shop: Any, model: FakeOpenAI, server: PaidTool, tool: Any
) -> None:
    with FakeOpenAI() as second:
        house = ModelProvider.objects.create(
            client=shop, name="House", kind="openai_compatible", base_url=second.base_url
        )
        Assistant.objects.filter(client=shop).update(fallback_provider=house, fallback_model="small")
        model.then("reply", tool_calls=[CHARGE])
        model.then("status", status=529)
        second.then("reply", text="Your card is charged.")
        door.says("Charge me")
        reply_to_all()

        told = second.requests[0].body["messages"]
    assert [message["role"] for message in told] == ["system", "user"]
    assert "[Tools that were called already" in told[-1]["content"]
    assert "charge_card" in told[-1]["content"]
    assert "R-order-1" in told[-1]["content"]
    assert "R-order-1" not in told[0]["content"], "never in the system role"
    assert Chunk.objects.get(role="ai").content == "Your card is charged."
    assert server.charges == {"order-1": 1}
    assert [call["name"] for call in Turn.objects.get().tool_calls] == ["charge_card"]


def test_a_smaller_prompt_knows_what_was_done_before_it(
    door: Door, model: FakeOpenAI, server: PaidTool, tool: Any
) -> None:
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=400, code="context_length_exceeded")
    model.then("reply", text="Your card is charged.")
    door.says("Charge me")
    reply_to_all()

    assert "R-order-1" in model.requests[-1].body["messages"][-1]["content"]
    assert model.requests[-1].body["messages"][-1]["role"] == "user"
    assert server.charges == {"order-1": 1}
    assert Chunk.objects.get(role="ai").content == "Your card is charged."


def test_a_long_answer_of_a_tool_leaves_room_for_the_reply(
    door: Door, shop: Any, model: FakeOpenAI, server: PaidTool, tool: Any
) -> None:
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Your card is charged.")
    Assistant.objects.filter(client=shop).update(model="gpt-4", max_tokens=3_500)  # of a window of 8,192
    server.answer_with = lambda _body: Reply(200, {"charged": 5, "log": "a word and " * 1_700})
    door.says("Charge me")
    reply_to_all()

    answer = answers(model)[0]
    is_shortened = "characters left out" in answer
    assert is_shortened
    assert estimate_tokens(answer) < 4_700
    assert server.charges == {"order-1": 1}


def test_staff_are_told_of_a_call_whose_reply_failed(
    door: Door, settings: Any, model: FakeOpenAI, server: PaidTool, tool: Any
) -> None:
    settings.REPLY_ATTEMPTS = 1
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    conversation_id = door.says("Charge me")["conversation_id"]
    reply_to_all()

    assert server.charges == {"order-1": 1}
    reason = door.get(f"/conversations/{conversation_id}")["needs_staff_reason"]
    assert reason.startswith("A tool was called, and the person does not know: see Tool calls.")
