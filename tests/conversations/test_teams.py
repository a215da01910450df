"""Teams: made by managers, assigned in the inbox, shown in its list, in the API and in the events."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    Client,
    Conversation,
    ConversationEvent,
    DeskState,
    Event,
    Membership,
    StaffAction,
    Team,
    TeamMember,
)
from conversations.services.core.ledger import Actor
from conversations.services.desk import states, teams
from conversations.services.events import bodies
from conversations.services.events.numbering import number_all
from conversations.services.transitions import takeover
from tests import factories
from tests.conftest import Door
from tests.conversations.back_office import do
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_inbox import conversation_of, names
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db


def waits(door: Door, user_id: str = "ann") -> Conversation:
    """Return the conversation of somebody who waits for a person."""
    door.says("Hello", user_id=user_id, name=user_id)
    takeover.take_over(conversation_of(user_id).pk, actor=Actor("system"), now=timezone.now())
    return conversation_of(user_id)


def team_of(client: Client, name: str, *users: Any, **fields: Any) -> Team:
    """Return a new team with these members."""
    team = Team.objects.create(client=client, name=name, **fields)
    for user in users:
        membership = Membership.objects.get(client=client, user=user)
        TeamMember.objects.create(team=team, membership=membership)
    return team


@pytest.fixture
def agnes(shop: Client) -> Any:
    """An agent of the shop."""
    return staff("agnes", shop=Role.AGENT)


@pytest.fixture
def max_(shop: Client) -> Any:
    """Another agent of the shop."""
    return staff("max", shop=Role.AGENT)


# --- assigning --------------------------------------------------------------------------------------------------------
def test_a_conversation_is_a_teams_a_colleagues_or_both(door: Door, shop: Client, agnes: Any, max_: Any) -> None:
    support = team_of(shop, "Support", max_)
    conversation, http, theirs = waits(door), signed_in(agnes), signed_in(max_)

    for _again in range(2):  # once more changes nothing
        status, said = do(http, conversation, "assign-person", user=f"0/{support.pk}")
        assert (status, said["said"]) == (200, "Support is responsible for this conversation.")
    assert names(http, tab="unassigned") == ["ann"], "a team is nobody yet"
    assert (names(theirs, tab="teams"), names(http, tab="teams")) == (["ann"], [])
    [row] = http.get("/admin/inbox/").context["rows"]
    assert (row.row.team, row.row.holder) == ("Support", "")

    status, said = do(http, conversation, "assign-person", user=f"{max_.pk}/{support.pk}")
    assert (status, said["said"]) == (200, "max of Support is responsible for this conversation.")
    assert (names(http, tab="unassigned"), names(theirs, tab="mine")) == ([], ["ann"])
    [row] = http.get("/admin/inbox/").context["rows"]
    assert (row.row.team, row.row.holder) == ("Support", "max")
    page = http.get(f"/admin/inbox/{conversation.pk}/").content.decode()
    assert f'<option value="{max_.pk}/{support.pk}" selected>max · Support</option>' in page
    assert "<bdi data-team>Support</bdi>" in page

    assert do(http, conversation, "assign-person", user=max_.pk)[0] == 200
    state = DeskState.objects.get()
    assert (state.assignee, state.team) == (max_, None)
    lines = ConversationEvent.objects.filter(kind="assigned_to").order_by("id")
    assert [(each.cause, each.data) for each in lines] == [
        ("Support", {"user": None, "team": support.pk, "team_name": "Support"}),
        ("max of Support", {"user": max_.pk, "team": support.pk, "team_name": "Support"}),
        ("max", {"user": max_.pk}),
    ]


def test_a_program_is_told_of_the_team(door: Door, shop: Client, agnes: Any, max_: Any) -> None:
    support = team_of(shop, "Support", max_)
    conversation = waits(door)
    before = door.get(f"/conversations/{conversation.pk}")
    assert (before["assigned_to"], before["team"]) == ("", "")
    do(signed_in(agnes), conversation, "assign-person", user=f"{max_.pk}/{support.pk}")
    told = door.get(f"/conversations/{conversation.pk}")
    assert (told["assigned_to"], told["team"]) == ("max", "Support")
    number_all()
    event = Event.objects.filter(kind="conversation.changed").last()
    assert event is not None
    [body] = bodies.bodies(shop.pk, [event])
    assert (body["data"]["what"], body["data"]["facts"]["team_name"]) == ("assigned_to", "Support")


@pytest.mark.parametrize("given", ["", "x", "-1", "0/", "/1", "1/2/3", "0/x", "9" * 20, "0 /1", "0/1\n"])
def test_what_names_no_colleague_and_no_team_changes_nothing(door: Door, agnes: Any, given: str) -> None:
    conversation = waits(door)
    assert do(signed_in(agnes), conversation, "assign-person", user=given)[0] in (404, 409)
    assert not DeskState.objects.exists()


def test_nothing_is_assigned_to_another_clients_team_or_to_who_is_not_in_it(
    door: Door, shop: Client, neighbour: Client, agnes: Any, max_: Any
) -> None:
    theirs, support = team_of(neighbour, "Theirs"), team_of(shop, "Support", max_)
    conversation, http = waits(door), signed_in(agnes)
    assert do(http, conversation, "assign-person", user=f"0/{theirs.pk}")[0] == 404
    status, said = do(http, conversation, "assign-person", user=f"{agnes.pk}/{support.pk}")
    assert (status, said["said"]) == (409, "agnes is no member of Support.")
    assert not DeskState.objects.exists()
    offered = http.get(f"/admin/inbox/{conversation.pk}/").content.decode()
    assert "Support" in offered
    assert "Theirs" not in offered
    assert names(http, team=str(theirs.pk)) == []


def test_the_list_and_a_conversation_cost_the_same_however_many_teams_there_are(
    door: Door, shop: Client, agnes: Any, max_: Any
) -> None:
    conversation, http = waits(door), signed_in(agnes)
    team_of(shop, "First", max_)

    def costs() -> list[int]:
        found = []
        for path in ("list/", "", f"{conversation.pk}/pane/"):
            http.get(f"/admin/inbox/{path}")
            with CaptureQueriesContext(connection) as seen:
                http.get(f"/admin/inbox/{path}")
            found.append(len(seen))
        return found

    before = costs()
    for number in range(8):
        team_of(shop, f"Team {number}", agnes, max_)
    assert costs() == before
    assert before[0] <= 11 + IN_CLUSTER


# --- the set-up page --------------------------------------------------------------------------------------------------
def form_of(team: Team, *members: Any, **more: Any) -> dict[str, Any]:
    """Return what the page of the team posts, with new members."""
    lines = {f"members-{number}-membership": str(each.pk) for number, each in enumerate(members)}
    count = {"members-TOTAL_FORMS": str(len(members)), "members-INITIAL_FORMS": "0"}
    return {"name": team.name, "most_open": "5", **lines, **count, **more}


def test_a_manager_makes_a_team_and_chooses_its_members(shop: Client, neighbour: Client, max_: Any) -> None:
    http = signed_in(staff("mona", shop=Role.MANAGER))
    http.post(reverse("admin:conversations_team_add"), {"client": str(shop.pk), "name": "Support", "most_open": "3"})
    team = Team.objects.get(client=shop)
    page = reverse("admin:conversations_team_change", args=[team.pk])
    viewer = Membership.objects.get(user=staff("vera", shop=Role.VIEWER))
    foreign = Membership.objects.get(user=staff("frank", **{neighbour.sub_domain: Role.AGENT}))
    shown = http.get(page).content.decode()
    assert ">max</option>" in shown
    for name in ("vera", "frank"):
        assert f">{name}</option>" not in shown
    for who in (viewer, foreign):
        assert "Select a valid choice" in http.post(page, form_of(team, who)).content.decode()
    mine = Membership.objects.get(user=max_)
    assert "max is in the team already." in http.post(page, form_of(team, mine, mine)).content.decode()
    assert not TeamMember.objects.exists()
    assert http.post(page, form_of(team, mine, **{"members-0-most_open": "2"})).status_code == 302
    member = TeamMember.objects.get()
    assert (member.client, member.membership.user, member.most_open) == (shop, max_, 2)
    assert "member max" in StaffAction.objects.latest("id").changes
    assert "max is in the team already." in http.post(page, form_of(team, mine)).content.decode()
    assert TeamMember.objects.count() == 1
    for limit in ("0", "-1", "x", "99999999"):
        assert http.post(page, form_of(team, most_open=limit)).status_code == 200, limit


def test_a_client_has_one_default_team_and_one_team_of_a_name(shop: Client, neighbour: Client) -> None:
    http = signed_in(staff("mona", shop=Role.MANAGER))
    team_of(shop, "Support", is_default=True)
    team_of(neighbour, "Support", is_default=True)
    for name, more, said in (
        ("Sales", {"is_default": "on"}, "The client has a default team already."),
        ("Support", {}, "The client has a team of this name."),
    ):
        form = {"client": str(shop.pk), "name": name, "most_open": "3", **more}
        assert said in http.post(reverse("admin:conversations_team_add"), form).content.decode()
    assert Team.objects.count() == 2
    for fields in ({"name": "Support"}, {"name": "Sales", "is_default": True}, {"name": "Sales", "most_open": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Team.objects.create(client=shop, **fields)


def test_a_team_that_is_deleted_leaves_its_conversations_with_whoever_is_responsible(
    door: Door, shop: Client, max_: Any
) -> None:
    support = team_of(shop, "Support", max_)
    conversation = waits(door)
    states.assign(conversation.pk, max_.pk, team_id=support.pk, actor=Actor("system"), now=timezone.now(), client=shop)
    http = signed_in(staff("mona", shop=Role.MANAGER))
    page = reverse("admin:conversations_team_delete", args=[support.pk])
    assert http.post(page, {"post": "yes"}).status_code == 302
    assert not Team.objects.exists()
    state = DeskState.objects.get()
    assert (state.assignee, state.team) == (max_, None)


def test_who_leaves_the_client_leaves_its_teams(shop: Client, max_: Any) -> None:
    team_of(shop, "Support", max_)
    Membership.objects.filter(user=max_).delete()
    assert not TeamMember.objects.exists()
    [choice] = teams.choices(shop.pk)
    assert choice.members == []


# --- available or away ------------------------------------------------------------------------------------------------
def test_a_member_of_a_team_says_whether_they_are_available(shop: Client, agnes: Any, max_: Any) -> None:
    team_of(shop, "Support", max_)
    theirs, mine = signed_in(max_), signed_in(agnes)
    assert 'role="switch" aria-checked="false"' in theirs.get("/admin/inbox/").content.decode()
    assert 'role="switch"' not in mine.get("/admin/inbox/").content.decode(), "who is in no team has no switch"
    for given in ("", "maybe"):
        assert theirs.post("/admin/inbox/available/", {"available": given}).status_code == 409
    assert theirs.post("/admin/inbox/available/", {"available": "yes"}).status_code == 204
    assert 'role="switch" aria-checked="true"' in theirs.get("/admin/inbox/").content.decode()
    assert Membership.objects.get(user=max_).is_available
    assert not Membership.objects.get(user=agnes).is_available
    theirs.post("/admin/inbox/available/", {"available": "no"})
    assert teams.availability(max_.pk) is False


# --- filters ----------------------------------------------------------------------------------------------------------
def test_the_list_is_narrowed_by_team_channel_status_priority_and_who_is_responsible(
    door: Door, shop: Client, neighbour: Client, agnes: Any, max_: Any
) -> None:
    support, http = team_of(shop, "Support", max_), signed_in(agnes)
    for name in ("ann", "bob", "cem"):
        waits(door, name)
    door.says("Hello", user_id="dora", name="dora", channel="whatsapp")
    do(http, conversation_of("ann"), "assign-person", user=f"0/{support.pk}")
    do(http, conversation_of("bob"), "assign-person", user=f"{agnes.pk}")
    do(http, conversation_of("cem"), "prioritise", priority=2)
    Conversation.objects.filter(pk=conversation_of("cem").pk).update(status="stale")
    assert names(http, team=str(support.pk)) == ["ann"]
    assert names(http, channel="whatsapp") == ["dora"]
    assert names(http, status="stale") == names(http, priority="2") == ["cem"]
    assert names(http, assigned="me") == names(http, assigned=str(agnes.pk)) == ["bob"]
    assert sorted(names(http, assigned="nobody")) == ["ann", "cem", "dora"]
    assert names(http, assigned=str(max_.pk)) == names(http, team=str(support.pk), channel="voice") == []
    assert names(http, client=str(neighbour.pk)) == []
    for given in ({"team": "x"}, {"channel": "pigeon"}, {"status": "asleep"}, {"priority": "9"}, {"assigned": "-4"}):
        assert len(names(http, **given)) == 4, "what cannot be read is left out"
    takeover.take_over(conversation_of("bob").pk, actor=Actor("staff", "max", max_.pk), now=timezone.now())
    assert (names(http, assigned="me"), names(http, assigned=str(max_.pk))) == ([], ["bob"])


def test_another_clients_teams_are_not_seen(shop: Client, neighbour: Client, agnes: Any) -> None:
    stranger = staff("frank", **{neighbour.sub_domain: Role.AGENT})
    theirs = team_of(neighbour, "Zanzibar", stranger)
    conversation = factories.ConversationFactory(client=neighbour)
    DeskState.objects.create(client=neighbour, conversation=conversation, team=theirs)
    http = signed_in(agnes)
    assert "Zanzibar" not in http.get("/admin/inbox/").content.decode()
    assert names(http, tab="teams") == names(http, team=str(theirs.pk)) == []
    page = reverse("admin:conversations_team_change", args=[theirs.pk])
    assert http.get(page).status_code == 302
