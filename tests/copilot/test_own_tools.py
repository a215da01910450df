"""The client's own tools where a reply is read while it is written: called on a thread, once in all tries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Client, Tool, ToolCall, Turn
from conversations.services.core.ledger import Actor
from conversations.services.staff_actions import tool_decisions
from conversations.services.tenants import tools
from tests.conftest import reply_to_all
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI
from tests.fakes.paid_tool import SCHEMA, PaidTool

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

CHARGE = ("charge_card", {"order": "order-1", "amount": 5})


@pytest.fixture
def server(roofers: Client, settings: Any) -> Iterator[PaidTool]:
    """A tool of the roofers' that charges a card."""
    settings.TOOL_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with PaidTool() as fake:
        _, fake.secret = tools.create_tool(roofers, "charge_card", url=fake.url, parameters=SCHEMA)
        yield fake


def test_the_model_calls_speaks_and_others_are_answered_meanwhile(
    ann: Browser, bob: Browser, model: FakeOpenAI, server: PaidTool
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        called.set()
        go_on.wait(20)

    server.after = hold
    model.then("reply", tool_calls=[CHARGE])
    with ann.stream("POST", "/copilot", {"message": "Charge me"}) as events:
        events.next("session")
        assert called.wait(20)
        assert text_of(bob.ask("Hello")) == "You said: Hello", "nobody else waits for the tool"
        go_on.set()
        assert "Charge me" in text_of(events.rest())
    assert server.charges == {"order-1": 1}
    assert ToolCall.objects.get().status == "answered"
    offered = [each["function"]["name"] for each in model.requests[0].body["tools"]]
    assert offered[-1] == "charge_card"
    assert "end_conversation" not in offered


def test_a_reply_that_fails_after_the_call_and_is_tried_again_charges_once(
    ann: Browser, model: FakeOpenAI, server: PaidTool
) -> None:
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Charged.")
    events = ann.ask("Charge me")
    assert (events[-1].name, text_of(events)) == ("done", "Charged.")
    assert server.charges == {"order-1": 1}
    assert Turn.objects.get().status == "committed"
    assert ToolCall.objects.get().is_open is False


def test_a_reply_that_was_stopped_and_is_tried_again_charges_once(
    ann: Browser, model: FakeOpenAI, server: PaidTool
) -> None:
    last_word = threading.Event()
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="It is charged and more.", every=0.02, hold=last_word)
    with ann.stream("POST", "/copilot", {"message": "Charge me"}) as events:
        session_id = events.next("session").data["session_id"]
        events.next("delta")
        ann.call("POST", f"/copilot/sessions/{session_id}/stop", {})
        events.rest()
    last_word.set()
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Charged.")
    with ann.stream("POST", f"/copilot/sessions/{session_id}/retry", {}) as again:
        assert text_of(again.rest()) == "Charged."
    assert server.charges == {"order-1": 1}


def test_a_call_that_a_colleague_approves_is_made_and_its_reply_appears_in_the_session(
    ann: Browser, model: FakeOpenAI, server: PaidTool
) -> None:
    Tool.objects.update(needs_approval=True)
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="A colleague must approve it.")
    assert text_of(ann.ask("Charge me")) == "A colleague must approve it."
    call = ToolCall.objects.get()
    assert (call.status, server.requests) == ("waiting", [])

    tool_decisions.approve(call.conversation_id, call.pk, actor=Actor("staff", "grace"), now=timezone.now())
    model.then("reply", text="It is charged.")
    assert reply_to_all() == 1
    assert server.charges == {"order-1": 1}
    offered = [each["function"]["name"] for each in model.requests[-1].body["tools"]]
    assert {"set_topic", "end_conversation"}.isdisjoint(offered), "the session is its user's own"
    said = ann.get(f"/copilot?session_id={call.conversation_id}")["items"]
    assert "It is charged." in [each["content"] for each in said]
