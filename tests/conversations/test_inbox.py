"""The inbox: its tabs, orders and pages, who may read it, and what it costs."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.template.loader import render_to_string
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.admin import inbox_rows
from conversations.admin.access import Role
from conversations.models import Client, Conversation
from conversations.services.core.ledger import Actor
from conversations.services.desk import inbox
from conversations.services.desk.inbox import Order, Tab
from conversations.services.staff_actions import corrections
from conversations.services.tenants import preferences
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import do
from tests.conversations.staff import signed_in, staff
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db

TOKYO = ZoneInfo("Asia/Tokyo")


def names(http: Any, **asked: str) -> list[str]:
    """Return the names in the list, in its order."""
    answer = http.get("/admin/inbox/", asked)
    assert answer.status_code == 200
    return [each.name for each in answer.context["rows"]]


def conversation_of(user_id: str) -> Conversation:
    return Conversation.objects.get(contact__user_id=user_id)


def taken(user_id: str, user: Any) -> None:
    actor = Actor("staff", user.get_username(), user.pk)
    takeover.take_over(conversation_of(user_id).pk, actor=actor, now=timezone.now())


def test_the_tabs_hold_what_is_mine_what_nobody_has_what_is_open_and_what_has_ended(door: Door, shop: Client) -> None:
    ann, max_ = staff("ann", shop=Role.AGENT), staff("max", shop=Role.AGENT)
    for name in ("Mine", "Theirs", "Nobody", "Assistant", "Ended"):
        door.says("Hello", user_id=name, name=name)
    taken("Mine", ann)
    taken("Theirs", max_)
    takeover.take_over(conversation_of("Nobody").pk, actor=Actor("system"), now=timezone.now())
    closing.close(conversation_of("Ended").pk, ended_by="system", actor=Actor("system"), now=timezone.now())
    http = signed_in(ann)
    assert names(http, tab="mine") == ["Mine"]
    assert names(http, tab="unassigned") == ["Nobody"]
    assert sorted(names(http)) == ["Assistant", "Mine", "Nobody", "Theirs"]
    assert names(http, tab="ended") == ["Ended"]
    assert names(http, tab="nonsense", order="nonsense", after="nonsense") == names(http)
    counts = http.get("/admin/inbox/list/").json()["counts"]
    assert counts == {"mine": 1, "unassigned": 1, "mentions": 0}


def test_the_newest_message_comes_first_or_the_longest_wait(door: Door, shop: Client) -> None:
    for name in ("First", "Second", "Third"):
        door.says("Hello", user_id=name, name=name)
    door.says("Again", user_id="First")
    http = signed_in(staff("ann", shop=Role.AGENT))
    assert names(http) == ["First", "Third", "Second"]
    for minutes, name in ((5, "Second"), (20, "Third")):
        waiting = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(contact__user_id=name).update(needs_staff_since=waiting)
    assert names(http, order="waiting") == ["Third", "Second", "First"]


def test_what_waits_longer_than_was_promised_is_late(door: Door, shop: Client) -> None:
    for minutes, name in ((5, "In time"), (20, "Late")):
        door.says("Hello", user_id=name, name=name)
        waiting = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(contact__user_id=name).update(needs_staff_since=waiting)
    http = signed_in(staff("ann", shop=Role.AGENT))

    def late() -> dict[str, bool]:
        return {
            each.name: bool(each.promise and each.promise.is_late) for each in http.get("/admin/inbox/").context["rows"]
        }

    assert late() == {"In time": False, "Late": False}
    shop.answer_within = timedelta(minutes=15)
    shop.save(update_fields=["answer_within"])
    assert late() == {"In time": False, "Late": True}
    assert "5 min late" in http.get("/admin/inbox/").content.decode()


def test_a_row_shows_the_customers_last_words_as_they_read_now(door: Door, shop: Client) -> None:
    door.says("Where is it?", user_id="ann", name="Ann")
    reply_to_all()
    http = signed_in(staff("mona", shop=Role.MANAGER))
    [row] = http.get("/admin/inbox/").context["rows"]
    assert (row.words, row.channel, row.row.initials) == ("Where is it?", "SMS", "A")
    actor = Actor("staff", "mona")
    corrections.correct(conversation_of("ann").pk, 3, "Where is the parcel?", actor=actor, now=timezone.now())
    assert http.get("/admin/inbox/").context["rows"][0].words == "Where is the parcel?"


def rows_html(http: Any, **asked: str) -> str:
    html: str = http.get("/admin/inbox/list/", {"tab": "all", **asked}).json()["html"]
    return html


def test_each_colleague_reads_their_own_rows_whoever_read_them_before(door: Door, shop: Client) -> None:
    door.says("Where is it?", user_id="ann", name="Ann")
    mona = staff("mona", shop=Role.AGENT)
    taken("ann", mona)
    at = conversation_of("ann").last_message_at
    for name, language, zone, expected in (
        ("max", "en", "UTC", (">mona<", "on SMS", f"{at.astimezone(UTC):%H:%M}<")),
        ("eva", "es", "UTC", (">mona<", "en SMS", f"{at.astimezone(UTC):%H:%M}<")),
        ("kim", "en", "Asia/Tokyo", (">mona<", "on SMS", f"{at.astimezone(TOKYO):%H:%M}<")),
    ):
        user = staff(name, shop=Role.AGENT)
        preferences.choose(user.pk, language=language, time_zone=zone)
        row = rows_html(signed_in(user))
        assert [each for each in expected if each not in row] == [], name
    assert ">You<" in rows_html(signed_in(mona))
    assert "order=waiting" in rows_html(signed_in(mona), order="waiting")


def test_a_row_is_rendered_once_for_all_who_see_the_same(
    door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []

    def render(template: str, context: Any) -> Any:
        rendered.append(context["each"].name)
        return render_to_string(template, context)

    monkeypatch.setattr(inbox_rows, "render_to_string", render)
    for name in ("Ann", "Bob"):
        door.says("Hello", user_id=name, name=name)
    colleagues = [signed_in(staff(name, shop=Role.AGENT)) for name in ("mona", "max")]
    assert rows_html(colleagues[0]) == rows_html(colleagues[1])
    assert rendered == ["Bob", "Ann"]
    door.says("Is anybody there?", user_id="Ann", name="Ann")
    assert "Is anybody there?" in rows_html(colleagues[1])
    assert rendered == ["Bob", "Ann"], "other words and their time are put in their places"
    door.says("Hello", user_id="Ann", name="Anna")
    assert "Anna" in rows_html(colleagues[1])
    assert rendered == ["Bob", "Ann", "Anna"], "what has changed alone is rendered anew"


@pytest.mark.parametrize("tab", [Tab.ALL, Tab.ENDED])
@pytest.mark.parametrize("order", Order)
def test_pages_go_on_where_the_last_one_ended_although_messages_arrive(
    shop: Client, neighbour: Client, tab: Tab, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PAGE_SIZE", 3)
    for cached in (inbox._open, inbox._ended):
        cached.cache_clear()
    now = timezone.now()
    ended = {"status": "closed", "ended_by": "staff"} if tab == Tab.ENDED else {}
    for client in (shop, neighbour):
        for minutes in (1, 1, 2, 3, 3, 3, 4):  # some at the same time
            at = now - timedelta(minutes=minutes)
            times = {"ended_at": at} if ended else {"needs_staff_since": at if minutes % 2 else None}
            factories.ConversationFactory(client=client, last_message_at=at, **ended, **times)
    read, cursor = [], ""
    while page := inbox.page([shop.pk, neighbour.pk], 0, tab, order, cursor):
        read += [row.id for row in page.rows]
        factories.ConversationFactory(client=shop, last_message_at=now + timedelta(minutes=1))
        if not (cursor := page.next):
            break
    of_before = Conversation.objects.filter(last_message_at__lte=now).values_list("pk", flat=True)
    assert set(of_before) <= set(read)
    assert len(read) == len(set(read))
    for cached in (inbox._open, inbox._ended):
        cached.cache_clear()


def test_nothing_of_another_client_is_read(door: Door, shop: Client, neighbour: Client) -> None:
    theirs = factories.ConversationFactory(client=neighbour)
    theirs.contact.name = "Zanzibar"
    theirs.contact.save()
    http = signed_in(staff("ann", shop=Role.MANAGER))
    for tab in Tab:
        assert names(http, tab=tab) == []
    for way in ("", "pane/", "news/"):
        answers = [http.get(f"/admin/inbox/{pk}/{way}") for pk in (theirs.pk, uuid4())]
        assert [each.status_code for each in answers] == [404, 404]


def test_a_viewer_reads_and_is_offered_nothing_to_do(door: Door, shop: Client) -> None:
    pk = door.says("Hello", name="Ann")["conversation_id"]
    page = signed_in(staff("vera", shop=Role.VIEWER)).get(f"/admin/inbox/{pk}/").content.decode()
    assert "Only agents and managers can reply." in page
    assert "Take over" not in page


def test_without_a_role_or_a_sign_in_there_is_no_inbox(client: Any, shop: Client) -> None:
    assert signed_in(staff("nobody")).get("/admin/inbox/").status_code == 403
    assert client.get("/admin/inbox/list/").status_code == 302


def test_whoever_replies_has_the_conversation_and_the_assistant_is_silent(door: Door, shop: Client) -> None:
    door.says("Hello")
    http = signed_in(staff("agnes", shop=Role.AGENT))
    assert do(http, Conversation.objects.get(), "reply", text="I am Agnes.")[0] == 200
    conversation = Conversation.objects.get()
    assert conversation.taken_over_name == "agnes"
    door.says("And now?")
    assert reply_to_all() == 0
    assert names(http, tab="mine") == ["ann"]


def test_a_list_costs_the_same_however_long_it_is(door: Door, shop: Client) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    door.says("Hello", user_id="first")
    costs = []
    for count in (0, 30):
        for number in range(count):
            door.says("Hello", user_id=f"user-{number}")
        http.get("/admin/inbox/list/")
        with CaptureQueriesContext(connection) as seen:
            http.get("/admin/inbox/list/")
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 11 + IN_CLUSTER, [each["sql"] for each in seen]
