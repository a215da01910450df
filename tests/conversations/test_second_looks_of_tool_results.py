"""The result of a tool call is kept once, by the try that counts, and a call whose process died is given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from channels_out.tools import Outcome, ToolResult
from conversations.models import Conversation, Tool, ToolCall
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import tool_calls
from conversations.services.replies.tool_calls import Recorded
from conversations.services.transitions import closing
from tests.conversations import begun_calls
from tests.conversations.begun_calls import HOUR, begun, call_of, events, someone_else
from tests.races.row_changed import beside_change

pytestmark = pytest.mark.django_db

conversation, tool, turn = begun_calls.conversation, begun_calls.tool, begun_calls.turn


# --- its result -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "outcome, text, status, told, kinds",
    [
        ("answered", "R-1", "answered", "R-1", ["tool_answered"]),
        ("answered", "", "answered", "Done.", ["tool_answered"]),
        ("failed", "No such order.", "failed", "No such order.", ["tool_failed"]),
        ("unknown", "", "unknown", tool_calls.NOT_KNOWN, ["tool_unknown"]),
        ("not_sent", "Not reached.", "requested", "Not reached.", []),
    ],
)
def test_a_result_is_kept_in_the_row_and_in_the_ledger(conversation, turn, tool, outcome, text, status, told, kinds):
    made = begun(turn, tool)
    code = "refused" if outcome == "not_sent" else "c" * 60
    recorded = tool_calls.record_result(made, ToolResult(Outcome(outcome), text, code))
    call = ToolCall.objects.get()
    assert recorded == Recorded(told)
    assert (call.status, call.lease_until, call.given_to) == (status, None, turn.turn_id)
    assert call.code == code[:40]
    assert (call.ended_at is None) is (outcome == "not_sent")
    assert events(conversation) == kinds
    waits = Conversation.objects.get()
    assert (waits.needs_staff_since is not None) is (outcome == "unknown")


@pytest.mark.parametrize("tries, again", [(1, True), (2, False)])
def test_a_call_of_unknown_outcome_that_may_be_repeated_is_made_once_more(conversation, turn, tool, tries, again):
    Tool.objects.update(may_repeat=True)
    for _ in range(tries):
        made = begun(turn, tool)
        recorded = tool_calls.record_result(made, ToolResult(Outcome.UNKNOWN, code="timeout"))
    assert recorded == Recorded(tool_calls.NOT_KNOWN, again)
    assert events(conversation) == ([] if again else ["tool_unknown"])
    assert (Conversation.objects.get().needs_staff_since is None) is again


@pytest.mark.parametrize("text, told", [("", tool_calls.NO_ANSWER), ("Half an answer", "Half an answer")])
def test_what_only_looks_something_up_and_does_not_answer_has_failed(conversation, turn, tool, text, told):
    Tool.objects.update(changes_something=False)
    recorded = tool_calls.record_result(begun(turn, tool), ToolResult(Outcome.UNKNOWN, text, "timeout"))
    assert recorded == Recorded(told)
    assert (ToolCall.objects.get().status, Conversation.objects.get().needs_staff_since) == ("failed", None)


@pytest.mark.parametrize("tries, code, status", [(1, "http_409", "failed"), (2, "http_409", "unknown")])
def test_a_tool_that_is_still_busy_with_the_first_request_has_not_refused(
    conversation, turn, tool, tries, code, status
):
    Tool.objects.update(may_repeat=True)
    made = begun(turn, tool)
    if tries == 2:
        tool_calls.record_result(made, ToolResult(Outcome.UNKNOWN, code="timeout"))
        made = begun(turn, tool)
    tool_calls.record_result(made, ToolResult(Outcome.FAILED, "In progress.", code))
    assert ToolCall.objects.get().status == status


def test_a_refusal_of_a_second_try_is_a_refusal(conversation, turn, tool):
    Tool.objects.update(may_repeat=True)
    tool_calls.record_result(begun(turn, tool), ToolResult(Outcome.UNKNOWN, code="timeout"))
    tool_calls.record_result(begun(turn, tool), ToolResult(Outcome.FAILED, "No.", "http_422"))
    assert ToolCall.objects.get().status == "failed"


@pytest.mark.parametrize("unlike", ["turn_id", "attempt", "tries"])
@pytest.mark.parametrize("outcome", ["answered", "failed", "unknown", "not_sent"])
def test_of_a_try_that_was_given_up_an_answer_counts_and_nothing_else(conversation, turn, tool, unlike, outcome):
    made = begun(turn, tool)
    other = uuid4()
    call = ToolCall.objects.get()
    values = {"turn_id": other, "attempt": made.attempt + 1, "tries": made.tries + 1}
    ToolCall.objects.update(**{unlike: values[unlike]}, may_repeat=True, given_to=other)
    told = tool_calls.record_result(made, ToolResult(Outcome(outcome), "R-1", "late"))
    call.refresh_from_db()
    is_told = outcome == "answered"
    assert told == Recorded("R-1" if is_told else tool_calls.NOT_KNOWN)
    assert (call.status, call.given_to) == ("answered" if is_told else "calling", other)


@pytest.mark.parametrize("status", ["failed", "answered", "requested"])
def test_a_result_that_comes_after_a_colleague_has_found_out_changes_nothing(conversation, turn, tool, status):
    made = begun(turn, tool)
    ToolCall.objects.update(status=status, answer="A colleague knows.")
    assert tool_calls.record_result(made, ToolResult(Outcome.ANSWERED, "R-1")).answer == "A colleague knows."
    assert events(conversation) == []


def test_a_result_follows_its_call_into_the_conversation_that_it_was_merged_into(
    conversation, shop, turn, tool, monkeypatch
):
    made, other, lock = begun(turn, tool), someone_else(shop), tool_calls.editing_if_there

    def merged(conversation_id: Any, client_id: Any) -> Any:
        ToolCall.objects.update(conversation=other)
        return lock(conversation_id, client_id)

    monkeypatch.setattr(tool_calls, "editing_if_there", merged)
    assert tool_calls.record_result(made, ToolResult(Outcome.UNKNOWN)).answer == tool_calls.NOT_KNOWN
    assert (events(conversation), events(other)) == ([], ["tool_unknown"])
    other.refresh_from_db()
    conversation.refresh_from_db()
    assert (other.needs_staff_since is None, conversation.needs_staff_since) == (False, None)


@pytest.mark.parametrize("text, told", [("R-1", "R-1"), ("", tool_calls.NO_ANSWER)])
def test_a_result_of_a_call_that_was_deleted_is_told_all_the_same(conversation, turn, tool, text, told):
    made = begun(turn, tool)
    Conversation.objects.all().delete()
    ToolCall.objects.all().delete()
    assert tool_calls.record_result(made, ToolResult(Outcome.ANSWERED, text)) == Recorded(told)
    assert tool_calls.record_result(replace(made, call_id=uuid4()), ToolResult(Outcome.UNKNOWN, text)).answer == told


@pytest.mark.django_db(transaction=True)
def test_a_call_that_is_redacted_while_its_result_comes_stays_redacted(conversation, turn, tool):
    """A redaction in another conversation of the person reaches the calls of this one, and locks them alone."""
    made = begun(turn, tool)
    recorded = beside_change(
        'UPDATE tool_calls SET arguments = \'{"order": "[redacted]"}\' WHERE id = %s',
        [made.call_id],
        lambda: tool_calls.record_result(made, ToolResult(Outcome.ANSWERED, "R-1")),
    )
    assert recorded == Recorded("R-1")
    call = ToolCall.objects.get()
    assert (call.status, call.answer, call.arguments) == ("answered", "R-1", {"order": "[redacted]"})


# --- processes that died ----------------------------------------------------------------------------------------------
def test_a_lease_is_over_after_its_last_moment_and_the_number_of_recoveries_is_told(conversation, tool):
    now = timezone.now()
    call_of(conversation, tool, "calling", lease_until=now, tries=1)
    call_of(conversation, tool, "unknown", lease_until=now - HOUR)
    assert tool_calls.recover(now) == 0
    looked_up = call_of(conversation, tool, "calling", lease_until=now - HOUR, tries=1, changes_something=False)
    assert tool_calls.recover(now + timedelta(seconds=1)) == 2
    looked_up.refresh_from_db()
    assert (looked_up.status, looked_up.answer, looked_up.ended_at) == (
        *("failed", tool_calls.NO_ANSWER),
        now + timedelta(seconds=1),
    )
    assert events(conversation) == ["tool_unknown"]
    assert tool_calls.recover(now + HOUR) == 0


def test_a_call_is_given_up_after_the_end_as_well(conversation, tool):
    now = timezone.now()
    call_of(conversation, tool, "calling", lease_until=now - HOUR, tries=1)
    closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=now)
    assert tool_calls.recover(now) == 1
    assert ToolCall.objects.get().status == "unknown"
