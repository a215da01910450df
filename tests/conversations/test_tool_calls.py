"""The client's own tools: each call is made once, whatever becomes of the draft, and its answer is information."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.engines.registry import ask
from conversations.models import Assistant, Chunk, Conversation, ToolCall, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import leases, pipeline, tool_calls, tool_runner
from conversations.services.replies.tool_runner import make
from conversations.services.staff_actions import corrections
from conversations.services.tenants import tools
from conversations.services.transitions import closing, takeover
from tests.conftest import reply_to_all
from tests.conversations import tool_shop
from tests.conversations.tool_shop import CHARGE, STAFF, answers, background, change, draft
from tests.fakes.paid_tool import SCHEMA
from tests.fakes.server import Fault, Reply

pytestmark = pytest.mark.django_db

model, server, tool = tool_shop.model, tool_shop.server, tool_shop.tool


# --- a call -----------------------------------------------------------------------------------------------------------
def test_the_model_calls_the_tool_and_answers_with_what_it_said(door, model, server, tool):
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Your card is charged.")
    conversation_id = door.says("Charge me", name="Ann")["conversation_id"]
    assert reply_to_all() == 1

    [received] = server.requests
    call = ToolCall.objects.get()
    assert received.json() == {
        "tool": "charge_card",
        "arguments": {"order": "order-1", "amount": 5},
        "conversation_id": conversation_id,
        "contact": {
            "id": str(Conversation.objects.get().contact_id),
            "user_id": "ann",
            "name": "Ann",
            "phone": "",
        },
        "idempotency_key": call.key,
    }
    assert received.headers["idempotency-key"] == received.headers["webhook-id"] == call.key
    assert server.charges == {"order-1": 1}
    assert json.loads(answers(model)[0]) == {"charged": 5, "receipt": "R-order-1"}
    offered = model.requests[0].body["tools"][-1]["function"]
    assert offered == {"name": "charge_card", "description": "Charge the card.", "parameters": SCHEMA}
    assert Chunk.objects.get(role="ai").content == "Your card is charged."
    assert (call.status, call.is_open, call.client_id) == ("answered", False, tool.client_id)
    assert Turn.objects.get().tool_calls[0]["answer"] == call.answer


def test_a_later_message_may_have_the_same_done_again_with_another_key(door, model, server, tool):
    for words in ("Charge me", "And again"):
        door.says(words)
        model.then("reply", tool_calls=[CHARGE])
        model.then("reply", text="Done.")
        reply_to_all()
    assert server.charges == {"order-1": 2}
    assert len(set(server.keys)) == 2
    assert background(model) == "", "what was told is not told again"


def test_the_same_call_twice_in_one_reply_is_made_once(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE, ("charge_card", '{"amount": 5.0, "order": "order-1"}')])
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Done.")
    reply_to_all()
    assert server.charges == {"order-1": 1}
    assert len(set(answers(model))) == 1


def test_arguments_that_do_not_match_are_a_sentence_and_no_call(door, model, server, tool):
    door.says("Charge me")
    wrong = ['{"order": "x"}', '{"order": "x", "amount": 0}', '{"order": "x", "amount": 1, "to": "me"}', "no", "[]"]
    wrong += ['{"order": "x", "amount": NaN}', '{"order": "x", "amount": 1e999}', "[" * 5_000]
    model.then("reply", tool_calls=[("charge_card", each) for each in wrong])
    model.then("reply", text="I cannot.")
    reply_to_all()
    assert server.requests == []
    assert not ToolCall.objects.exists()
    assert len(answers(model)) == len(wrong)
    assert answers(model)[0] == "The arguments do not match: arguments: 'amount' is a required property."
    assert set(answers(model)[-5:]) == {"The arguments must be a JSON object."}


def test_a_tool_of_another_client_another_assistant_or_switched_off_is_not_offered(
    door, model, server, tool, neighbour
):
    other = Assistant.objects.create(client=tool.client, key="bob", name="Bob")
    tools.create_tool(neighbour, "theirs", url=server.url)
    tools.create_tool(tool.client, "off", url=server.url, is_active=False)
    tools.create_tool(tool.client, "bobs", url=server.url, assistants=["bob"])
    tools.create_tool(tool.client, "adas", url=server.url, assistants=["ada", other.key])
    door.says("Hello")
    model.then("reply", tool_calls=[("bobs", {}), ("theirs", {})])
    reply_to_all()
    offered = [each["function"]["name"] for each in model.requests[0].body["tools"]]
    assert offered[-2:] == ["adas", "charge_card"]
    assert {"bobs", "theirs", "off"}.isdisjoint(offered)
    assert server.requests == []


# --- once -------------------------------------------------------------------------------------------------------------
def test_a_draft_that_is_dropped_leaves_its_calls_to_the_next(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Done.")
    claim, outcome = draft()
    door.says("And thank you")
    assert pipeline.commit(claim, outcome, timezone.now()) == "overtaken"

    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="You are welcome.")
    reply_to_all()
    assert server.charges == {"order-1": 1}
    assert 'charge_card {"amount":5,"order":"order-1"}: {"charged": 5' in background(model)
    assert json.loads(answers(model)[0])["receipt"] == "R-order-1", "and if it is called all the same"
    assert ToolCall.objects.get().is_open is False
    for request in model.requests:
        roles = [message["role"] for message in request.body["messages"] if not message.get("tool_calls")]
        assert roles[:3] == ["system", "user", *roles[2:3]]
        assert roles[2:3] != ["user"], "the calls stand in the person's message"


def test_a_turn_that_fails_after_the_call_leaves_it_to_the_next_try(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    reply_to_all()
    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Done.")
    reply_to_all()
    assert server.charges == {"order-1": 1}
    assert "R-order-1" in background(model)


def test_a_prompt_that_had_to_be_made_smaller_still_tells_of_the_calls(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    reply_to_all()
    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("status", status=400, code="context_length_exceeded", message="This prompt is too long.")
    model.then("reply", text="Done.")
    reply_to_all()
    assert "R-order-1" in background(model)
    assert "R-order-1" in background(model, -2)


def test_nothing_is_called_for_a_draft_that_a_newer_message_has_overtaken(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    [claim] = leases.claim(timezone.now(), 10)
    request, engine = pipeline.prepare(claim)
    door.says("No, wait!")
    ask(engine, request)
    assert server.requests == []
    assert answers(model) == [tool_calls.OVERTAKEN]
    assert not ToolCall.objects.exists()


@pytest.mark.parametrize("how", ["taken over", "closed"])
def test_nothing_is_called_once_the_assistant_no_longer_has_the_conversation(door, model, server, tool, how):
    conversation_id = door.says("Charge me")["conversation_id"]
    model.then("reply", tool_calls=[CHARGE])
    [claim] = leases.claim(timezone.now(), 10)
    request, engine = pipeline.prepare(claim)
    if how == "closed":
        closing.close(conversation_id, ended_by="system", actor=SYSTEM, now=timezone.now())
    else:
        takeover.take_over(conversation_id, actor=STAFF, now=timezone.now())
    ask(engine, request)
    assert server.requests == []
    assert answers(model) == [tool_calls.SILENCED]


def test_a_turn_that_was_lost_calls_nothing(door, model, server, tool):
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    [claim] = leases.claim(timezone.now(), 10)
    request, engine = pipeline.prepare(claim)
    leases.give_back({claim.turn_id: claim.client_id}, timezone.now())
    assert ask(engine, request).code == "lost"
    assert server.requests == []


def test_so_many_calls_are_made_for_one_message_over_all_drafts(door, model, server, tool):
    door.says("Charge me")
    many = [("charge_card", {"order": f"o{number}", "amount": 1}) for number in range(15)]
    model.then("reply", tool_calls=many)
    model.then("status", status=500)
    reply_to_all()
    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("reply", tool_calls=[("charge_card", {"order": f"p{number}", "amount": 1}) for number in range(15)])
    reply_to_all()
    assert len(server.requests) == tool_calls.MOST_CALLS
    assert answers(model)[-1] == tool_calls.TOO_MANY


def test_a_call_is_not_sent_with_less_time_than_its_tool_may_take(door, model, server, tool, monkeypatch):
    monkeypatch.setattr(tool_runner, "TOTAL_SECONDS", 1.5)
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="I could not.")
    reply_to_all()
    assert server.requests == []
    assert answers(model) == [tool_calls.NO_TIME]
    call = ToolCall.objects.get()
    assert (call.status, call.code, call.tries, call.is_open) == ("failed", "no_time", 0, False)


def test_a_call_of_unknown_outcome_that_there_is_no_time_to_repeat_is_shown_to_staff(
    door, model, server, tool, monkeypatch
):
    change(tool, may_repeat=True)
    server.fail_next(Fault(cut="after"))
    server.after = lambda: time.sleep(0.3)
    monkeypatch.setattr(tool_runner, "TOTAL_SECONDS", 2.2)
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    reply_to_all()
    assert len(server.requests) == 1
    assert answers(model) == [tool_calls.NOT_KNOWN]
    assert Conversation.objects.get().needs_staff_reason.startswith(tool_calls.OUTCOME_WANTED)


def test_a_call_of_a_dead_process_that_no_turn_finds_is_given_up_and_shown(door, model, server, tool):
    door.says("Charge me")
    [claim] = leases.claim(timezone.now(), 10)
    assert isinstance(tool_calls.begin(claim, tool.pk, CHARGE[1]), tool_calls.CallToMake)
    leases.give_back({claim.turn_id: claim.client_id}, timezone.now())
    assert tool_calls.recover(timezone.now()) == 0
    assert tool_calls.recover(ToolCall.objects.get().lease_until + timedelta(seconds=1)) == 1
    assert ToolCall.objects.get().status == "unknown"
    assert Conversation.objects.get().needs_staff_since is not None


def test_an_answer_that_comes_after_all_still_counts(door, model, server, tool):
    door.says("Charge me")
    [claim] = leases.claim(timezone.now(), 10)
    made = tool_calls.begin(claim, tool.pk, CHARGE[1])
    leases.give_back({claim.turn_id: claim.client_id}, timezone.now())
    [again] = leases.claim(timezone.now(), 10)
    assert tool_calls.begin(again, tool.pk, CHARGE[1]) == tool_calls.NOT_KNOWN
    tool_calls.record_result(made, make(made))
    assert tool_calls.begin(again, tool.pk, CHARGE[1]).startswith('{"charged": 5')
    assert server.charges == {"order-1": 1}


# --- what else knows of calls -----------------------------------------------------------------------------------------
def test_the_built_in_tools_are_the_same_kind_of_row(door, model):
    door.says("Hello")
    model.then("reply", tool_calls=[("set_topic", {"topic": "A greeting"})], text="Hello!")
    reply_to_all()
    call = ToolCall.objects.get()
    assert (call.name, call.arguments, call.status, call.answer, call.is_open) == (
        *("set_topic", {"topic": "A greeting"}, "answered", "The topic is set.", False),
    )
    assert call.turn_id == Turn.objects.get(status="committed").pk


def test_a_redacted_text_is_gone_from_calls_as_well(door, model, server, tool):
    conversation_id = door.says("Mullerman 4711")["conversation_id"]
    server.answer_with = lambda body: Reply(200, {"for": "Mullerman 4711"})
    model.then("reply", tool_calls=[("charge_card", {"order": "Mullerman 4711", "amount": 1})])
    reply_to_all()
    corrections.redact(conversation_id, 3, actor=STAFF, now=timezone.now())
    assert "Mullerman" not in json.dumps([*ToolCall.objects.values(), *Turn.objects.values()], default=str)
