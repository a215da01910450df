"""A reply is claimed, prepared, written and committed: what happened in between is seen at each step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.engines.contract import EngineError, Reply
from conversations.models import Chunk, Contact, Conversation, ConversationEvent, ToolCall, Turn
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.replies import late_replies, leases, pipeline, prompt_context, tool_calls
from conversations.services.staff_actions import send, tool_decisions
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conversations.conftest import wait_for_agent

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
GRACE = Actor("staff", "grace")
HELLO = Reply("Hello", "offline")
BUSY = EngineError("Busy.", code="http_503", retryable=True)


@pytest.fixture
def conversation(door: Any) -> Conversation:
    """An open conversation whose message is to be answered."""
    door.says("Hello")
    return Conversation.objects.get()


def claim(later: timedelta = timedelta()) -> leases.OwedTurn:
    [claimed] = leases.claim(timezone.now() + later, 10)
    return claimed


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("position").values_list("content", flat=True))


def turns() -> list[str]:
    return list(Turn.objects.order_by("started_at").values_list("status", flat=True))


# --- the claim --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("why", ["nothing is owed", "it is not due", "a colleague has it", "a turn runs"])
def test_what_is_not_to_be_answered_now_is_not_claimed(conversation, why):
    now = timezone.now()
    if why == "a turn runs":
        claim()
    changes: dict[str, dict[str, Any]] = {
        "nothing is owed": {"reply_owed": False},
        "it is not due": {"reply_due_at": now + HOUR},
        "a colleague has it": {"taken_over_at": now, "taken_over_until": now + HOUR},
    }
    Conversation.objects.update(**changes.get(why, {"topic": ""}))
    assert leases.claim(now, 10) == []


@pytest.mark.parametrize("count", ["reply_attempts", "reply_crashes"])
@pytest.mark.parametrize(("before", "exhausted"), [(2, False), (3, True)])
def test_the_last_try_is_made_and_none_after_it(conversation, settings, count, before, exhausted):
    """Of three tries two are used, or all: by failures, or by processes that died."""
    settings.REPLY_ATTEMPTS = 3
    Conversation.objects.update(**{count: before})
    assert claim().exhausted is exhausted


def test_a_process_that_dies_at_the_last_try_uses_up_the_last_try(conversation, settings):
    settings.REPLY_ATTEMPTS = 2
    for hours in range(2):
        assert not claim(hours * HOUR).exhausted
        assert leases.recover(timezone.now() + (hours + 1) * HOUR) == 1
    assert claim(3 * HOUR).exhausted
    assert set(turns()) == {"abandoned", "running"}


def test_a_reply_that_is_being_written_takes_no_place_of_the_next_one_that_is_due(conversation, door):
    claim()
    door.says("Hello", user_id="bob")
    Conversation.objects.filter(pk=conversation.pk).update(reply_due_at=timezone.now() - HOUR)
    [bob_s] = leases.claim(timezone.now(), 1)
    assert bob_s.conversation_id != conversation.pk


def test_a_process_that_died_costs_the_conversation_no_try_and_one_that_came_back_is_no_crash(conversation):
    claim()
    leases.recover(timezone.now() + HOUR)
    again = claim(HOUR)
    assert again.attempt == 1
    assert Conversation.objects.get().reply_crashes == 1
    pipeline.fail(again, BUSY, timezone.now())
    assert Conversation.objects.get().reply_crashes == 0


def test_an_overtaken_draft_gives_the_newer_message_all_its_tries(conversation, door, settings):
    settings.REPLY_ATTEMPTS = 2
    pipeline.fail(claim(), BUSY, timezone.now())
    overtaken = claim(HOUR)
    assert overtaken.attempt == 2
    Conversation.objects.update(reply_crashes=1)
    door.says("And another thing")
    assert pipeline.commit(overtaken, HELLO, timezone.now()) == "overtaken"
    again = claim(HOUR)
    assert (again.attempt, again.exhausted) == (1, False)
    pipeline.fail(again, BUSY, timezone.now())
    assert said() == [], "it is tried once more"
    assert Conversation.objects.get().reply_crashes == 0


# --- a turn that is not ours any more ---------------------------------------------------------------------------------
def lose(how: str) -> None:
    if how == "its lease ran out":
        assert leases.recover(timezone.now() + HOUR) == 1
        claim(HOUR)
    else:
        Turn.objects.update(attempt=2)


@pytest.mark.parametrize("how", ["its lease ran out", "another attempt began"])
@pytest.mark.parametrize("step", ["prepare", "commit", "fail", "hand over", "stop waiting"])
def test_a_turn_that_was_lost_writes_nothing(conversation, how, step):
    lost = claim()
    lose(how)
    before = list(Turn.objects.order_by("started_at").values())
    now = timezone.now()
    if step == "prepare":
        assert pipeline.prepare(lost) is None
    elif step == "commit":
        assert pipeline.commit(lost, HELLO, now) == "abandoned"
    elif step == "fail":
        assert pipeline.fail(lost, EngineError("No.", code="http_400", retryable=False), now) == "abandoned"
    elif step == "hand over":
        pipeline.hand_over(lost, "a person was asked for", now)
    else:
        pipeline.stop_waiting(lost, now)
    assert list(Turn.objects.order_by("started_at").values()) == before
    conversation.refresh_from_db()
    assert (said(), conversation.reply_owed, conversation.taken_over_at) == ([], True, None)


def test_a_turn_that_ends_while_its_prompt_is_made_keeps_no_prompt(conversation, monkeypatch):
    ours, make = claim(), prompt_context.prompt_for

    def ends(*given: Any) -> Any:
        leases.recover(timezone.now() + HOUR)
        return make(*given)

    monkeypatch.setattr(prompt_context, "prompt_for", ends)
    pipeline.prepare(ours)
    assert Turn.objects.get().prompt is None


def test_a_turn_that_was_committed_is_neither_given_back_nor_renewed(conversation):
    ours = claim()
    pipeline.commit(ours, HELLO, timezone.now())
    before = Turn.objects.get().lease_until
    leases.renew({ours.turn_id: ours.client_id}, timezone.now() + HOUR)
    assert leases.give_back({ours.turn_id: ours.client_id}, timezone.now()) == 0
    turn = Turn.objects.get()
    assert (turn.status, turn.lease_until) == ("committed", before)


@pytest.mark.parametrize("why", ["its lease lasts", "its reader waits for it", "it waits for its agent"])
def test_a_turn_that_somebody_still_has_is_not_recovered(conversation, why):
    claim()
    later = timezone.now() + HOUR
    if why == "its reader waits for it":
        Turn.objects.update(streamed=True)
    elif why == "it waits for its agent":
        Turn.objects.update(waiting_until=later)
    assert leases.recover(timezone.now() if why == "its lease lasts" else later) == 0
    assert turns() == ["running"]


# --- the fence --------------------------------------------------------------------------------------------------------
def happens(what: str, conversation: Conversation) -> None:
    now = timezone.now()
    if what == "ended":
        closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=now)
    elif what == "taken_over":
        takeover.take_over(conversation.pk, actor=GRACE, now=now)
    elif what == "answered":
        send.send(conversation.pk, "By hand", actor=GRACE, now=now)
    else:  # on another channel's door, say: nobody settled what is owed
        Contact.objects.update(opted_out={"sms": {"since": now.isoformat(), "word": "stop", "by": "contact"}})


@pytest.mark.parametrize("what", ["ended", "taken_over", "opted_out", "answered"])
@pytest.mark.parametrize("step", ["commit", "fail", "fail for good", "hand over", "wait"])
def test_nothing_is_said_or_done_after_what_silences_the_assistant(conversation, what, step):
    ours, now = claim(), timezone.now()
    happens(what, conversation)
    before = said()
    if step == "commit":
        pipeline.commit(ours, HELLO, now)
    elif step == "wait":
        pipeline.commit(ours, Reply("", "agent", later_until=now + HOUR), now)
    elif step == "hand over":
        pipeline.hand_over(ours, "a person was asked for", now)
    else:
        pipeline.fail(ours, BUSY if step == "fail" else EngineError("No.", code="http_400", retryable=False), now)
    turn = Turn.objects.get()
    assert (turn.status, turn.code) == ("dropped", what)
    assert said() == before, "no word of the assistant's, nor its fallback"
    conversation.refresh_from_db()
    assert conversation.needs_staff_since is None
    assert (conversation.taken_over_name, bool(conversation.taken_over_at)) == (
        ("grace", True) if what == "taken_over" else ("", False)
    )
    if step != "hand over":
        assert conversation.reply_owed is (what == "taken_over")
    assert not ConversationEvent.objects.filter(kind__in=["needs_staff", "fallback_said"]).exists()


# --- replies that come later ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["ended", "taken_over", "answered"])
def test_a_turn_that_waits_for_what_would_not_be_said_ends_at_the_next_look(conversation, what):
    wait_for_agent(conversation.pk, "token")
    happens(what, conversation)
    late_replies.end_waiting(timezone.now())
    turn = Turn.objects.get()
    assert (turn.status, turn.code) == ("dropped", what)


def test_a_turn_goes_on_waiting_if_what_was_seen_is_over_when_it_is_locked(conversation, monkeypatch):
    wait_for_agent(conversation.pk, "token")
    happens("taken_over", conversation)
    look = late_replies.rows_over_all

    def handed_back(*given: Any) -> Any:
        found = look(*given)
        takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
        return found

    monkeypatch.setattr(late_replies, "rows_over_all", handed_back)
    late_replies.end_waiting(timezone.now())
    assert turns() == ["running"]


# --- tool calls -------------------------------------------------------------------------------------------------------
def call_of(conversation: Conversation, name: str, status: str = "waiting", **more: Any) -> ToolCall:
    return ToolCall.objects.create(
        client=conversation.client, conversation=conversation, name=name, key=name, status=status, **more
    )


def test_a_conversation_waits_for_staff_until_the_last_of_its_calls_is_decided(conversation):
    one, other = call_of(conversation, "refund"), call_of(conversation, "charge", "unknown")
    reason = f"{tool_calls.APPROVAL_WANTED}refund."
    Conversation.objects.update(needs_staff_since=timezone.now(), needs_staff_reason=reason)
    tool_decisions.approve(conversation.pk, one.pk, actor=GRACE, now=timezone.now())
    assert Conversation.objects.get().needs_staff_reason == reason
    tool_decisions.settle(conversation.pk, other.pk, done=True, actor=GRACE, now=timezone.now())
    assert Conversation.objects.get().needs_staff_since is None


def test_a_decision_on_a_call_leaves_it_waiting_for_staff_for_another_reason(conversation):
    call = call_of(conversation, "refund")
    Conversation.objects.update(needs_staff_since=timezone.now(), needs_staff_reason="A reply failed.")
    tool_decisions.refuse(conversation.pk, call.pk, actor=GRACE, now=timezone.now())
    assert Conversation.objects.get().needs_staff_reason == "A reply failed."


def test_what_became_of_a_call_is_settled_once(conversation):
    call = call_of(conversation, "refund", "unknown")
    tool_decisions.settle(conversation.pk, call.pk, done=True, actor=GRACE, now=timezone.now())
    with pytest.raises(Exception, match="The outcome of this call is known: answered"):
        tool_decisions.settle(conversation.pk, call.pk, done=False, actor=GRACE, now=timezone.now())
    assert ToolCall.objects.get().answer == tool_decisions.DONE


def test_a_call_is_decided_only_in_its_own_conversation(conversation, shop):
    elsewhere = call_of(factories.ConversationFactory(client=shop), "refund")
    with pytest.raises(Exception, match="There is no such tool call"):
        tool_decisions.approve(conversation.pk, elsewhere.pk, actor=GRACE, now=timezone.now())
    assert ToolCall.objects.get().status == "waiting"


def test_a_call_that_was_settled_after_the_end_is_open_for_nobody(conversation):
    call = call_of(conversation, "refund", "unknown")
    closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    tool_decisions.settle(conversation.pk, call.pk, done=True, actor=GRACE, now=timezone.now())
    call.refresh_from_db()
    assert (call.status, call.is_open, call.given_to) == ("answered", False, None)


@pytest.mark.parametrize("what", ["answered", "renewed"])
def test_a_call_that_got_further_between_the_look_and_the_recovery_is_left_alone(conversation, monkeypatch, what):
    now = timezone.now()
    call_of(conversation, "refund", "calling", lease_until=now - HOUR, tries=1)
    look = tool_calls.editing_if_there

    def meanwhile(conversation_id: Any, client_id: Any) -> Any:
        change = {"status": "answered", "lease_until": None} if what == "answered" else {"lease_until": now + HOUR}
        ToolCall.objects.update(**change)
        return look(conversation_id, client_id)

    monkeypatch.setattr(tool_calls, "editing_if_there", meanwhile)
    assert tool_calls.recover(now) == 0
    assert ToolCall.objects.get().status == ("answered" if what == "answered" else "calling")


def test_a_call_that_was_recovered_is_not_made_again_though_its_tool_would_allow_it(conversation):
    now = timezone.now()
    call_of(conversation, "refund", "calling", lease_until=now - HOUR, tries=1, may_repeat=True)
    assert tool_calls.recover(now) == 1
    call = ToolCall.objects.get()
    assert (call.status, tool_calls.may_be_made(call)) == ("unknown", False)
    assert tool_calls.begin_waiting(claim()) is None
