"""A tool call is begun, made and recorded: what happened in between is seen at each step, in the row of the call."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from channels_out.tools import Outcome, ToolResult
from conversations.engines.contract import EngineError
from conversations.models import Client, Contact, Conversation, ConversationEvent, McpServer, Tool, ToolCall, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import leases, tool_calls
from conversations.services.replies.tool_calls import CallToMake
from conversations.services.tenants import tools
from conversations.services.transitions import closing, takeover
from memory.redaction import CARD_REMOVED
from tests.conversations import begun_calls
from tests.conversations.begun_calls import CARD, GRACE, HOUR, ORDER, begun, call_of, events, someone_else
from tests.races.row_changed import beside_change

pytestmark = pytest.mark.django_db

conversation, tool, turn = begun_calls.conversation, begun_calls.tool, begun_calls.turn


# --- the turn ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["given back", "claimed again", "deleted"])
def test_a_turn_that_was_lost_begins_nothing(conversation, shop, turn, tool, what):
    other = someone_else(shop)
    Turn.objects.create(conversation=other, attempt=turn.attempt, inbound_sequence=0, lease_until=timezone.now() + HOUR)
    call_of(conversation, tool, "approved")
    if what == "given back":
        leases.give_back({turn.turn_id: turn.client_id}, timezone.now())
    elif what == "claimed again":
        Turn.objects.filter(pk=turn.turn_id).update(attempt=turn.attempt + 1)
    else:
        Conversation.objects.filter(pk=conversation.pk).delete()
    with pytest.raises(EngineError) as lost:
        tool_calls.begin(turn, tool.pk, {"order": "order-2"})
    assert (lost.value.code, lost.value.retryable) == ("lost", True)
    assert tool_calls.begin_waiting(turn) is None
    assert not ToolCall.objects.exclude(status="approved").exists()


@pytest.mark.parametrize("what", ["closed", "taken over", "opted out"])
def test_a_silenced_assistant_calls_nothing_not_even_what_was_approved(conversation, turn, tool, what):
    call = call_of(conversation, tool, "approved", decided_at=timezone.now())
    if what == "closed":
        closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
        ToolCall.objects.update(status="approved", is_open=True)
    elif what == "taken over":
        takeover.take_over(conversation.pk, actor=GRACE, now=timezone.now())
    else:
        Contact.objects.filter(pk=conversation.contact_id).update(opted_out={"sms": "2026-01-01T00:00:00Z"})
    assert tool_calls.begin(turn, tool.pk, ORDER) == tool_calls.SILENCED
    assert tool_calls.begin_waiting(turn) is None
    call.refresh_from_db()
    assert (call.status, call.tries) == ("approved", 0)


@pytest.mark.parametrize("dropped, streamed, is_called", [(0, False, False), (1, False, False), (2, False, True)])
def test_a_newer_message_stops_the_calls_of_a_draft_that_would_be_dropped(
    conversation, turn, tool, door, dropped, streamed, is_called
):
    door.says("Wait")
    Conversation.objects.update(drafts_overtaken=dropped)
    told = tool_calls.begin(turn, tool.pk, ORDER)
    assert isinstance(told, CallToMake) if is_called else told == tool_calls.OVERTAKEN


def test_a_draft_that_is_being_shown_calls_though_a_newer_message_has_come(conversation, turn, tool, door):
    Turn.objects.update(streamed=True)
    door.says("And quickly")
    begun(turn, tool)


# --- the tool ---------------------------------------------------------------------------------------------------------
def gone(tool: Tool, how: str, neighbour: Client) -> None:
    """Something becomes of the tool after it was offered to the model."""
    if how == "deleted":
        tool.delete()
    elif how == "another client's":
        Tool.objects.filter(pk=tool.pk).update(client=neighbour)
    elif how == "switched off":
        Tool.objects.filter(pk=tool.pk).update(is_active=False)
    else:
        server = McpServer.objects.create(client=tool.client, name="s", url="https://mcp.example", is_active=False)
        Tool.objects.filter(pk=tool.pk).update(server=server, url="", remote_name="charge")


@pytest.mark.parametrize("how", ["deleted", "another client's", "switched off", "its server switched off"])
def test_a_tool_that_is_gone_since_it_was_offered_is_not_called(conversation, turn, tool, neighbour, how):
    tool_id, other = tool.pk, tools.create_tool(tool.client, "refund", url="https://shop.example/refund")[0]
    first = call_of(conversation, tool, "approved", created_at=timezone.now() - HOUR)
    second = call_of(conversation, other, "approved")
    gone(tool, how, neighbour)
    assert tool_calls.begin(turn, tool_id, {"order": "order-2"}) == tool_calls.GONE
    waiting = tool_calls.begin_waiting(turn)
    assert waiting is not None
    assert waiting.call_id == second.pk, "the others are made"
    first.refresh_from_db()
    assert (first.status, first.code, first.answer) == ("failed", "tool_gone", tool_calls.GONE)
    assert first.ended_at is not None


def test_a_call_leaves_with_what_its_tool_needs(conversation, turn, tool, settings):
    settings.TOOL_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    Contact.objects.update(name="Ann", phone="+51999999999", is_guest=False)
    Tool.objects.filter(pk=tool.pk).update(credentials={"secret": "s1"})
    before = timezone.now()
    made = begun(turn, tool)
    call = ToolCall.objects.get()
    assert (made.call_id, made.turn_id, made.attempt, made.tries) == (call.pk, turn.turn_id, turn.attempt, 1)
    asked = made.request
    assert (made.is_mcp, asked.name, asked.url, asked.arguments) == (False, "charge_card", tool.url, ORDER)
    assert (asked.key, asked.seconds, asked.secret, asked.headers) == (call.key, 2, "s1", {})
    assert asked.private == ("127.0.0.0/8",)
    assert (asked.contact["name"], asked.contact["phone"]) == ("Ann", "+51999999999")
    assert (call.status, call.tool_id, call.client_id) == ("calling", tool.pk, conversation.client_id)
    assert (call.turn_id, call.attempt, call.tries) == (turn.turn_id, turn.attempt, 1)
    lasts = call.lease_until - before
    assert timedelta(seconds=62) <= lasts < timedelta(seconds=120), "the time-out, and a minute"


def test_a_call_to_a_server_of_tools_leaves_with_what_the_server_needs(conversation, turn, tool):
    server = McpServer.objects.create(
        client=tool.client, name="s", url="https://mcp.example", headers={"x-key": "k"}, timeout_seconds=7
    )
    Tool.objects.filter(pk=tool.pk).update(server=server, url="", remote_name="charge")
    asked = begun(turn, tool)
    assert (asked.is_mcp, asked.request.name, asked.request.url) == (True, "charge", "https://mcp.example")
    assert (asked.request.headers, asked.request.seconds) == ({"x-key": "k"}, 7)


# --- the call, found or new -------------------------------------------------------------------------------------------
def test_an_answer_is_given_again_in_its_own_conversation_to_the_same_arguments_alone(conversation, shop, turn, tool):
    other = tools.create_tool(shop, "refund", url="https://shop.example/refund")[0]
    answered = call_of(conversation, tool, answer="R-1")
    call_of(conversation, tool, answer="R-2", arguments={"order": "order-2"})
    call_of(conversation, other, answer="R-3")
    for unlike in (someone_else(shop), conversation):
        call_of(unlike, tool, answer="not this", is_open=unlike != conversation, created_at=timezone.now() - HOUR)
    call_of(conversation, tool, answer="nor this", key=None, created_at=timezone.now() - HOUR)
    assert tool_calls.begin(turn, tool.pk, {"amount": 5.0, "order": "order-1"}) == "R-1"
    assert tool_calls.begin(turn, tool.pk, {"order": "order-2"}) == "R-2"
    assert tool_calls.begin(turn, other.pk, ORDER) == "R-3"
    answered.refresh_from_db()
    assert answered.given_to == turn.turn_id
    begun(turn, tool, {"order": "order-3"})


def test_a_call_of_before_is_answered_though_no_more_are_possible(conversation, shop, turn, tool):
    for number in range(tool_calls.MOST_CALLS - 1):
        call_of(conversation, tool, answer=f"R-{number}", arguments={"order": f"o{number}"})
    call_of(conversation, None, key=None)
    call_of(conversation, tool, is_open=False)
    call_of(someone_else(shop), tool)
    begun(turn, tool, {"order": "the last one"})
    assert tool_calls.begin(turn, tool.pk, {"order": "one more"}) == tool_calls.TOO_MANY
    assert tool_calls.begin(turn, tool.pk, {"order": "o7"}) == "R-7"


def test_card_numbers_are_no_arguments_and_no_answers(conversation, turn, tool):
    made = begun(turn, tool, {"order": CARD})
    assert made.request.arguments == {"order": CARD_REMOVED}
    assert tool_calls.record_result(made, ToolResult(Outcome.ANSWERED, f"Charged {CARD}")).answer == (
        f"Charged {CARD_REMOVED}"
    )
    call = ToolCall.objects.get()
    assert (call.arguments, call.answer) == ({"order": CARD_REMOVED}, f"Charged {CARD_REMOVED}")


@pytest.mark.parametrize(
    "changes, may_repeat, is_repeated", [(True, False, False), (True, True, True), (False, False, True)]
)
def test_a_call_remembers_what_its_tool_allowed(conversation, turn, tool, changes, may_repeat, is_repeated):
    Tool.objects.filter(pk=tool.pk).update(changes_something=changes, may_repeat=may_repeat)
    begun(turn, tool)
    call = ToolCall.objects.get()
    assert (call.changes_something, call.may_repeat) == (changes, is_repeated)


def committed(conversation: Conversation, ago: timedelta, code: str = "", status: str = "committed") -> Turn:
    now = timezone.now()
    turn = Turn.objects.create(
        conversation=conversation, attempt=1, inbound_sequence=0, lease_until=now, status=status, code=code
    )
    Turn.objects.filter(pk=turn.pk).update(started_at=now - ago)
    return turn


def test_a_call_s_key_is_that_of_the_last_reply_before_it(conversation, shop, turn, tool):
    committed(conversation, 3 * HOUR)
    last = committed(conversation, 2 * HOUR)
    committed(conversation, HOUR, code="stopped")
    committed(conversation, HOUR, status="failed")
    committed(someone_else(shop), HOUR)
    begun(turn, tool)
    call = ToolCall.objects.get()
    assert call.round == last.pk
    assert call.key == tool_calls.idempotency_key(conversation.pk, last.pk, tool.pk, ORDER)


def test_a_call_that_a_stopped_reply_was_told_of_is_not_made_again(conversation, turn, tool):
    made = begun(turn, tool)
    tool_calls.record_result(made, ToolResult(Outcome.ANSWERED, "R-1"))
    ToolCall.objects.update(is_open=False)
    assert tool_calls.begin(turn, tool.pk, ORDER) == "R-1"
    assert ToolCall.objects.count() == 1


def test_a_call_that_needs_approval_waits_and_calls_staff(conversation, turn, tool):
    Tool.objects.update(needs_approval=True)
    waiting_since = timezone.now() - HOUR
    Conversation.objects.update(needs_staff_since=waiting_since, needs_staff_reason="Help.")
    assert tool_calls.begin(turn, tool.pk, ORDER) == tool_calls.WAITS
    call, waits = ToolCall.objects.get(), Conversation.objects.get()
    assert (call.status, call.tries, call.given_to, call.lease_until) == ("waiting", 0, turn.turn_id, None)
    assert (waits.needs_staff_since, waits.needs_staff_reason) == (
        waiting_since,
        "Approve or refuse a call of the tool charge_card.",
    )
    assert events(conversation) == ["tool_approval_asked"]
    assert tool_calls.begin(turn, tool.pk, ORDER) == tool_calls.WAITS
    assert (events(conversation), tool_calls.begin_waiting(turn)) == (["tool_approval_asked"], None)


# --- tries and time ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", ["requested", "approved", "unknown"])
@pytest.mark.parametrize("tries", [tool_calls.MOST_TRIES - 1, tool_calls.MOST_TRIES])
def test_a_call_is_made_so_many_times(conversation, turn, tool, status, tries):
    call_of(conversation, tool, status, tries=tries, may_repeat=True, answer="Nothing yet.")
    told = tool_calls.begin(turn, tool.pk, ORDER)
    assert isinstance(told, CallToMake) is (tries < tool_calls.MOST_TRIES)
    assert ToolCall.objects.get().tries == tool_calls.MOST_TRIES


@pytest.mark.parametrize("status", ["waiting", "refused", "expired", "answered", "failed", "unknown"])
def test_a_call_that_may_not_be_made_is_told_of_instead(conversation, turn, tool, status):
    call_of(conversation, tool, status, tries=1, may_repeat=status != "unknown", answer="R-1", reason="too much")
    expected = {
        "waiting": tool_calls.WAITS,
        "unknown": tool_calls.NOT_KNOWN,
        "refused": "A colleague refused this. Nothing was done. The reason: too much",
    }
    assert tool_calls.begin(turn, tool.pk, ORDER) == expected.get(status, "R-1")
    call = ToolCall.objects.get()
    assert (call.status, call.tries, call.given_to) == (status, 1, turn.turn_id)


def test_a_model_is_told_something_where_there_is_no_word(conversation, turn, tool):
    call_of(conversation, tool, "answered")
    call_of(conversation, tool, "refused", arguments={"order": "order-2"})
    assert tool_calls.begin(turn, tool.pk, ORDER) == "Done."
    assert tool_calls.begin(turn, tool.pk, {"order": "order-2"}) == "A colleague refused this. Nothing was done."


@pytest.mark.parametrize("seconds, is_made", [(2.0, True), (1.9, False)])
def test_a_call_is_made_if_there_is_as_much_time_as_it_may_take(conversation, turn, tool, seconds, is_made):
    approved = call_of(conversation, tool, "approved", arguments={"order": "order-2"})
    assert (tool_calls.begin_waiting(turn, seconds) is not None) is is_made
    approved.refresh_from_db()
    assert approved.status == ("calling" if is_made else "approved")
    told = tool_calls.begin(turn, tool.pk, ORDER, seconds)
    assert isinstance(told, CallToMake) if is_made else told == tool_calls.NO_TIME


@pytest.mark.parametrize("way", ["begin", "begin_waiting"])
def test_what_became_of_a_call_that_there_is_no_time_to_repeat(conversation, turn, tool, way):
    for changes in (True, False):
        ToolCall.objects.all().delete()
        call = call_of(conversation, tool, "unknown", tries=1, may_repeat=True, changes_something=changes, code="cut")
        if way == "begin":
            assert tool_calls.begin(turn, tool.pk, ORDER, 1) == (
                tool_calls.NOT_KNOWN if changes else tool_calls.NO_ANSWER
            )
        else:
            assert tool_calls.begin_waiting(turn, 1) is None
        call.refresh_from_db()
        assert (call.status, call.code) == ("unknown" if changes else "failed", "cut")
        waits = Conversation.objects.get()
        assert waits.needs_staff_reason == "Find out whether this tool was carried out: charge_card."
    assert events(conversation) == ["tool_unknown"], "what only looks something up is nobody's business"


# --- before the model is asked ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "status, values, is_made",
    [
        ("approved", {}, True),
        ("unknown", {"may_repeat": True, "tries": 1}, True),
        ("unknown", {"may_repeat": True, "tries": 2}, False),
        ("unknown", {"may_repeat": False, "tries": 1}, False),
        ("calling", {"may_repeat": True, "tries": 1}, True),
        ("calling", {"may_repeat": False, "tries": 1}, False),
        ("requested", {"may_repeat": True, "tries": 1}, False),
        ("answered", {"may_repeat": True, "tries": 1}, False),
        ("waiting", {"may_repeat": True, "tries": 1}, False),
        ("approved", {"is_open": False}, False),
        ("approved", {"key": None}, False),
    ],
)
def test_the_calls_that_are_made_before_the_model_is_asked(conversation, turn, tool, status, values, is_made):
    call = call_of(conversation, tool, status, **values)
    made = tool_calls.begin_waiting(turn)
    assert (made.call_id if made else None) == (call.pk if is_made else None)


def test_the_oldest_call_of_the_conversation_is_made_first(conversation, shop, turn, tool):
    now = timezone.now()
    call_of(someone_else(shop), tool, "approved", created_at=now - 3 * HOUR)
    second = call_of(conversation, tool, "approved", created_at=now - HOUR)
    died = call_of(conversation, tool, "calling", tries=1, created_at=now - 2 * HOUR)
    made = tool_calls.begin_waiting(turn)
    assert made is not None
    assert made.call_id == second.pk
    died.refresh_from_db()
    assert (died.status, died.code, died.lease_until) == ("unknown", "interrupted", None)
    waits = Conversation.objects.get(pk=conversation.pk)
    assert waits.needs_staff_reason == "Find out whether this tool was carried out: charge_card."
    assert events(conversation) == ["tool_unknown"]
    assert ConversationEvent.objects.get(kind="tool_unknown").actor == SYSTEM.kind


def test_what_only_looks_something_up_has_failed_if_its_process_died(conversation, turn, tool):
    call = call_of(conversation, tool, "calling", tries=tool_calls.MOST_TRIES, changes_something=False)
    assert tool_calls.begin(turn, tool.pk, ORDER) == tool_calls.NO_ANSWER
    call.refresh_from_db()
    assert (call.status, call.code) == ("failed", "interrupted")
    assert Conversation.objects.get().needs_staff_since is None


@pytest.mark.django_db(transaction=True)
def test_a_call_that_is_redacted_while_it_is_begun_again_stays_redacted(conversation, turn, tool):
    """It is another call then: the model's arguments are not those of the redacted one."""
    call = call_of(conversation, tool, "approved", arguments=ORDER)
    beside_change(
        'UPDATE tool_calls SET arguments = \'{"order": "[redacted]"}\' WHERE id = %s',
        [call.pk],
        lambda: tool_calls.begin(turn, tool.pk, ORDER),
    )
    call.refresh_from_db()
    assert (call.status, call.arguments) == ("approved", {"order": "[redacted]"})
