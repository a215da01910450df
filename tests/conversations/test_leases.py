"""Leases: whose turn a reply is, for how long, and what is left to the next one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import Conversation, ToolCall, Turn
from conversations.models.copilot import Delta
from conversations.services.replies import leases
from conversations.services.replies.leases import ClaimedTurn
from tests import factories
from tests.races.threads import Lane

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def owing(shop: Any, **more: Any) -> Conversation:
    usual = {"client": shop, "reply_owed": True, "reply_due_at": NOW, "inbound_sequence": 1}
    return factories.ConversationFactory(**{**usual, **more})


def running(shop: Any, *, owed: dict[str, Any] | None = None, **more: Any) -> Turn:
    usual = {"conversation": owing(shop, **(owed or {})), "attempt": 1, "inbound_sequence": 1, "lease_until": NOW}
    return Turn.objects.create(**{**usual, **more})


def mine(turn: Turn, attempt: int = 1) -> ClaimedTurn:
    return ClaimedTurn(turn.client_id, turn.pk, turn.conversation_id, attempt, recalls=False, calls=False)


def claimed(**more: Any) -> list[Any]:
    return [each.conversation_id for each in leases.claim(NOW, **{"slots": 10, **more})]


# --- owed replies -----------------------------------------------------------------------------------------------------
def test_a_claim_is_a_turn_that_saw_all_that_was_said_and_has_cost_nothing(shop, settings):
    settings.LEASE_SECONDS = 30
    conversation = owing(shop, channel="orb", reply_attempts=1, inbound_sequence=4)
    [claim] = leases.claim(NOW, 10)
    turn = Turn.objects.get()
    assert claim == leases.OwedTurn(
        *(shop.pk, turn.pk, conversation.pk),
        attempt=2,
        recalls=False,
        calls=False,
        exhausted=False,
        suspect=False,
        channel="orb",
    )
    assert (turn.status, turn.attempt, turn.inbound_sequence, turn.started_at) == ("running", 2, 4, NOW)
    assert turn.lease_until == NOW + timedelta(seconds=30)
    texts = ("engine", "model", "draft", "finish_reason", "code", "reason")
    assert {getattr(turn, name) for name in texts} == {""}
    assert (turn.tokens_in, turn.tokens_out, turn.ended_at, turn.streamed) == (0, 0, None, False)
    conversation.refresh_from_db()
    assert (conversation.reply_attempts, conversation.reply_crashes) == (2, 0)


def test_a_claim_counts_the_attempt_of_its_own_conversation_alone(shop):
    due = owing(shop)
    later = owing(shop, reply_due_at=NOW + SECOND)
    assert claimed() == [due.pk]
    later.refresh_from_db()
    assert later.reply_attempts == 0


def test_many_replies_of_a_client_are_claimed_by_one_statement(shop):
    for _ in range(3):
        owing(shop)
    with CaptureQueriesContext(connection) as captured:
        assert len(claimed()) == 3
    assert len(captured) == 2, "which clients have any, and the claim"


def test_replies_are_claimed_from_their_very_moment_the_longest_due_first(shop):
    owing(shop, reply_due_at=NOW + timedelta(microseconds=1))
    just, long_ago = owing(shop), owing(shop, reply_due_at=NOW - HOUR)
    assert claimed(slots=1) == [long_ago.pk]
    assert claimed(slots=1) == [just.pk]
    assert claimed() == []


def test_a_turn_of_before_or_of_somebody_else_holds_no_reply_up(shop):
    running(shop)
    conversation = owing(shop)
    Turn.objects.create(
        conversation=conversation, attempt=1, inbound_sequence=1, lease_until=NOW, status="failed", ended_at=NOW
    )
    assert claimed() == [conversation.pk]


def test_a_conversation_is_suspect_from_its_second_crash_on_and_has_a_place_of_its_own(shop):
    once, twice, thrice = (owing(shop, reply_crashes=crashes) for crashes in (1, 2, 3))
    Conversation.objects.filter(pk=thrice.pk).update(reply_due_at=NOW + SECOND)
    assert claimed(slots=0, suspects=0) == []
    [claim] = leases.claim(NOW, 10, 0)
    assert (claim.conversation_id, claim.suspect) == (once.pk, False)
    [claim] = leases.claim(NOW, 1, 10)
    assert (claim.conversation_id, claim.suspect) == (twice.pk, True)
    assert [claim.conversation_id for claim in leases.claim(NOW + SECOND, 10)] == [thrice.pk]


def test_of_suspects_one_is_claimed_at_a_time(shop):
    first, second = (owing(shop, reply_crashes=2, reply_due_at=NOW - HOUR + n * SECOND) for n in range(2))
    assert claimed() == [first.pk]
    assert claimed() == [second.pk]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("calls", "are_made"),
    [
        ([{"status": "approved"}], True),
        ([{"status": "calling"}], True),
        ([{"status": "waiting"}, {"status": "answered"}], False),
        ([{"status": "approved", "is_open": False}], False),
        ([], False),
    ],
)
def test_a_claim_says_whether_its_own_tools_are_to_be_called_first(shop, calls, are_made, streamed):
    conversation = running(shop, streamed=True).conversation if streamed else owing(shop)
    elsewhere = owing(shop, reply_due_at=NOW + HOUR)
    ToolCall.objects.create(client=shop, conversation=elsewhere, name="refund", key="other", status="approved")
    for number, call in enumerate(calls):
        ToolCall.objects.create(client=shop, conversation=conversation, name="refund", key=str(number), **call)
    claim: Callable[..., Any] = leases.claim_streamed if streamed else leases.claim
    [found] = claim(NOW, 10)
    assert found.calls is are_made


@pytest.mark.django_db(transaction=True)
def test_a_conversation_that_somebody_holds_is_not_claimed_and_nobody_waits_for_it(shop):
    busy, free = owing(shop), owing(shop)
    found: list[Any] = []
    lane = Lane()
    with transaction.atomic():
        Conversation.objects.select_for_update().get(pk=busy.pk)
        lane.begin(lambda: found.extend(claimed()))
        assert lane.ended(30), "it waits for the row that is held"
    lane.close()
    assert found == [free.pk]


# --- renewing ---------------------------------------------------------------------------------------------------------
def test_a_lease_is_renewed_from_now_on_for_the_turns_that_are_named(shop, settings):
    settings.LEASE_SECONDS = 30
    ours, other = running(shop), running(shop)
    waits = running(shop, waiting_until=NOW + HOUR)
    leases.renew({ours.pk: ours.client_id, waits.pk: waits.client_id}, NOW + HOUR)
    ends = dict(Turn.objects.values_list("pk", "lease_until"))
    assert ends == {ours.pk: NOW + HOUR + timedelta(seconds=30), other.pk: NOW, waits.pk: NOW}


@pytest.mark.django_db(transaction=True)
def test_a_renewal_does_not_wait_for_a_turn_that_is_just_being_ended(shop):
    ending, ours = running(shop), running(shop)
    lane = Lane()
    with transaction.atomic():
        Turn.objects.select_for_update().get(pk=ending.pk)
        lane.begin(lambda: leases.renew({ending.pk: ending.client_id, ours.pk: ours.client_id}, NOW + HOUR))
        assert lane.ended(30), "it waits for the row that is held"
    lane.close()
    ends = dict(Turn.objects.values_list("pk", "lease_until"))
    assert ends == {ending.pk: NOW, ours.pk: NOW + HOUR + leases.lease()}


# --- giving back, and recovery ----------------------------------------------------------------------------------------
def counts(turn: Turn) -> tuple[int, int]:
    conversation = Conversation.objects.get(pk=turn.conversation_id)
    return conversation.reply_attempts, conversation.reply_crashes


def test_a_turn_that_is_given_back_was_no_attempt_and_no_crash(shop):
    ours, other = (running(shop, owed={"reply_attempts": 2, "reply_crashes": 1}) for _ in range(2))
    assert leases.give_back({ours.pk: ours.client_id}, NOW + SECOND) == 1
    ours.refresh_from_db()
    assert (ours.status, ours.code, ours.ended_at) == ("abandoned", "stopped", NOW + SECOND)
    assert counts(ours) == (1, 1)
    other.refresh_from_db()
    assert (other.status, other.code, other.ended_at) == ("running", "", None)
    assert counts(other) == (2, 1)


def test_a_turn_whose_lease_is_over_is_a_crash_and_no_attempt(shop):
    lost = running(shop, owed={"reply_attempts": 2})
    last_moment = running(shop, owed={"reply_attempts": 2}, lease_until=NOW + SECOND)
    assert leases.recover(NOW + SECOND) == 1
    lost.refresh_from_db()
    assert (lost.status, lost.code, lost.ended_at) == ("abandoned", "lease_over", NOW + SECOND)
    assert counts(lost) == (1, 1)
    last_moment.refresh_from_db()
    assert last_moment.status == "running"
    assert counts(last_moment) == (2, 0)


@pytest.mark.parametrize("how", ["recovered", "given back"])
def test_attempts_that_were_counted_down_already_stay_at_nought(shop, how):
    turn = running(shop)
    lost = leases.recover(NOW + HOUR) if how == "recovered" else leases.give_back({turn.pk: turn.client_id}, NOW)
    assert (lost, counts(turn)[0]) == (1, 0)


def test_a_turn_that_waits_for_its_agent_is_not_given_back(shop):
    waits = running(shop, waiting_until=NOW + HOUR)
    assert leases.give_back({waits.pk: waits.client_id}, NOW) == 0
    assert Turn.objects.get().status == "running"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("held", [Conversation, Turn])
def test_a_recovery_leaves_what_somebody_holds_and_does_not_wait(shop, held):
    busy, lost = running(shop), running(shop)
    found: list[int] = []
    lane = Lane()
    with transaction.atomic():
        held.objects.select_for_update().get(pk=busy.conversation_id if held is Conversation else busy.pk)
        lane.begin(lambda: found.append(leases.recover(NOW + HOUR)))
        assert lane.ended(30), "it waits for the row that is held"
    lane.close()
    assert found == [1]
    assert dict(Turn.objects.values_list("pk", "status")) == {busy.pk: "running", lost.pk: "abandoned"}


# --- streamed replies -------------------------------------------------------------------------------------------------
def test_a_claim_of_a_streamed_turn_is_a_further_attempt_that_begins_at_nothing(shop, settings):
    settings.LEASE_SECONDS = 30
    turn, other = running(shop, streamed=True, attempt=3), running(shop, streamed=True, lease_until=NOW + HOUR)
    for each in (turn, other):
        Delta.objects.create(turn=each, attempt=1, start=0, text="Half a")
    [claim] = leases.claim_streamed(NOW, 10)
    assert claim == leases.StreamedTurn(
        *(shop.pk, turn.pk, turn.conversation_id),
        attempt=4,
        recalls=False,
        calls=False,
        login_id=None,
        stopped=False,
    )
    turn.refresh_from_db()
    assert (turn.attempt, turn.lease_until) == (4, NOW + timedelta(seconds=30))
    assert list(Delta.objects.values_list("turn_id", flat=True)) == [other.pk]
    other.refresh_from_db()
    assert (other.attempt, other.lease_until) == (1, NOW + HOUR)


@pytest.mark.parametrize(
    "why",
    [
        {"streamed": False},
        {"status": "committed"},
        {"waiting_until": NOW + HOUR},
        {"lease_until": NOW + timedelta(microseconds=1)},
    ],
    ids=["not streamed", "ended", "its agent answers later", "it is being written"],
)
def test_a_turn_that_is_not_to_be_streamed_now_is_not_claimed(shop, why):
    running(shop, **{"streamed": True, **why})
    assert leases.claim_streamed(NOW, 10) == []


def test_who_has_waited_longest_is_streamed_to_first(shop):
    for ago in (1, 3, 2):
        running(shop, streamed=True, lease_until=NOW - ago * SECOND, inbound_sequence=ago)
    order = []
    for _ in range(3):
        [claim] = leases.claim_streamed(NOW, 1)
        order.append(Turn.objects.get(pk=claim.turn_id).inbound_sequence)
    assert order == [3, 2, 1]


@pytest.mark.parametrize(
    ("stopped", "turn", "conversation"),
    [
        (False, {}, {}),
        (True, {"stop_asked_at": NOW}, {}),
        (True, {}, {"taken_over_at": NOW, "taken_over_until": NOW + HOUR}),
    ],
)
def test_a_claim_says_that_nothing_is_to_be_written_any_more(shop, stopped, turn, conversation):
    running(shop, streamed=True, owed=conversation, **turn)
    [claim] = leases.claim_streamed(NOW, 10)
    assert claim.stopped is stopped


def test_a_claim_names_the_login_of_its_reader(shop, django_user_model):
    login = django_user_model.objects.create_user("ann")
    running(shop, streamed=True, owed={"login_id": login.pk})
    [claim] = leases.claim_streamed(NOW, 10)
    assert claim.login_id == login.pk


@pytest.mark.django_db(transaction=True)
def test_a_streamed_turn_that_somebody_holds_is_left_and_nobody_waits_for_it(shop):
    busy, free = running(shop, streamed=True), running(shop, streamed=True)
    found: list[Any] = []
    lane = Lane()
    with transaction.atomic():
        Turn.objects.select_for_update().get(pk=busy.pk)
        lane.begin(lambda: found.extend(leases.claim_streamed(NOW, 10)))
        assert lane.ended(30), "it waits for the row that is held"
    lane.close()
    assert [claim.turn_id for claim in found] == [free.pk]


def test_a_streamed_lease_is_renewed_and_freed_only_by_the_attempt_that_has_it(shop, settings):
    settings.LEASE_SECONDS = 30
    ours, lost = running(shop, streamed=True), running(shop, streamed=True, attempt=2)
    ended, other = running(shop, streamed=True, status="committed"), running(shop, streamed=True)
    leases.renew_streamed([mine(ours), mine(lost), mine(ended)], NOW + HOUR)

    def ends() -> dict[Any, Any]:
        return dict(Turn.objects.values_list("pk", "lease_until"))

    assert ends() == {ours.pk: NOW + HOUR + timedelta(seconds=30), lost.pk: NOW, ended.pk: NOW, other.pk: NOW}
    leases.free_streamed([mine(ours), mine(lost), mine(ended)], NOW + SECOND)
    assert ends() == {ours.pk: NOW + SECOND, lost.pk: NOW, ended.pk: NOW, other.pk: NOW}


@pytest.mark.parametrize(
    ("stops", "turn", "conversation"),
    [
        (False, {}, {}),
        (False, {}, {"status": "stale"}),
        (True, {"stop_asked_at": NOW}, {}),
        (True, {}, {"taken_over_at": NOW, "taken_over_until": NOW + HOUR}),
        (True, {}, {"status": "closed", "ended_at": NOW, "ended_by": "user", "reply_owed": False}),
    ],
)
def test_a_streamed_turn_stops_at_a_wish_a_takeover_and_an_end(shop, stops, turn, conversation):
    ours = running(shop, streamed=True, owed=conversation, **turn)
    running(shop, streamed=True, stop_asked_at=NOW)
    owing(shop, taken_over_at=NOW, taken_over_until=NOW + HOUR)
    assert leases.stopped_or_lost([mine(ours)]) == ({ours.pk} if stops else set(), set())


def test_a_streamed_turn_of_another_attempt_or_that_has_ended_is_lost(shop):
    ours, lost = running(shop, streamed=True), running(shop, streamed=True, attempt=2)
    ended = running(shop, streamed=True, status="committed")
    found = leases.stopped_or_lost([mine(each) for each in (ours, lost, ended)])
    assert found == (set(), {lost.pk, ended.pk})
