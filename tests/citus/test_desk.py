"""The desk in a cluster: colleagues of one client work on while the server of another is away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    CannedReply,
    Client,
    Conversation,
    ConversationLabel,
    DeskState,
    Draft,
    Label,
    Mention,
    Presence,
    SavedView,
    SeenPosition,
    StaffNote,
)
from conversations.services.core.ledger import SYSTEM
from conversations.services.desk import giving_back, round_robin
from conversations.services.desk.inbox import Order
from conversations.services.transitions import takeover
from tests.citus.places import ONLY_IN_CLUSTER, away
from tests.conversations.back_office import do
from tests.conversations.sign_in_doors import by_password
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_desk import post
from tests.conversations.test_inbox import names
from tests.conversations.test_round_robin import available
from tests.conversations.test_saved_views import save, shown
from tests.conversations.test_teams import team_of

pytestmark = [*ONLY_IN_CLUSTER, pytest.mark.django_db(transaction=True)]


def waits(client: Client, door: Any) -> Conversation:
    """A conversation of the client's that waits for a colleague."""
    door.says("Hello", user_id="ann", name="ann")
    pk = Conversation.objects.get(client=client).pk
    takeover.take_over(pk, actor=SYSTEM, now=timezone.now())
    return Conversation.objects.get(client=client, pk=pk)


def test_a_conversation_is_worked_on_with_all_that_the_desk_has(both: Any, doors: Any) -> None:
    here, there = both
    ours = waits(here, doors[0])
    waits(there, doors[1])
    agnes, max_ = staff("agnes", here=Role.AGENT), staff("max", here=Role.AGENT)
    team_of(here, "Roofs", agnes, max_)
    label = Label.objects.create(client=here, name="vip")
    CannedReply.objects.create(client=here, shortcut="hi", text="Dear {name}")
    http, theirs = signed_in(agnes), signed_in(max_)
    until = (timezone.now() + timedelta(hours=1)).isoformat()
    with away(there):
        assert names(http, tab="unassigned") == ["ann"]
        for what, fields in (
            ("note", {"text": "A leak, @max"}),
            ("label", {"name": "vip"}),
            ("prioritise", {"priority": 2}),
            ("snooze", {"until": until}),
            ("wake", {}),
            ("assign-person", {"user": max_.pk}),
        ):
            assert do(http, ours, what, **fields)[0] == 200, what
        for what, fields in (("draft", {"text": "Dear Ann"}), ("seen", {"position": 2}), ("presence", {"here": "yes"})):
            assert post(http, ours, what, **fields) == 204, what
        page = http.get(f"/admin/inbox/{ours.pk}/")
        assert page.status_code == 200
        assert "A leak" in page.content.decode()
        assert save(http, "Very important", label=label.pk)[0] == 200
        assert shown(http) == {"Very important": "1"}
        assert names(theirs, tab="mine") == ["ann"]
        assert http.get("/admin/inbox/find/", {"q": "Hello"}).status_code == 200
        for model in (ConversationLabel, DeskState, Draft, Mention, Presence, SavedView, SeenPosition, StaffNote):
            assert model.objects.filter(client=here).count() == 1, model.__name__
        assert do(http, ours, "unlabel", label=label.pk)[0] == 200
        assert do(http, ours, "reply", text="Dear Ann, it is here.")[0] == 200
        assert not Draft.objects.filter(client=here).exists()


@pytest.mark.parametrize("order", Order)
def test_a_colleague_of_both_sees_what_is_of_the_other(both: Any, doors: Any, order: Order) -> None:
    for client, door in zip(both, doors, strict=True):
        waits(client, door)
    http = signed_in(staff("agnes", **{client.sub_domain: Role.AGENT for client in both}))
    assert names(http, tab="unassigned", order=order.value) == ["ann", "ann"]
    with away(both[1]):
        assert names(http, tab="unassigned", order=order.value) == ["ann"]


def test_a_team_hands_out_and_takes_back_what_waits_for_a_server_that_is_away(both: Any, doors: Any) -> None:
    """Whose turn it is stands in a table that every server has whole, so neither is done meanwhile."""
    here = both[0]
    of_each = [available(f"of-{client.sub_domain}", client) for client in both]
    for client, door, user in zip(both, doors, of_each, strict=True):
        team_of(client, "Roofs", user, is_default=True, hands_out=True)
        waits(client, door)
    with away(both[1]):
        assert round_robin.hand_out() == 0
    assert round_robin.hand_out() == 2
    for client, user in zip(both, of_each, strict=True):
        assert DeskState.objects.get(client=client).assignee == user
    with away(both[1]):
        assert giving_back.waiting_for(here.pk, of_each[0].pk) == 1
        with pytest.raises(OperationalError):
            giving_back.give_back(here.pk, of_each[0].pk, actor=SYSTEM, now=timezone.now())
    assert giving_back.give_back(here.pk, of_each[0].pk, actor=SYSTEM, now=timezone.now()) == 1


def test_colleagues_sign_in_and_read_their_inbox(both: Any, doors: Any) -> None:
    here, there = both
    waits(here, doors[0])
    waits(there, doors[1])
    agnes = staff("agnes", here=Role.AGENT)
    with away(there):
        http = by_password(agnes)
        assert "ann" in http.get("/admin/inbox/").content.decode()
        assert http.get("/admin/inbox/list/?tab=all").status_code == 200
        assert by_password(agnes, "/copilot/login").session.get("_auth_user_id") == str(agnes.pk)
        http.post("/admin/logout/")
        assert http.get("/admin/inbox/").status_code == 302
    agnes.refresh_from_db()
    assert agnes.last_login is None, "it could not be noted"
    by_password(agnes)
    agnes.refresh_from_db()
    assert agnes.last_login is not None
