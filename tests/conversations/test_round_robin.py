"""Round robin: who gets what needs a person, in which order, and when nobody can."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Client, Conversation, ConversationEvent, DeskState, Membership, Team, TeamMember
from conversations.services.core.ledger import Actor
from conversations.services.desk import round_robin, states, teams
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conftest import Door
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_inbox import conversation_of, names
from tests.conversations.test_teams import team_of, waits

pytestmark = pytest.mark.django_db

SYSTEM = Actor("system")


def available(name: str, shop: Client, role: str = Role.AGENT) -> Any:
    """Return a new member of the shop's staff who is available."""
    user = staff(name, **{shop.sub_domain: role})
    teams.set_available(user.pk, True)
    return user


def hand_out() -> int:
    return round_robin.hand_out()


def given() -> dict[str, str | None]:
    """Return who is responsible for each conversation, by the contact's user id."""
    return {
        each.conversation.contact.user_id: each.assignee.username if each.assignee else None
        for each in DeskState.objects.select_related("conversation__contact", "assignee")
    }


def test_what_needs_a_person_goes_to_the_default_team_and_there_in_turn(door: Door, shop: Client) -> None:
    agnes, max_ = available("agnes", shop), available("max", shop)
    team_of(shop, "Support", agnes, max_, is_default=True, hands_out=True)
    for name in ("ann", "bob", "cem"):
        waits(door, name)
    door.says("Hello", user_id="dora", name="dora")  # the assistant's
    assert hand_out() == 3
    assert given() == {"ann": "agnes", "bob": "max", "cem": "agnes"}
    assert hand_out() == 0, "once more changes nothing"
    waits(door, "eve")
    hand_out()
    assert given()["eve"] == "max", "the one who was given one longest ago"
    line = ConversationEvent.objects.filter(kind="assigned_to").first()
    assert line is not None
    assert (line.cause, line.actor, line.actor_name) == ("agnes of Support", "system", "round robin")
    assert sorted(names(signed_in(max_), tab="mine")) == ["bob", "eve"]


def test_the_longest_wait_is_handed_out_first(door: Door, shop: Client) -> None:
    team_of(shop, "Support", available("agnes", shop), is_default=True, hands_out=True, most_open=1)
    for minutes, name in ((1, "ann"), (30, "bob")):
        since = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(pk=waits(door, name).pk).update(needs_staff_since=since)
    hand_out()
    assert given() == {"ann": None, "bob": "agnes"}


def test_nobody_gets_more_than_the_limit_and_the_rest_waits_in_the_team_until_a_place_is_free(
    door: Door, shop: Client
) -> None:
    agnes, max_ = available("agnes", shop), available("max", shop)
    team = team_of(shop, "Support", agnes, max_, is_default=True, hands_out=True, most_open=2)
    TeamMember.objects.filter(membership__user=max_).update(most_open=1)
    for number in range(5):
        waits(door, f"user-{number}")
    assert hand_out() == 3
    assert sorted(each or "" for each in given().values()) == ["", "", "agnes", "agnes", "max"]
    assert set(DeskState.objects.values_list("team", flat=True)) == {team.pk}, "all of them are the team's"
    waiting = names(signed_in(agnes), tab="unassigned", order="waiting")
    assert len(waiting) == 2
    closed = DeskState.objects.filter(assignee=max_).get().conversation_id
    closing.close(closed, ended_by="staff", actor=SYSTEM, now=timezone.now())
    assert hand_out() == 1
    assert given()[waiting[0]] == "max"
    assert hand_out() == 0


def test_what_a_member_has_in_other_ways_counts_as_well(door: Door, shop: Client) -> None:
    agnes = available("agnes", shop)
    team_of(shop, "Support", agnes, is_default=True, hands_out=True, most_open=2)
    door.says("Hello", user_id="taken", name="taken")
    staff_actor = Actor("staff", "agnes", agnes.pk)
    takeover.take_over(conversation_of("taken").pk, actor=staff_actor, now=timezone.now())
    door.says("Hello", user_id="assigned", name="assigned")
    states.assign(conversation_of("assigned").pk, agnes.pk, actor=SYSTEM, now=timezone.now(), client=shop)
    waits(door, "ann")
    assert hand_out() == 0
    takeover.take_over(
        conversation_of("assigned").pk, actor=Actor("staff", "max"), now=timezone.now()
    )  # it is a colleague's now
    assert hand_out() == 1


@pytest.mark.parametrize("unfit", ["away", "viewer", "inactive", "no staff"])
def test_who_is_away_or_may_not_answer_gets_nothing(door: Door, shop: Client, unfit: str) -> None:
    max_ = available("max", shop)
    team_of(shop, "Support", max_, is_default=True, hands_out=True)
    if unfit == "away":
        signed_in(max_).post("/admin/inbox/available/", {"available": "no"})
    if unfit == "viewer":
        Membership.objects.filter(user=max_).update(role=Role.VIEWER)
    if unfit == "inactive":
        type(max_).objects.filter(pk=max_.pk).update(is_active=False)
    if unfit == "no staff":
        type(max_).objects.filter(pk=max_.pk).update(is_staff=False)
    waits(door, "ann")
    assert hand_out() == 0
    assert given() == {"ann": None}


def test_a_default_team_without_round_robin_gets_it_and_a_team_that_was_chosen_hands_it_out(
    door: Door, shop: Client
) -> None:
    agnes, max_ = available("agnes", shop), available("max", shop)
    team_of(shop, "First line", agnes, is_default=True)
    second = team_of(shop, "Second line", max_, hands_out=True)
    conversation = waits(door, "ann")
    assert hand_out() == 0
    assert DeskState.objects.get().team.name == "First line"  # type: ignore[union-attr]
    assert ConversationEvent.objects.get(kind="assigned_to").cause == "First line"
    states.assign(conversation.pk, 0, team_id=second.pk, actor=SYSTEM, now=timezone.now(), client=shop)
    assert hand_out() == 1
    assert given() == {"ann": "max"}


def test_a_team_hands_out_only_what_needs_a_person(door: Door, shop: Client) -> None:
    team = team_of(shop, "Support", available("agnes", shop), hands_out=True)
    door.says("Hello", user_id="ann", name="ann")
    door.says("Hello", user_id="bob", name="bob")
    for name in ("ann", "bob"):
        states.assign(conversation_of(name).pk, 0, team_id=team.pk, actor=SYSTEM, now=timezone.now(), client=shop)
    assert hand_out() == 0
    takeover.take_over(conversation_of("ann").pk, actor=SYSTEM, now=timezone.now())
    until = timezone.now() + timedelta(hours=1)
    takeover.take_over(conversation_of("bob").pk, actor=SYSTEM, now=timezone.now())
    states.snooze(conversation_of("bob").pk, until, actor=SYSTEM, now=timezone.now(), client=shop)
    assert hand_out() == 1
    assert given() == {"ann": "agnes", "bob": None}, "what is snoozed is handed out when it is back"


def test_without_a_default_team_nothing_changes(door: Door, shop: Client) -> None:
    team_of(shop, "Support", available("agnes", shop), hands_out=True)
    waits(door, "ann")
    assert hand_out() == 0
    assert not DeskState.objects.exists()


def test_each_client_has_teams_of_its_own(door: Door, shop: Client, neighbour: Client) -> None:
    team_of(shop, "Support", available("agnes", shop), is_default=True, hands_out=True)
    team_of(neighbour, "Support", available("frank", neighbour), is_default=True, hands_out=True)
    waits(door, "ann")
    theirs = factories.ConversationFactory(client=neighbour, needs_staff_since=timezone.now())
    assert hand_out() == 2
    assert DeskState.objects.get(conversation=theirs).assignee.username == "frank"  # type: ignore[union-attr]
    assert given()["ann"] == "agnes"


def test_a_full_team_costs_no_more_where_many_wait(door: Door, shop: Client) -> None:
    team_of(shop, "Support", available("agnes", shop), is_default=True, hands_out=True, most_open=1)
    costs = []
    for start in (0, 10):
        for number in range(start, start + 10):
            waits(door, f"user-{number}")
        hand_out()
        with CaptureQueriesContext(connection) as seen:
            hand_out()
        costs.append(len(seen))
    assert costs[0] == costs[1], [each["sql"] for each in seen]


def test_a_hand_out_that_died_half_way_is_repeated(door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    team_of(shop, "Support", available("agnes", shop), is_default=True, hands_out=True)
    waits(door, "ann")

    def dies(*_given: Any, **_more: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(states, "record", dies)
        with pytest.raises(RuntimeError):
            hand_out()
    assert not DeskState.objects.exists(), "nothing of it is left"
    assert Team.objects.get().members.get().last_given_at is None
    assert hand_out() == 1
