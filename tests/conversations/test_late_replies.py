"""An own agent that answers later: the turn waits without anybody, and the fence decides when the agent calls back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Assistant, Chunk, Client, Conversation, Message, Step, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.jobs import forecast, overdue
from conversations.services.replies import late_replies, leases, pipeline
from conversations.services.staff_actions import corrections, seed_helpers
from conversations.services.transitions import closing, steps, takeover
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.agent_shop import answers_by_agent, call_back, deadlines_pass, due_now
from tests.conversations.back_office import page_of, sign_in
from tests.fakes.agent import LATER, Answer, FakeAgent, Stream
from tests.races.threads import together

pytestmark = pytest.mark.django_db
TIMELY = [("delta", {"text": "Now. "}), ("done", {})]


@pytest.fixture
def agent(shop: Client, settings: Any) -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        answers_by_agent(shop, settings, fake)
        yield fake


@pytest.fixture
def waits(door: Door, agent: FakeAgent) -> Any:
    """The request to which the agent said that it answers later."""
    agent.then(LATER)
    door.says("Where is my parcel?")
    assert reply_to_all() == 1
    return agent.requests[0]


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").values_list("content", flat=True))


def turns() -> list[str]:
    return list(Turn.objects.order_by("started_at").values_list("status", flat=True))


def look(**later: Any) -> None:
    """Do what a dispatcher does every second, so much later."""
    now = timezone.now() + timedelta(**later)
    leases.recover(now)
    late_replies.end_waiting(now)


def refused(answer: tuple[int, Any], code: str) -> None:
    status, envelope = answer
    assert (status, envelope["code"]) == (409, code), envelope
    assert envelope["error"].endswith(".")


# --- waiting ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "later",
    [Answer(status=202), Answer(b"whatever", status=202), Answer({"later": True}), Stream([("done", {"later": True})])],
)
def test_it_waits_until_the_agent_calls_back(door: Door, agent: FakeAgent, later: Any) -> None:
    agent.then(later)
    door.says("Where is my parcel?")
    assert reply_to_all() == 1
    look(seconds=590)  # of 600; the call before it may take a while
    assert reply_to_all() == 0, "nobody else writes it"
    assert (turns(), said()) == (["running"], [])

    status, envelope = call_back(door, agent.requests[0], "On its way.", "Tomorrow.")
    assert status == 200
    assert envelope["data"]["status"] == "committed"
    assert envelope["data"]["turn_id"] == agent.requests[0]["turn_id"]
    assert envelope["data"]["chunk"]["content"] == "On its way.\n\nTomorrow."
    assert send_all() == 1
    assert Message.objects.get().status == "delivered"
    assert Conversation.objects.get().reply_owed is False
    assert reply_to_all() == 0


def test_a_process_that_stops_or_dies_does_not_end_it(waits: Any) -> None:
    turn = Turn.objects.get()
    leases.renew({turn.pk: turn.client_id}, timezone.now())
    assert Turn.objects.get().lease_until == turn.waiting_until
    assert leases.give_back({turn.pk: turn.client_id}, timezone.now()) == 0
    assert leases.recover(timezone.now() + timedelta(days=2)) == 0
    assert turns() == ["running"]


def test_it_is_neither_overdue_nor_without_explanation(waits: Any) -> None:
    Conversation.objects.update(reply_due_at=timezone.now() - timedelta(minutes=9))
    assert overdue.oldest_overdue().oldest_reply_seconds == 0
    conversation = Conversation.objects.get()
    assert overdue.unattended_since(conversation, list(Turn.objects.all()), timezone.now()) is None
    says = [event.says for event in forecast.upcoming_events(conversation, timezone.now())]
    assert any("answers later" in each for each in says)
    page = sign_in("vera", conversation.client, "viewer").get(page_of(conversation)).content.decode()
    assert "The agent answers later, until" in page


def test_a_deadline_that_nobody_looks_at_is_overdue(waits: Any) -> None:
    Conversation.objects.update(reply_due_at=timezone.now() - timedelta(minutes=9))
    long_ago = timezone.now() - timedelta(minutes=5)
    Turn.objects.update(waiting_until=long_ago, lease_until=long_ago)
    assert overdue.oldest_overdue().oldest_reply_seconds > 60


def test_each_assistant_has_a_deadline_of_its_own(door: Door, agent: FakeAgent) -> None:
    Assistant.objects.update(agent_deadline_seconds=30)
    agent.then(LATER)
    door.says("Hello")
    reply_to_all()
    turn = Turn.objects.get()
    assert turn.waiting_until is not None
    assert agent.requests[0]["deadline"] == turn.waiting_until.isoformat()
    assert 25 < (turn.waiting_until - timezone.now()).total_seconds() <= 30


# --- the callback -----------------------------------------------------------------------------------------------------
def test_the_second_call_gets_the_answer_of_the_first(door: Door, waits: Any) -> None:
    first = call_back(door, waits, "On its way.")
    again = call_back(door, waits, "On its way.")
    other = call_back(door, waits, "Something else.", steps={"add": ["x"]})
    assert first == again == other
    assert (said(), Step.objects.count()) == (["On its way."], 0)


@pytest.mark.django_db(transaction=True)
def test_two_calls_at_once_are_one_reply(door: Door, waits: Any) -> None:
    answers = together(*[lambda: call_back(door, waits, "On its way.")] * 8)
    assert answers == [answers[0]] * 8
    assert answers[0][0] == 200
    assert said() == ["On its way."]


def test_its_steps_and_the_hand_over_are_done(door: Door, waits: Any) -> None:
    conversation = Conversation.objects.get()
    done = seed_helpers.add_step(conversation.pk, "Ask the number")
    steps.update_step(done.pk, "cancelled", SYSTEM)
    status, _ = call_back(
        door, waits, "I'll ask.", steps={"add": ["Call"], "complete": [done.pk]}, topic="T", current_goal=None,
        hand_over={"reason": "refund"},
    )  # fmt: skip
    assert status == 200
    assert list(Step.objects.values_list("description", "status")) == [
        ("Ask the number", "cancelled"),
        ("Call", "pending"),
    ], "a step that a colleague settled meanwhile stays as it is"
    conversation.refresh_from_db()
    assert (conversation.topic, conversation.needs_staff_reason) == ("T", "refund")


def test_it_may_say_nothing(door: Door, waits: Any) -> None:
    status, envelope = call_back(door, waits)
    assert (status, envelope["data"]["chunk"]) == (200, None)
    assert "said nothing" in Conversation.objects.get().needs_staff_reason
    assert call_back(door, waits, "x")[1]["data"]["chunk"] is None


def test_it_may_call_back_before_we_have_read_that_it_will(door: Door, agent: FakeAgent) -> None:
    door.says("Hello")
    [claim] = leases.claim(timezone.now(), 10)
    prepared = pipeline.prepare(claim)
    assert prepared is not None
    request, _ = prepared
    assert request.agent is not None
    assert call_back(door, request.agent.body, "Already here.")[0] == 200
    from conversations.engines.contract import Reply

    later = Reply("", "agent", later_until=request.agent.deadline)
    assert pipeline.commit(claim, later, timezone.now()) == "abandoned"
    assert said() == ["Already here."]


def test_an_invalid_answer_is_refused_and_the_turn_goes_on_waiting(door: Door, waits: Any) -> None:
    for wrong in ({"steps": {"complete": [4711]}}, {"end": "yes"}, {"hand_over": True}, {"topic": "x" * 300}):
        status, envelope = call_back(door, waits, "Hm", **wrong)
        assert (status, envelope["code"]) == (400, "invalid"), envelope
    body = {"turn_token": waits["turn_token"], "messages": "Hello"}
    assert door.call("POST", f"/conversations/{waits['conversation_id']}/replies", body)[0] == 400
    assert turns() == ["running"]
    assert call_back(door, waits, "On its way.")[0] == 200


# --- tokens and clients -----------------------------------------------------------------------------------------------
def test_a_token_that_is_not_of_a_turn_here_is_a_404(door: Door, agent: FakeAgent, waits: Any) -> None:
    agent.then(LATER)
    door.says("Hello", user_id="ben")
    reply_to_all()
    bens = agent.requests[1]
    for wrong in ("x", waits["turn_token"] + "x", bens["turn_token"], waits["turn_id"]):
        status, envelope = call_back(door, {**waits, "turn_token": wrong}, "Hi")
        assert (status, envelope["code"]) == (404, "not_found")
    for missing in ({}, {"turn_token": None}, {"turn_token": ""}, {"turn_token": 7}):
        path = f"/conversations/{waits['conversation_id']}/replies"
        assert door.call("POST", path, {"messages": ["Hi"], **missing})[0] == 400
    assert said() == []
    assert waits["turn_token"] not in str([*Turn.objects.values()])


def test_another_client_cannot_use_it(door: Door, waits: Any, neighbour: Client, neighbours_key: str) -> None:
    foreign = call_back(Door(neighbour, neighbours_key), waits, "Hi")
    never = call_back(Door(neighbour, neighbours_key), {**waits, "conversation_id": neighbour.pk}, "Hi")
    assert foreign == never
    assert foreign[0] == 404
    assert call_back(Door(door.shop, "nonsense"), waits, "Hi")[0] == 401
    assert said() == []


# --- the fence --------------------------------------------------------------------------------------------------------
def test_after_a_takeover_it_is_not_heard(door: Door, agent: FakeAgent, waits: Any) -> None:
    takeover.take_over(waits["conversation_id"], actor=SYSTEM, now=timezone.now(), name="Maria")
    for _ in range(2):
        refused(call_back(door, waits, "Hi"), "taken_over")
    assert (turns(), said()) == (["dropped"], [])


def test_a_hand_back_has_the_agent_asked_again(door: Door, agent: FakeAgent, waits: Any) -> None:
    takeover.take_over(waits["conversation_id"], actor=SYSTEM, now=timezone.now(), name="Maria")
    look()
    takeover.hand_back(waits["conversation_id"], actor=SYSTEM, now=timezone.now())
    due_now()
    reply_to_all()
    assert said() == ["You said: Where is my parcel?"]
    refused(call_back(door, waits, "Hi"), "taken_over")


def test_after_the_end_it_is_not_heard(door: Door, waits: Any) -> None:
    closing.close(waits["conversation_id"], ended_by="staff", actor=SYSTEM, now=timezone.now())
    look()
    assert turns() == ["dropped"]
    refused(call_back(door, waits, "Hi"), "ended")
    assert said() == []


def test_after_a_colleague_s_answer_it_is_not_heard(door: Door, waits: Any) -> None:
    door.call("POST", f"/conversations/{waits['conversation_id']}/send", {"content": "By hand"})
    look()
    refused(call_back(door, waits, "Hi"), "answered")
    assert said() == ["By hand"]


def test_after_an_opt_out_it_is_not_heard(door: Door, waits: Any) -> None:
    door.says("STOP")
    refused(call_back(door, waits, "Hi"), "opted_out")
    assert "Hi" not in said()


def test_who_answers_at_once_and_calls_back_is_heard_once(door: Door, agent: FakeAgent) -> None:
    agent.then(Stream(TIMELY))
    door.says("Hello")
    reply_to_all()
    refused(call_back(door, agent.requests[0], "Later."), "answered")
    assert said() == ["Now."]


def test_a_redaction_has_the_agent_asked_again(door: Door, agent: FakeAgent, waits: Any) -> None:
    corrections.redact(Conversation.objects.get().pk, 3, actor=SYSTEM, now=timezone.now())
    due_now()
    reply_to_all()
    refused(call_back(door, waits, "Hi"), "too_late")
    assert "parcel" not in str(agent.requests[1])


# --- newer messages ---------------------------------------------------------------------------------------------------
def test_a_newer_message_has_the_agent_asked_again_with_all_of_them(door: Door, agent: FakeAgent, waits: Any) -> None:
    door.says("It is 4711")
    assert reply_to_all() == 0
    look()
    assert reply_to_all() == 1
    first, second = agent.requests
    assert [each["content"] for each in second["messages"]] == ["Where is my parcel?", "It is 4711"]
    assert first["idempotency_key"] != second["idempotency_key"]
    refused(call_back(door, first, "Hi"), "overtaken")
    assert turns() == ["overtaken", "committed"]
    assert said() == ["You said: Where is my parcel? / It is 4711"]


def test_a_newer_message_that_is_not_due_yet_overtakes_it_as_well(door: Door, agent: FakeAgent, waits: Any) -> None:
    door.says("It is 4711")
    Conversation.objects.update(reply_due_at=timezone.now() + timedelta(seconds=2))
    look()
    assert turns() == ["running"], "more may come"
    refused(call_back(door, waits, "Hi"), "overtaken")
    assert (turns(), said()) == (["overtaken"], [])
    assert Conversation.objects.get().reply_owed is True


def test_somebody_who_never_stops_is_answered_by_the_third(door: Door, agent: FakeAgent, waits: Any) -> None:
    agent.then(LATER, LATER)
    for number in range(3):
        door.says(f"more {number}")
        look()
        reply_to_all()
    assert turns() == ["overtaken", "overtaken", "running"]
    assert call_back(door, agent.requests[2], "At last.")[0] == 200
    assert said() == ["At last."]
    assert Conversation.objects.get().reply_owed is True, "the newest message is still to be answered"
    reply_to_all()
    assert said() == ["At last.", "You said: more 2"]


# --- the deadline -----------------------------------------------------------------------------------------------------
def test_after_its_deadline_it_is_asked_again_with_the_same_key(door: Door, agent: FakeAgent, waits: Any) -> None:
    deadlines_pass()
    turn = Turn.objects.get()
    assert (turn.status, turn.code) == ("failed", "agent_late")
    refused(call_back(door, waits, "Hi"), "too_late")
    due_now()
    reply_to_all()
    assert agent.requests[1]["idempotency_key"] == waits["idempotency_key"]
    assert said() == ["You said: Where is my parcel?"]


def test_who_is_late_by_a_moment_is_late(door: Door, waits: Any) -> None:
    Turn.objects.update(waiting_until=timezone.now())
    refused(call_back(door, waits, "Hi"), "too_late")
    look()
    assert (turns(), said()) == (["failed"], [])


def test_who_never_calls_back_is_given_up(door: Door, agent: FakeAgent, settings: Any) -> None:
    settings.REPLY_ATTEMPTS = 3
    agent.then(*[LATER] * 9)
    door.says("Hello")
    for _ in range(5):
        due_now()
        reply_to_all()
        deadlines_pass()
    assert turns() == ["failed"] * 3
    assert said() == ["Sorry, I cannot answer right now. A colleague will get back to you."]
    assert "did not call back" in Conversation.objects.get().needs_staff_reason
    for request in agent.requests:
        refused(call_back(door, request, "Hi"), "too_late")


def test_with_an_idempotency_key_a_refusal_is_undone_and_the_dispatcher_goes_on(
    door: Door, agent: FakeAgent, waits: Any
) -> None:
    door.says("It is 4711")
    body = {"turn_token": waits["turn_token"], "messages": ["Hi"]}
    path = f"/conversations/{waits['conversation_id']}/replies"
    for _ in range(2):
        refused(door.call("POST", path, body, **{"Idempotency-Key": "k1"}), "overtaken")
    look()
    reply_to_all()
    assert said() == ["You said: Where is my parcel? / It is 4711"]
