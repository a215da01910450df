"""Tools that need approval: a colleague decides, the call is made once, and the reply goes on."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.utils import timezone

from conversations.engines.registry import ask
from conversations.models import Chunk, Conversation, ToolCall
from conversations.services.core import tool_requests
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.replies import leases, pipeline, tool_calls, tool_outcomes, tool_runner
from conversations.services.staff_actions import send, tool_decisions
from conversations.services.transitions import closing, takeover
from tests.conftest import reply_to_all
from tests.conversations import tool_shop
from tests.conversations.tool_shop import CHARGE, STAFF, answers, background, change, draft
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db

model, server, tool = tool_shop.model, tool_shop.server, tool_shop.tool


def asked_for_approval(door, model, tool) -> ToolCall:
    """The call that waits, after the model was told so and went on."""
    change(tool, needs_approval=True)
    door.says("Charge me")
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="A colleague will look at it.")
    reply_to_all()
    assert answers(model) == [tool_calls.WAITS]
    return ToolCall.objects.get()


def test_an_approved_call_is_made_before_the_model_is_asked_again(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    conversation = Conversation.objects.get()
    assert (call.status, server.requests) == ("waiting", [])
    assert conversation.needs_staff_reason == "Approve or refuse a call of the tool charge_card."
    assert reply_to_all() == 0

    tool_decisions.approve(conversation.pk, call.pk, actor=STAFF, now=timezone.now())
    model.then("reply", text="It is charged.")
    assert reply_to_all() == 1
    assert server.charges == {"order-1": 1}
    assert "R-order-1" in background(model)
    assert [chunk.content for chunk in Chunk.objects.filter(role="ai")] == [
        "A colleague will look at it.",
        "It is charged.",
    ]
    assert Conversation.objects.get().needs_staff_since is None
    assert reply_to_all() == 0, "and that is that"
    assert (ToolCall.objects.get().status, ToolCall.objects.get().decided_by_name) == ("answered", "grace")
    again = tool_decisions.approve(conversation.pk, call.pk, actor=STAFF, now=timezone.now())
    assert again.status == "answered", "the same decision again changes nothing, also after the call was made"
    assert reply_to_all() == 0
    assert server.charges == {"order-1": 1}


def test_approved_calls_are_begun_one_at_a_time_and_the_unsent_one_survives_a_crash(door, model, server, tool):
    change(tool, needs_approval=True)
    door.says("Charge both")
    model.then("reply", tool_calls=[CHARGE, ("charge_card", {"order": "order-2", "amount": 5})])
    reply_to_all()
    for call in ToolCall.objects.all():
        tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    [claim] = leases.claim(timezone.now(), 10)
    assert tool_calls.begin_waiting(claim).request.arguments["order"] == "order-1"
    assert [call.status for call in ToolCall.objects.all()] == ["calling", "approved"]

    leases.give_back({claim.turn_id: claim.client_id}, timezone.now())  # as a dispatcher that dies
    reply_to_all()
    assert server.charges == {"order-2": 1}
    assert [call.status for call in ToolCall.objects.all()] == ["unknown", "answered"]


def test_an_approved_call_for_which_there_is_no_time_stays_approved(door, model, server, tool, monkeypatch):
    call = asked_for_approval(door, model, tool)
    tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    [claim] = leases.claim(timezone.now(), 10)
    with monkeypatch.context() as short:
        short.setattr(tool_runner, "TOTAL_SECONDS", 1.5)
        tool_runner.make_waiting(claim, lambda work, *values: work(*values))
    assert (server.requests, ToolCall.objects.get().status) == ([], "approved")

    request, engine = pipeline.prepare(claim)
    pipeline.commit(claim, ask(engine, request), timezone.now())
    assert tool_calls.STILL_APPROVED in background(model)
    assert reply_to_all() == 1, "it is still owed"
    assert server.charges == {"order-1": 1}


def test_an_approved_call_that_may_be_repeated_is_made_again_at_once(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    ToolCall.objects.update(may_repeat=True)
    tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    server.fail_next(Fault(cut="after"))
    reply_to_all()
    assert server.charges == {"order-1": 1}
    assert (len(server.requests), ToolCall.objects.get().status) == (2, "answered")


def test_a_refusal_is_told_with_its_reason(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    tool_decisions.refuse(call.conversation_id, call.pk, reason="too much", actor=STAFF, now=timezone.now())
    model.then("reply", text="I may not.")
    assert reply_to_all() == 1
    assert "A colleague refused this. Nothing was done. The reason: too much" in background(model)
    assert server.requests == []
    assert reply_to_all() == 0


def test_a_decision_that_comes_while_a_draft_is_written_is_told_by_the_next(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    door.says("Hello?")
    model.then("reply", text="Still waiting.")
    claim, outcome = draft()
    tool_decisions.refuse(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    assert pipeline.commit(claim, outcome, timezone.now()) == "committed"
    assert reply_to_all() == 1
    assert "A colleague refused this" in background(model)


@pytest.mark.django_db(transaction=True)
def test_a_refusal_that_comes_while_the_prompt_is_made_is_told_by_the_next_draft(
    door, model, server, tool, monkeypatch
):
    call = asked_for_approval(door, model, tool)
    refusing = threading.Thread(target=refuse_elsewhere, args=[call])
    give = tool_outcomes.column

    def slow(*values):
        if not refusing.ident:
            refusing.start()
            refusing.join(0.5)  # it waits until the draft was given the calls
        return give(*values)

    monkeypatch.setattr(tool_outcomes, "column", slow)
    door.says("Hello?")
    model.then("reply", text="Still waiting.")
    reply_to_all()
    refusing.join()
    reply_to_all()
    assert "A colleague refused this" in background(model)


def refuse_elsewhere(call: ToolCall) -> None:
    """Refuse the call as another process does."""
    try:
        tool_decisions.refuse(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    finally:
        connection.close()


def test_a_decision_is_final_and_the_same_one_again_changes_nothing(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    for _ in range(2):
        tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    with pytest.raises(Exception, match="does not wait for approval: it is approved"):
        tool_decisions.refuse(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    reply_to_all()
    assert server.charges == {"order-1": 1}


def test_a_request_expires_with_its_conversation(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    closing.close(call.conversation_id, ended_by="system", actor=SYSTEM, now=timezone.now())
    assert ToolCall.objects.get().status == "expired"
    with pytest.raises(Exception, match="This conversation is closed"):
        tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())


@pytest.mark.parametrize("by", ["a colleague", "a program", "the person's STOP"])
def test_an_approved_call_expires_where_the_assistant_no_longer_replies(door, model, server, tool, by):
    call = asked_for_approval(door, model, tool)
    takeover.take_over(call.conversation_id, actor=STAFF, now=timezone.now())
    tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    assert reply_to_all() == 0
    if by == "the person's STOP":
        door.says("STOP")
    else:
        actor = STAFF if by == "a colleague" else Actor("api", "crm")
        send.send(call.conversation_id, "I did it for you.", actor=actor, now=timezone.now())
    expired = ToolCall.objects.get()
    assert (expired.status, expired.answer) == ("expired", tool_requests.ANSWERED_OTHERWISE)

    takeover.hand_back(call.conversation_id, actor=STAFF, now=timezone.now())
    door.says("START" if by == "the person's STOP" else "Thank you")
    reply_to_all()
    assert server.requests == []


def test_a_call_that_was_approved_during_a_takeover_is_made_after_the_hand_back(door, model, server, tool):
    call = asked_for_approval(door, model, tool)
    takeover.take_over(call.conversation_id, actor=STAFF, now=timezone.now())
    tool_decisions.approve(call.conversation_id, call.pk, actor=STAFF, now=timezone.now())
    takeover.hand_back(call.conversation_id, actor=STAFF, now=timezone.now())
    reply_to_all()
    assert server.charges == {"order-1": 1}


def test_what_a_colleague_finds_out_of_an_unknown_call_is_told(door, model, server, tool):
    door.says("Charge me")
    server.fail_next(Fault(cut="after"))
    model.then("reply", tool_calls=[CHARGE])
    reply_to_all()
    call = ToolCall.objects.get()
    tool_decisions.settle(call.conversation_id, call.pk, done=True, actor=STAFF, now=timezone.now())
    assert Conversation.objects.get().needs_staff_since is None
    assert reply_to_all() == 0
    door.says("And?")
    reply_to_all()
    assert tool_decisions.DONE in background(model)
