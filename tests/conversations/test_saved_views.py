"""Saved views: the inbox's filters under a name, a person's own or shared by managers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.admin.access import Role
from conversations.models import Client, Label, SavedView, StaffAction
from conversations.services.desk import saved_views
from tests.conftest import Door
from tests.conversations.back_office import do
from tests.conversations.staff import signed_in, staff, superuser
from tests.conversations.test_inbox import conversation_of, names
from tests.conversations.test_teams import team_of, waits
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db

VIEWS = "/admin/inbox/views/"


def save(http: Any, name: str = "Urgent", **fields: Any) -> tuple[int, str]:
    answer = http.post(f"{VIEWS}save/", {"name": name, **fields})
    return answer.status_code, answer.json()["said"]


def shown(http: Any) -> dict[str, str]:
    """Return the counts of the views by their names."""
    context = http.get(VIEWS).context
    return {each["view"].name: str(each["count"]) for each in context["views"]}


@pytest.fixture
def agnes(shop: Client) -> Any:
    """What an agent of the shop sees with."""
    return signed_in(staff("agnes", shop=Role.AGENT))


@pytest.fixture
def mona(shop: Client) -> Any:
    """What a manager of the shop sees with."""
    return signed_in(staff("mona", shop=Role.MANAGER))


def test_a_view_keeps_the_filters_and_is_its_owners_alone(door: Door, shop: Client, agnes: Any, mona: Any) -> None:
    waits(door, "ann")
    waits(door, "bob")
    do(agnes, conversation_of("ann"), "prioritise", priority=2)
    do(agnes, conversation_of("ann"), "label", name="VIP")
    label, team = Label.objects.get(), team_of(shop, "Support")
    status, said = save(agnes, " Urgent  VIPs ", tab="unassigned", priority="2", label=label.pk, order="waiting")
    assert (status, said) == (200, "The view Urgent VIPs is saved.")
    view = SavedView.objects.get()
    expected = {"tab": "unassigned", "order": "waiting", "priority": "2", "label": str(label.pk)}
    assert (view.client, view.filters, view.is_shared) == (shop, expected, False)
    page = agnes.get("/admin/inbox/")
    [each] = page.context["views"]
    assert names(agnes, **each["parameters"]) == ["ann"]
    assert shown(agnes) == {"Urgent VIPs": "1"}
    assert shown(mona) == {}
    assert save(agnes, "Words", q="where is it", tab="mine", team=team.pk, assigned="me", channel="sms")[0] == 200
    words = SavedView.objects.get(name="Words").filters
    assert words == {"tab": "mine", "q": "where is it", "team": str(team.pk), "assigned": "me", "channel": "sms"}
    assert shown(agnes)["Words"] == "", "a search is not counted"
    assert 'value="where is it"' in agnes.get("/admin/inbox/", words).content.decode()


def test_managers_share_views_with_all_staff_and_nobody_else_changes_them(
    door: Door, shop: Client, agnes: Any, mona: Any, neighbour: Client
) -> None:
    waits(door, "ann")
    assert save(agnes, "Mine", shared="yes") == (409, "Only managers share views.")
    assert save(mona, "Waiting", tab="unassigned", shared="yes")[0] == 200
    view = SavedView.objects.get()
    assert shown(agnes) == shown(mona) == {"Waiting": "1"}
    assert shown(signed_in(staff("frank", **{neighbour.sub_domain: Role.MANAGER}))) == {}
    for what in ("rename", "delete"):
        refused = agnes.post(f"{VIEWS}{view.pk}/{what}/", {"name": "Mine"})
        assert (refused.status_code, refused.json()["said"]) == (409, "Only managers change shared views.")
    assert SavedView.objects.get().name == "Waiting"
    assert mona.post(f"{VIEWS}{view.pk}/rename/", {"name": "All that wait"}).status_code == 200
    assert shown(agnes) == {"All that wait": "1"}
    assert mona.post(f"{VIEWS}{view.pk}/delete/").status_code == 200
    assert mona.post(f"{VIEWS}{view.pk}/delete/").status_code == 404
    assert shown(agnes) == {}
    verbs = StaffAction.objects.filter(object_type="savedview").order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["added", "changed", "deleted"]


def test_a_view_of_somebody_else_does_not_exist(shop: Client, neighbour: Client, agnes: Any, mona: Any) -> None:
    save(agnes, "Own")
    save(signed_in(staff("frank", **{neighbour.sub_domain: Role.MANAGER})), "Theirs", shared="yes")
    for view in SavedView.objects.all():
        for http in (mona, signed_in(superuser(f"boss of {view}"))):
            if view.is_shared and http is not mona:
                continue  # a superuser manages every client
            for what in ("rename", "delete"):
                assert http.post(f"{VIEWS}{view.pk}/{what}/", {"name": "x"}).status_code == 404
    assert sorted(SavedView.objects.values_list("name", flat=True)) == ["Own", "Theirs"]


@pytest.mark.parametrize(
    "given",
    [
        {"tab": "nonsense"},
        {"order": "random"},
        {"status": "asleep"},
        {"status": "closed", "tab": "mine"},
        {"status": "active", "tab": "ended"},
        {"channel": "pigeon"},
        {"label": "x"},
        {"label": "999999"},
        {"team": "-1"},
        {"team": "9" * 30},
        {"priority": "7"},
        {"priority": "²"},
        {"assigned": "nobody else"},
        {"assigned": "999999"},
        {"client": "x"},
        {"client": str(uuid4())},
        {"q": "x" * 201},
        {"name": " "},
        {"name": "x" * 61},
        {"name": "\x00"},
    ],
)
def test_what_is_no_filter_is_refused_and_nothing_is_saved(agnes: Any, given: dict[str, str]) -> None:
    status, said = save(agnes, given.pop("name", "View"), **given)
    assert status in (404, 409)
    assert said
    assert not SavedView.objects.exists()


def test_another_clients_label_team_or_colleague_is_refused(
    shop: Client, neighbour: Client, agnes: Any, mona: Any
) -> None:
    frank = staff("frank", **{neighbour.sub_domain: Role.AGENT})
    theirs = {
        "label": Label.objects.create(client=neighbour, name="VIP").pk,
        "team": team_of(neighbour, "Theirs").pk,
        "assigned": frank.pk,
        "client": neighbour.pk,
    }
    for name, pk in theirs.items():
        assert save(agnes, "View", **{name: pk})[0] == 404, name
    assert not SavedView.objects.exists()


def test_whoever_sees_several_clients_names_the_one_whose_conversations_a_view_shows(
    door: Door, shop: Client, neighbour: Client
) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT, **{neighbour.sub_domain: Role.MANAGER}))
    waits(door, "ann")
    assert save(http, "Waiting", tab="unassigned") == (409, "Choose the client whose conversations the view shows.")
    assert save(http, "Waiting", tab="unassigned", client=neighbour.pk)[0] == 200
    [each] = http.get("/admin/inbox/").context["views"]
    assert each["parameters"] == {"tab": "unassigned", "client": str(neighbour.pk)}
    assert names(http, **each["parameters"]) == []
    assert shown(http) == {"Waiting": ""}
    assert save(http, "Shared", client=shop.pk, shared="yes")[0] == 409, "an agent of the shop"
    assert save(http, "Shared", client=neighbour.pk, shared="yes")[0] == 200


def test_a_name_is_taken_once_and_there_are_not_too_many(
    shop: Client, agnes: Any, mona: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert save(agnes, "Mine")[0] == save(mona, "Mine")[0] == 200
    assert save(agnes, "Mine", tab="mine") == (409, "There is a view of this name already.")
    save(agnes, "Other")
    other = SavedView.objects.get(name="Other")
    assert agnes.post(f"{VIEWS}{other.pk}/rename/", {"name": "Mine"}).status_code == 409
    assert agnes.post(f"{VIEWS}{other.pk}/rename/", {"name": ""}).status_code == 409
    assert save(mona, "Shared", shared="yes")[0] == 200
    assert save(mona, "Shared", shared="yes")[0] == 409
    monkeypatch.setattr(saved_views, "MOST_VIEWS", 2)
    assert save(agnes, "Third") == (409, "There are 2 views already. Delete one first.")
    assert SavedView.objects.filter(owner__username="agnes").count() == 2


def test_counts_are_one_statement_however_many_views_and_conversations_there_are(
    door: Door, shop: Client, agnes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(agnes, "First", tab="unassigned")
    costs = []
    for start in (0, 10):
        for number in range(start, start + 10):
            waits(door, f"user-{number}")
            save(agnes, f"View {number}", tab=("mine", "unassigned", "all", "teams", "snoozed")[number % 5])
        agnes.get(VIEWS)
        with CaptureQueriesContext(connection) as seen:
            agnes.get(VIEWS)
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 7, [each["sql"] for each in seen]
    counts = shown(agnes)
    assert (counts["View 0"], counts["View 1"], counts["View 2"], counts["View 4"]) == ("", "20", "20", "")
    with CaptureQueriesContext(connection) as seen:
        agnes.get("/admin/inbox/list/")
    assert len(seen) <= 11 + IN_CLUSTER, "the list, which is read every second, does not read them"


def test_a_view_goes_with_its_owner_and_a_shared_one_stays(shop: Client, mona: Any) -> None:
    save(mona, "Own")
    save(mona, "Shared", shared="yes")
    SavedView.objects.get(name="Own").owner.delete()  # type: ignore[union-attr]
    assert [each.name for each in SavedView.objects.all()] == ["Shared"]


def test_viewers_save_views_too_and_strangers_do_not(shop: Client) -> None:
    assert save(signed_in(staff("vera", shop=Role.VIEWER)), "Own")[0] == 200
    assert signed_in(staff("nobody")).post(f"{VIEWS}save/", {"name": "x"}).status_code == 403
