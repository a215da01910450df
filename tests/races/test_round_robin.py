"""Round robin in several processes at once: nobody gets more than the limit, and nothing is given twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Client, ConversationEvent, DeskState
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import Actor
from conversations.services.desk import round_robin, states, teams
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conversations.staff import staff
from tests.conversations.test_teams import team_of
from tests.races.threads import eventually, outcomes, shuffled, together
from tests.sizes import times

pytestmark = pytest.mark.django_db(transaction=True)

SYSTEM = Actor("system")
LIMIT = 3
PEOPLE = 4


def hand_out() -> int:
    return round_robin.hand_out()


@pytest.fixture
def people(shop: Client) -> list[Any]:
    """Four members of two teams, all of them available; the first is in both."""
    found = [staff(f"agent-{number}", shop=Role.AGENT) for number in range(PEOPLE)]
    for each in found:
        teams.set_available(each.pk, True)
    team_of(shop, "Support", *found[:3], is_default=True, hands_out=True, most_open=LIMIT)
    team_of(shop, "Sales", found[0], found[3], hands_out=True, most_open=LIMIT)
    return found


def waiting(shop: Client, count: int) -> list[Any]:
    return [factories.ConversationFactory(client=shop, needs_staff_since=timezone.now()) for _ in range(count)]


@pytest.mark.parametrize("_again", range(times(2, 20)))
def test_many_who_hand_out_at_once_keep_to_the_limit_and_give_each_once(
    shop: Client, people: list[Any], _again: int
) -> None:
    conversations = waiting(shop, 20)
    sales = shop.teams.get(name="Sales")
    for each in conversations[::2]:
        states.assign(each.pk, 0, team_id=sales.pk, actor=SYSTEM, now=timezone.now(), client=shop)
    together(*[hand_out] * 8)
    eventually(lambda: hand_out() == 0, "all places are taken")
    has = Counter(DeskState.objects.exclude(assignee=None).values_list("assignee__username", flat=True))
    assert has == {each.username: LIMIT for each in people}
    given = ConversationEvent.objects.filter(kind="assigned_to", actor_name="round robin", data__user__isnull=False)
    told = Counter(given.exclude(data__user=None).values_list("conversation_id", flat=True))
    assert set(told.values()) == {1}, "a conversation was given twice"
    assert len(told) == LIMIT * PEOPLE


@pytest.mark.parametrize("_again", range(times(2, 20)))
def test_handing_out_while_colleagues_take_assign_and_close(shop: Client, people: list[Any], _again: int) -> None:
    conversations = waiting(shop, 16)
    first = people[0]

    def take(pk: Any) -> Any:
        return takeover.take_over(pk, actor=Actor("staff", "boss", None), name="boss", now=timezone.now())

    def close(pk: Any) -> Any:
        return closing.close(pk, ended_by="staff", actor=SYSTEM, now=timezone.now())

    def assign(pk: Any) -> Any:
        return states.assign(pk, first.pk, actor=SYSTEM, now=timezone.now(), client=shop)

    jobs = [lambda pk=each.pk: take(pk) for each in conversations[:4]]
    jobs += [lambda pk=each.pk: close(pk) for each in conversations[4:8]]
    jobs += [lambda pk=each.pk: assign(pk) for each in conversations[8:10]]
    for result in outcomes(shuffled([*jobs, *[hand_out] * 6])):
        assert not isinstance(result, Exception) or isinstance(result, DomainError), repr(result)
    eventually(lambda: hand_out() == 0, "what is free is taken")
    states_of = {each.conversation_id: each for each in DeskState.objects.all()}
    for each in conversations[8:10]:
        assert states_of[each.pk].assignee_id == first.pk, "a colleague's choice stands"
    by_round_robin = ConversationEvent.objects.filter(kind="assigned_to", actor_name="round robin")
    for each in people[1:3]:
        open_ones = DeskState.objects.filter(assignee=each, conversation__status="active")
        assert open_ones.filter(conversation__taken_over_name="").count() <= LIMIT
    assert by_round_robin.exists()


def test_the_thread_of_a_dispatcher_hands_out_and_stops(shop: Client, people: list[Any]) -> None:
    [conversation] = waiting(shop, 1)
    thread = round_robin.RoundRobin()
    thread.start()
    try:
        eventually(
            lambda: DeskState.objects.filter(conversation=conversation, assignee__isnull=False).exists(), "given"
        )
    finally:
        thread.stop()
        thread.join()
    assert not thread._thread.is_alive()


def test_its_connection_is_renewed_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: list[int] = []

    def hand_out_and_grow_old() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backends.extend(cursor.fetchone())
        connection.close_at = 0.0

    monkeypatch.setattr(round_robin, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(round_robin, "hand_out", hand_out_and_grow_old)
    thread = round_robin.RoundRobin()
    thread.start()
    try:
        eventually(lambda: len(backends) >= 3, "three passes")
    finally:
        thread.stop()
        thread.join()
    assert len(set(backends)) == len(backends)
