"""Outcomes of tool calls are told to drafts, settled by replies and decided by colleagues: each row by its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from conversations.engines.contract import Reply, ToolAction
from conversations.engines.contract import ToolCall as NotedCall
from conversations.models import Assistant, Client, Conversation, ConversationEvent, McpServer, Tool, ToolCall, Turn
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.replies import tool_calls, tool_outcomes
from conversations.services.staff_actions import tool_decisions
from conversations.services.transitions import closing
from tests import factories
from tests.races.row_changed import beside_change

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
STATUSES = ["waiting", "approved", "refused", "expired", "requested", "calling", "answered", "failed", "unknown"]
TOLD = {"refused", "requested", "answered", "failed", "unknown"}
SILENT = Reply("Hello", "offline")


@pytest.fixture
def conversation(door: Any) -> Conversation:
    """An open conversation whose message is to be answered."""
    door.says("Charge me")
    return Conversation.objects.get()


@pytest.fixture
def grace(db: Any) -> Actor:
    """A colleague."""
    return Actor("staff", "grace", get_user_model().objects.create_user("grace").pk)


def call_of(conversation: Conversation, status: str = "answered", **more: Any) -> ToolCall:
    values = {"name": "refund", "key": uuid4().hex, **more}
    return ToolCall.objects.create(client_id=conversation.client_id, conversation=conversation, status=status, **values)


def turn_of(conversation: Conversation) -> Turn:
    return Turn.objects.create(conversation=conversation, attempt=3, inbound_sequence=1, lease_until=timezone.now())


def someone_else(shop: Client) -> Conversation:
    """Another conversation of the shop's."""
    return factories.ConversationFactory(client=shop)


def last_event(kind: str) -> ConversationEvent:
    return ConversationEvent.objects.filter(kind=kind).get()


# --- which tools are offered ------------------------------------------------------------------------------------------
def offered(conversation: Conversation) -> list[str]:
    return [tool.name for tool in tool_outcomes.usable_tools(conversation)]


def test_the_tools_that_an_assistant_may_call(conversation, shop, neighbour):
    off = McpServer.objects.create(client=shop, name="off", url="https://mcp.example", is_active=False)
    on = McpServer.objects.create(client=shop, name="on", url="https://mcp.example")
    bob = Assistant.objects.create(client=shop, key="bob", name="Bob")

    def add(name: str, client: Client = shop, **more: Any) -> None:
        url = "" if "server" in more else "https://shop.example/tool"
        Tool.objects.create(client=client, name=name, remote_name=name, url=url, **more)

    add("z_for_all")
    add("a_at_a_server", server=on)
    add("m_for_this_one", assistant_ids=[bob.pk, conversation.assistant_id])
    add("theirs", client=neighbour)
    add("switched_off", is_active=False)
    add("at_a_server_that_is_off", server=off)
    add("of_another_assistant", assistant_ids=[bob.pk])
    add("with_a_problem", problem="Its arguments are no JSON Schema.")
    assert offered(conversation) == ["a_at_a_server", "m_for_this_one", "z_for_all"]


# --- what a draft is told ---------------------------------------------------------------------------------------------
def test_a_draft_is_told_of_the_open_calls_of_its_own_conversation_the_oldest_first(conversation, shop):
    now, turn_id = timezone.now(), uuid4()
    later = call_of(conversation, "failed", answer="No.", arguments={"b": 1, "a": 2}, created_at=now)
    first = call_of(conversation, "answered", name="charge", answer="R-1", created_at=now - HOUR)
    untold = [
        call_of(someone_else(shop), answer="theirs"),
        call_of(conversation, answer="told before", is_open=False),
        call_of(conversation, answer="built in", key=None),
    ]
    text = tool_outcomes.background_of(conversation.client_id, conversation.pk, turn_id)
    assert text.splitlines()[1:] == ["- charge {}: R-1", '- refund {"a":2,"b":1}: No.']
    given = dict(ToolCall.objects.values_list("pk", "given_to"))
    assert {pk for pk, given_to in given.items() if given_to == turn_id} == {first.pk, later.pk}
    assert {given[each.pk] for each in untold} == {None}
    assert tool_outcomes.background_of(shop.pk, someone_else(shop).pk, turn_id) == ""
    assert tool_outcomes.background_of(shop.pk, uuid4(), turn_id) == ""


def test_long_answers_are_cut_off_and_many_share_the_room(conversation):
    most = tool_outcomes.LONGEST_SHOWN
    call_of(conversation, answer="x" * most, arguments={"a": "y" * 600}, created_at=timezone.now() - HOUR)
    call_of(conversation, answer="x" * (most + 1))
    whole, cut = tool_outcomes.background_of(conversation.client_id, conversation.pk, uuid4()).splitlines()[1:]
    shown = '{"a":"' + "y" * 494
    assert whole == f"- refund {shown}: {'x' * most}"
    assert cut == f"- refund {{}}: {'x' * most} [… cut off]"
    for _ in range(tool_calls.MOST_CALLS + 1):
        call_of(conversation, answer="x" * most)
    lines = tool_outcomes.background_of(conversation.client_id, conversation.pk, uuid4()).splitlines()[1:]
    assert len(lines) == tool_calls.MOST_CALLS
    assert lines[-1] == f"- refund {{}}: {'x' * 800} [… cut off]"


@pytest.mark.parametrize(
    "values, has",
    [
        ({"status": "answered"}, True),
        ({"status": "unknown"}, True),
        ({"status": "failed"}, False),
        ({"status": "refused"}, False),
        ({"changes_something": False}, False),
        ({"is_open": False}, False),
        ({"key": None}, False),
    ],
)
def test_staff_hear_of_a_failed_reply_whose_call_was_carried_out(conversation, shop, values, has):
    call_of(conversation, **values)
    assert tool_outcomes.has_made_calls(conversation) is has
    assert tool_outcomes.has_made_calls(someone_else(shop)) is False


# --- what a reply settles ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", STATUSES)
def test_a_reply_closes_the_calls_whose_outcome_it_was_given(conversation, shop, status):
    turn = turn_of(conversation)
    given = call_of(conversation, status, given_to=turn.pk)
    others = [
        call_of(conversation, status, given_to=uuid4()),
        call_of(conversation, status),
        call_of(someone_else(shop), status, given_to=turn.pk),
    ]
    assert tool_outcomes.settle(conversation, turn, SILENT, timezone.now()) is False
    given.refresh_from_db()
    assert given.is_open is (status not in TOLD)
    assert given.status == ("failed" if status == "requested" else status)
    for other in others:
        other.refresh_from_db()
        assert (other.is_open, other.status) == (True, status)


def test_a_call_that_was_closed_before_stays_as_it_was(conversation):
    turn = turn_of(conversation)
    call = call_of(conversation, "requested", given_to=turn.pk, is_open=False)
    tool_outcomes.settle(conversation, turn, SILENT, timezone.now())
    call.refresh_from_db()
    assert call.status == "requested"


@pytest.mark.parametrize(
    "status, given, is_owed",
    [
        ("refused", "to this turn", False),
        ("refused", "to another", True),
        ("refused", "to none", True),
        ("approved", "to this turn", True),
        ("approved", "to none", True),
        ("answered", "to this turn", False),
        ("answered", "to another", True),
    ],
)
def test_a_reply_is_owed_to_a_decision_until_one_was_given_it(conversation, shop, status, given, is_owed):
    turn, other = turn_of(conversation), someone_else(shop)
    given_to = {"to this turn": turn.pk, "to another": uuid4(), "to none": None}[given]
    now = timezone.now()
    call_of(other, status, decided_at=now)
    call_of(conversation, status, decided_at=now, is_open=False)
    call_of(conversation, status)
    assert tool_outcomes.settle(conversation, turn, SILENT, now) is False, "nobody decided on an open one"
    call_of(conversation, status, decided_at=now, given_to=given_to)
    assert tool_outcomes.settle(conversation, turn, SILENT, now) is is_owed


def test_built_in_tools_are_rows_of_the_turn_that_used_them(conversation):
    turn, now = turn_of(conversation), timezone.now()
    actions = (ToolAction("set_topic", {"topic": "Parcels"}), ToolAction("set_goal", {"goal": "Find it"}))
    noted = (NotedCall("set_topic", "{}", "The topic is set."),)
    tool_outcomes.settle(conversation, turn, Reply("Hello", "offline", tool_actions=actions, tool_calls=noted), now)
    rows = ToolCall.objects.order_by("-name").values_list(
        *("name", "arguments", "status", "is_open", "turn_id", "given_to", "attempt", "tries"),
        *("answer", "created_at", "ended_at", "client_id", "key"),
    )
    common = ("answered", False, turn.pk, turn.pk, 3, 1)
    assert list(rows) == [
        ("set_topic", {"topic": "Parcels"}, *common, "The topic is set.", now, now, conversation.client_id, None),
        ("set_goal", {"goal": "Find it"}, *common, "", now, now, conversation.client_id, None),
    ]


# --- decisions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("decide", [tool_decisions.approve, tool_decisions.refuse])
def test_a_decision_is_kept_with_who_took_it_and_owes_a_reply(conversation, grace, decide):
    now = timezone.now() - HOUR
    Conversation.objects.update(
        reply_owed=False,
        reply_due_at=None,
        needs_staff_since=now,
        needs_staff_reason=f"{tool_calls.APPROVAL_WANTED}refund.",
    )
    call = call_of(conversation, "waiting", given_to=uuid4())
    long = Actor("staff", "g" * 200, grace.user_id)
    decided = decide(conversation.pk, call.pk, actor=long, now=now, reason="r" * 300)
    call.refresh_from_db()
    status = "approved" if decide is tool_decisions.approve else "refused"
    assert decided.status == call.status == status
    assert (call.decided_by_id, call.decided_by_name, call.decided_at) == (grace.user_id, "g" * 200, now)
    assert (call.reason, call.given_to, call.is_open) == ("r" * 200, None, True)
    assert call.ended_at == (now if status == "refused" else None)
    owed = Conversation.objects.get()
    assert (owed.reply_owed, owed.reply_due_at, owed.needs_staff_since, owed.needs_staff_reason) == (
        *(True, now),
        *(None, ""),
    )
    event = last_event(f"tool_{status}")
    assert (event.conversation_id, event.cause, event.data["tool_call_id"]) == (conversation.pk, "refund", str(call.pk))


@pytest.mark.parametrize("status", [each for each in STATUSES if each != "waiting"])
@pytest.mark.parametrize("was_decided", [True, False])
@pytest.mark.parametrize("decide", [tool_decisions.approve, tool_decisions.refuse])
def test_what_was_decided_is_decided(conversation, grace, decide, status, was_decided):
    now = timezone.now()
    decided_at = now - HOUR if was_decided else None
    call = call_of(conversation, status, decided_at=decided_at, given_to=uuid4())
    refused = status == "refused"
    approved = status == "approved" or (was_decided and status not in {"refused", "expired"})
    if refused if decide is tool_decisions.refuse else approved:
        assert decide(conversation.pk, call.pk, actor=grace, now=now).status == status
    else:
        with pytest.raises(ConflictError, match=f"it is {status}") as conflict:
            decide(conversation.pk, call.pk, actor=grace, now=now)
        assert (conflict.value.code, conflict.value.details) == ("decided", {"status": status})
    again = ToolCall.objects.get()
    assert (again.status, again.decided_at, again.given_to) == (status, decided_at, call.given_to)
    assert not ConversationEvent.objects.filter(kind__in=["tool_approved", "tool_refused"]).exists()


@pytest.mark.parametrize("decide", [tool_decisions.approve, tool_decisions.refuse])
def test_after_the_end_nothing_is_decided(conversation, grace, decide):
    call = call_of(conversation, "waiting")
    closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    with pytest.raises(ConflictError, match=r"This conversation is closed\.") as conflict:
        decide(conversation.pk, call.pk, actor=grace, now=timezone.now())
    assert (conflict.value.code, conflict.value.details) == ("ended", {"status": "closed"})


@pytest.mark.parametrize("done, status, answer", [(True, "answered", "DONE"), (False, "failed", "NOT_DONE")])
def test_what_a_colleague_found_out_is_kept_and_told_by_the_next_reply(conversation, grace, done, status, answer):
    now = timezone.now()
    Conversation.objects.update(
        reply_owed=False,
        reply_due_at=None,
        needs_staff_since=now,
        needs_staff_reason=f"{tool_calls.OUTCOME_WANTED}refund.",
    )
    call = call_of(conversation, "unknown", given_to=uuid4(), decided_at=now - HOUR, is_open=False, reason="ok")
    settled = tool_decisions.settle(conversation.pk, call.pk, done=done, actor=grace, now=now)
    call.refresh_from_db()
    assert settled.status == call.status == status
    assert call.answer == getattr(tool_decisions, answer)
    assert (call.is_open, call.given_to, call.decided_at) == (True, None, None)
    assert (call.decided_by_id, call.decided_by_name) == (grace.user_id, "grace")
    after = Conversation.objects.get()
    assert (after.reply_owed, after.needs_staff_since, after.needs_staff_reason) == (False, None, "")
    event = last_event("tool_settled")
    assert (event.cause, event.data) == ("refund", {"tool_call_id": str(call.pk), "done": done})


@pytest.mark.parametrize("status", [each for each in STATUSES if each != "unknown"])
def test_only_a_call_of_unknown_outcome_is_settled(conversation, grace, status):
    call = call_of(conversation, status)
    with pytest.raises(ConflictError, match=f"is known: {status}") as conflict:
        tool_decisions.settle(conversation.pk, call.pk, done=True, actor=grace, now=timezone.now())
    assert conflict.value.code == "not_unknown"


def decisions(conversation_id: UUID, call_id: UUID, actor: Actor, client: Client | None) -> list[Any]:
    given: dict[str, Any] = {"actor": actor, "now": timezone.now(), "client": client}
    return [
        lambda: tool_decisions.approve(conversation_id, call_id, **given),
        lambda: tool_decisions.refuse(conversation_id, call_id, **given),
        lambda: tool_decisions.settle(conversation_id, call_id, done=True, **given),
    ]


@pytest.mark.parametrize("whose", ["another client's", "another conversation's", "no"])
def test_a_call_is_decided_by_its_own_client_in_its_own_conversation(conversation, shop, neighbour, grace, whose):
    call, client, at = call_of(conversation, "waiting"), shop, conversation.pk
    if whose == "another client's":
        client = neighbour
    elif whose == "another conversation's":
        at = someone_else(shop).pk
    else:
        call.pk = uuid4()
    for decide in decisions(at, call.pk, grace, client):
        with pytest.raises(NotFoundError):
            decide()
    assert ToolCall.objects.get().status == "waiting"


@pytest.mark.parametrize("other", ["waiting", "unknown", "approved", "answered"])
def test_staff_are_waited_for_until_no_call_of_the_conversation_needs_them(conversation, shop, grace, other):
    reason = f"{tool_calls.OUTCOME_WANTED}charge."
    Conversation.objects.update(needs_staff_since=timezone.now(), needs_staff_reason=reason)
    for status in ("waiting", "unknown"):
        call_of(someone_else(shop), status)
    call_of(conversation, other)
    call = call_of(conversation, "waiting")
    tool_decisions.refuse(conversation.pk, call.pk, actor=grace, now=timezone.now())
    still = other in {"waiting", "unknown"}
    assert Conversation.objects.get(pk=conversation.pk).needs_staff_reason == (reason if still else "")


@pytest.mark.django_db(transaction=True)
def test_what_is_redacted_while_a_colleague_decides_stays_redacted(conversation, grace):
    call = call_of(conversation, "waiting", arguments={"card": "4111"})
    decided = beside_change(
        'UPDATE tool_calls SET arguments = \'{"card": "[redacted]"}\' WHERE id = %s',
        [call.pk],
        lambda: tool_decisions.approve(conversation.pk, call.pk, actor=grace, now=timezone.now()),
    )
    assert decided.status == "approved"
    call.refresh_from_db()
    assert (call.status, call.arguments) == ("approved", {"card": "[redacted]"})
