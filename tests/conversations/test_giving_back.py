"""Conversations that wait for a colleague who goes away, or may answer no more, stay, are asked about, or go back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    Client,
    Conversation,
    ConversationEvent,
    DeskState,
    MailChoice,
    MailMark,
    Membership,
    StaffMail,
)
from conversations.services.core.ledger import Actor
from conversations.services.desk import giving_back, mails, round_robin, states, teams
from conversations.services.transitions import takeover
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.staff import signed_in, staff, superuser
from tests.conversations.test_inbox import conversation_of, names
from tests.conversations.test_round_robin import available, hand_out
from tests.conversations.test_teams import team_of, waits

pytestmark = pytest.mark.django_db
SWITCH, GIVE_BACK = "/admin/inbox/available/", "/admin/inbox/available/give-back/"


@pytest.fixture
def agnes(shop: Client) -> Any:
    return available("agnes", shop)


@pytest.fixture
def max_(shop: Client) -> Any:
    return available("max", shop)


def chooses(shop: Client, choice: str) -> None:
    Client.objects.filter(pk=shop.pk).update(when_away=choice)


def held(door: Door, name: str, user: Any) -> Conversation:
    """A conversation that the user took over and answered, in which the customer has written again."""
    door.says("Hello", user_id=name, name=name)
    takeover.take_over(conversation_of(name).pk, actor=Actor("staff", user.username, user.pk), now=timezone.now())
    door.says("Are you there?", user_id=name)
    return conversation_of(name)


def state_of(name: str) -> tuple[str | None, str | None]:
    """Return who is responsible for the conversation, and which team."""
    state = DeskState.objects.filter(conversation=conversation_of(name)).first()
    return (
        state.assignee.username if state and state.assignee else None,
        state.team.name if state and state.team else None,
    )


def lines(name: str) -> list[tuple[str, str, str]]:
    found = ConversationEvent.objects.filter(conversation=conversation_of(name), kind__in=["assigned_to", "given_back"])
    return list(found.order_by("id").values_list("kind", "cause", "actor_name"))


# --- in the inbox -----------------------------------------------------------------------------------------------------
def test_who_goes_away_is_asked_and_what_waits_goes_to_the_next_member(door, shop, agnes, max_):
    team_of(shop, "Support", agnes, max_, is_default=True, hands_out=True)
    for name in ("ann", "bob", "cem"):
        waits(door, name)
    hand_out()
    assert [state_of(name)[0] for name in ("ann", "bob", "cem")] == ["agnes", "max", "agnes"]
    http = signed_in(agnes)
    answer = http.post(SWITCH, {"available": "no"}).json()
    assert answer["question"].startswith("2 conversations wait for an answer of yours.")
    assert state_of("ann") == ("agnes", "Support"), "nothing has changed yet"
    assert http.post(GIVE_BACK).json()["said"].startswith("2 conversations went back")
    assert (state_of("ann"), state_of("cem")) == ((None, "Support"), (None, "Support"))
    assert lines("ann")[-1] == ("assigned_to", "Support", "agnes")
    assert hand_out() == 2
    assert {state_of(name) for name in ("ann", "bob", "cem")} == {("max", "Support")}
    assert http.post(GIVE_BACK).json()["said"] == "Nothing waits any more."


def test_what_was_taken_over_waits_on_and_the_assistant_stays_silent(door, shop, agnes, max_):
    team_of(shop, "Support", agnes, max_, is_default=True, hands_out=True)
    since = held(door, "ann", agnes).waits_for_staff_since
    signed_in(agnes).post(SWITCH, {"available": "no"})
    signed_in(agnes).post(GIVE_BACK)
    conversation = conversation_of("ann")
    assert (conversation.taken_over_name, conversation.taken_over_by_id) == ("", None)
    assert conversation.taken_over_at is not None
    assert conversation.needs_staff_since == since, "the wait goes on from when it began"
    assert reply_to_all() == 0
    assert lines("ann") == [("given_back", "agnes", "agnes")]
    assert names(signed_in(max_), tab="unassigned") == ["ann"]
    hand_out()
    assert state_of("ann") == ("max", "Support")


def test_without_a_team_it_is_unassigned(door, shop, agnes):
    conversation = waits(door, "ann")
    states.assign(conversation.pk, agnes.pk, actor=Actor("system"), now=timezone.now(), client=shop)
    signed_in(agnes).post(GIVE_BACK)
    assert state_of("ann") == (None, None)
    assert names(signed_in(agnes), tab="unassigned") == ["ann"]


def test_what_does_not_wait_for_them_stays(door, shop, agnes, max_):
    for name in ("quiet", "of the assistant", "of max"):
        door.says("Hello", user_id=name, name=name)
    by_agnes = Actor("staff", "agnes", agnes.pk)
    takeover.take_over(conversation_of("quiet").pk, actor=by_agnes, now=timezone.now())
    Conversation.objects.filter(pk=conversation_of("quiet").pk).update(reply_owed=False)
    told: dict[str, Any] = {"actor": Actor("system"), "now": timezone.now(), "client": shop}
    states.assign(conversation_of("of the assistant").pk, agnes.pk, **told)
    states.assign(conversation_of("of max").pk, agnes.pk, **told)
    takeover.take_over(conversation_of("of max").pk, actor=Actor("staff", "max", max_.pk), now=timezone.now())
    assert giving_back.waiting_for(shop.pk, agnes.pk) == 0
    before = list(ConversationEvent.objects.values_list("pk", flat=True))
    signed_in(agnes).post(GIVE_BACK)
    assert list(ConversationEvent.objects.values_list("pk", flat=True)) == before
    assert conversation_of("quiet").taken_over_by_id == agnes.pk


@pytest.mark.parametrize(
    ("choice", "status", "responsible"), [("keep", 204, "agnes"), ("ask", 200, "agnes"), ("give_back", 200, None)]
)
def test_the_client_chooses(door, shop, agnes, choice, status, responsible):
    chooses(shop, choice)
    team_of(shop, "Support", agnes, is_default=True, hands_out=True)
    waits(door, "ann")
    hand_out()
    answer = signed_in(agnes).post(SWITCH, {"available": "no"})
    assert answer.status_code == status
    assert state_of("ann")[0] == responsible
    if choice == "give_back":
        assert answer.json() == {"said": "1 conversation went back to its team, or to unassigned.", "question": ""}
    signed_in(agnes).post(GIVE_BACK)
    assert state_of("ann")[0] == ("agnes" if choice == "keep" else None)


def test_each_of_several_clients_has_its_own_choice(door, shop, neighbour, agnes):
    Membership.objects.create(client=neighbour, user=agnes, role=Role.AGENT, is_available=True)
    chooses(shop, "give_back")
    theirs = factories.ConversationFactory(client=neighbour, needs_staff_since=timezone.now())
    ours = waits(door, "ann")
    for each in (theirs, ours):
        told: dict[str, Any] = {"actor": Actor("system"), "now": timezone.now(), "client": each.client}
        states.assign(each.pk, agnes.pk, **told)
    answer = signed_in(agnes).post(SWITCH, {"available": "no"}).json()
    assert answer["said"].startswith("1 conversation went back")
    assert answer["question"].startswith("1 conversation waits")
    assert DeskState.objects.get(conversation=theirs).assignee == agnes
    assert DeskState.objects.get(conversation=ours).assignee is None


def test_nobody_is_told_of_the_same_wait_twice(door, shop, agnes, max_, settings):
    settings.EMAIL_HOST = "localhost"

    MailChoice.objects.create(user=max_, tells_mine=True, tells_unassigned=True, after_minutes=5)
    held(door, "ann", agnes)
    giving_back.give_back(shop.pk, agnes.pk, actor=Actor("staff", "agnes", agnes.pk), now=timezone.now())
    later = timezone.now() + timedelta(minutes=6)
    mails.queue(later)
    assert (StaffMail.objects.count(), MailMark.objects.get().user_id) == (1, max_.pk)
    team_of(shop, "Support", max_, is_default=True, hands_out=True)
    hand_out()
    giving_back.give_back(shop.pk, max_.pk, actor=Actor("staff", "max", max_.pk), now=timezone.now())
    mails.queue(later + timedelta(minutes=10))
    assert StaffMail.objects.count() == 1


# --- by a manager, and of whoever may answer no more ------------------------------------------------------------------
def page_of(membership: Membership, action: str = "change") -> str:
    return reverse(f"admin:conversations_membership_{action}", args=[membership.pk])


@pytest.fixture
def waiting(door: Door, shop: Client, agnes: Any) -> Membership:
    """Ann waits for Agnes."""
    team_of(shop, "Support", agnes, is_default=True, hands_out=True)
    waits(door, "ann")
    hand_out()
    assert state_of("ann")[0] == "agnes"
    return Membership.objects.get(user=agnes)


def test_a_manager_does_it_for_somebody_else_who_is_away_then(shop, waiting, agnes):
    http = signed_in(staff("mona", shop=Role.MANAGER))
    asked = http.get(page_of(waiting, "give_back")).content.decode()
    assert "1 conversation waits for an answer of agnes." in asked
    said = http.post(page_of(waiting, "give_back"), follow=True).content.decode()
    assert "1 conversation went back" in said
    assert state_of("ann") == (None, "Support")
    assert lines("ann")[-1] == ("assigned_to", "Support", "mona")
    waiting.refresh_from_db()
    assert not waiting.is_available
    assert hand_out() == 0


def test_an_agent_does_not_and_nor_does_another_client_s_manager(shop, neighbour, waiting):
    for name, role, sub_domain in (("max", Role.AGENT, "shop"), ("eve", Role.MANAGER, "neighbour")):
        answer = signed_in(staff(name, **{sub_domain: role})).post(page_of(waiting, "give_back"))
        assert answer.status_code in (302, 403, 404)
    assert state_of("ann")[0] == "agnes"


def test_a_colleague_who_becomes_a_viewer_leaves_a_question_to_the_manager(shop, waiting):
    http = signed_in(staff("mona", shop=Role.MANAGER))
    said = http.post(page_of(waiting), {"role": "viewer"}, follow=True).content.decode()
    assert "1 conversation waits for an answer of agnes." in said
    assert state_of("ann")[0] == "agnes"
    http.post(page_of(waiting, "give_back"))
    assert state_of("ann") == (None, "Support")


def test_where_the_client_wants_it_a_viewer_s_conversations_go_back_at_once(shop, waiting):
    chooses(shop, "give_back")
    http = signed_in(staff("mona", shop=Role.MANAGER))
    assert "1 conversation went back" in http.post(page_of(waiting), {"role": "viewer"}, follow=True).content.decode()
    assert state_of("ann")[0] is None


@pytest.mark.parametrize(("choice", "responsible"), [("keep", "agnes"), ("ask", None), ("give_back", None)])
def test_who_leaves_the_client_leaves_what_waits_unless_it_is_to_stay(shop, waiting, choice, responsible):
    chooses(shop, choice)
    http = signed_in(staff("mona", shop=Role.MANAGER))
    http.post(page_of(waiting, "delete"), {"post": "yes"})
    assert not Membership.objects.filter(pk=waiting.pk).exists()
    assert state_of("ann")[0] == responsible


def test_a_user_who_is_let_in_no_more_leaves_a_question_or_gives_back(shop, waiting, agnes):
    http = signed_in(superuser())
    page = reverse("admin:auth_user_change", args=[agnes.pk])
    said = http.post(page, {"username": "agnes", "is_staff": "on"}, follow=True).content.decode()
    assert "1 conversation waits for an answer of agnes." in said
    assert page_of(waiting) in said
    http.post(page, {"username": "agnes", "is_staff": "on", "is_active": "on"})
    chooses(shop, "give_back")
    assert "went back" in http.post(page, {"username": "agnes", "is_staff": "on"}, follow=True).content.decode()
    assert state_of("ann")[0] is None


@pytest.mark.parametrize("choice", ["keep", "ask", "give_back"])
def test_the_task_gives_back_what_waits_for_the_absent_where_the_client_wants_it(shop, waiting, choice):
    chooses(shop, choice)
    Membership.objects.filter(pk=waiting.pk).update(is_available=False)
    assert giving_back.give_back_of_absent() == 0, "who is away may still answer"
    Membership.objects.filter(pk=waiting.pk).delete()  # by an identity provider, say
    assert giving_back.give_back_of_absent() == (choice == "give_back")
    assert giving_back.give_back_of_absent() == 0
    if choice == "give_back":
        assert lines("ann")[-1] == ("assigned_to", "Support", "")


def test_a_manager_chooses_on_the_client_s_page(shop):
    http = signed_in(staff("mona", shop=Role.MANAGER))
    page = http.get(reverse("admin:conversations_client_change", args=[shop.pk])).content.decode()
    assert 'name="when_away"' in page


def test_round_robin_that_has_just_chosen_somebody_is_waited_for(shop, waiting, agnes):
    teams.set_available(agnes.pk, False)
    assert giving_back.give_back(shop.pk, agnes.pk, actor=Actor("system"), now=timezone.now()) == 1
    assert round_robin.hand_out() == 0
