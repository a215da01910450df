"""What clients promise: what counts, in which time, how the list sorts by it, and what that costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.admin import promise_view
from conversations.admin.access import Role
from conversations.engines import registry
from conversations.engines.contract import EngineError
from conversations.models import Chunk, Client, Conversation
from conversations.services.core.ledger import Actor
from conversations.services.desk import inbox, notes
from conversations.services.desk.inbox import Order, Tab
from conversations.services.staff_actions import send as staff_send
from conversations.services.tenants import client_hours, promises
from conversations.services.tenants.promises import Kind, Promises
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_inbox import names
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
ANN = Actor("staff", "ann")
OFFICE = [[[540, 1080]]] * 5 + [[], []]
MADRID = ZoneInfo("Europe/Madrid")


def promise(shop: Client, answer: timedelta | None = None, **within: Any) -> None:
    Client.objects.filter(pk=shop.pk).update(answer_within=answer, time_zone="Europe/Madrid")
    client_hours.store(shop, within)


def promises_of(shop: Client) -> Promises:
    pk = Conversation.objects.get().pk
    return promises.promises(shop.pk, [pk])[pk]


def test_the_assistants_answer_keeps_the_first_response(door: Door, shop: Client) -> None:
    promise(shop, first_response_within=5 * MINUTE)
    door.says("Hello")
    first = promises_of(shop).of(Kind.FIRST_RESPONSE)
    asked = Chunk.objects.get(role="user").created_at
    assert first
    assert (first.due_at, first.met_at) == (asked + 5 * MINUTE, None)
    assert first.is_late(asked + 6 * MINUTE)
    assert not first.is_late(asked + 4 * MINUTE)
    reply_to_all()
    first = promises_of(shop).of(Kind.FIRST_RESPONSE)
    assert first
    assert first.met_at == Chunk.objects.get(role="ai").created_at
    assert not promises_of(shop).was_late(timezone.now() + HOUR)


def test_sentences_about_failures_and_hand_overs_are_no_answers_and_a_colleagues_is(
    door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        name = "offline"

        def reply(self, _request: Any) -> Any:
            raise EngineError("broken", code="refused", retryable=False)

    monkeypatch.setitem(registry.ENGINES, "offline", Broken())
    promise(shop, first_response_within=5 * MINUTE)
    door.says("Hello")
    reply_to_all()
    pk = Conversation.objects.get().pk
    takeover.take_over(pk, actor=ANN, now=timezone.now(), tell=True)
    assert Chunk.objects.filter(role="ai").count() == 2
    assert promises_of(shop).of(Kind.FIRST_RESPONSE).met_at is None  # type: ignore[union-attr]
    assert next(iter(inbox.next_promises(inbox.rows_of([shop.pk], 0, [pk])).values())).kind == Kind.FIRST_RESPONSE
    staff_send.send(pk, "I am Ann.", actor=ANN, now=timezone.now())
    assert promises_of(shop).of(Kind.FIRST_RESPONSE).met_at is not None  # type: ignore[union-attr]


def test_what_was_said_before_the_person_wrote_is_no_answer(shop: Client) -> None:
    promise(shop, first_response_within=5 * MINUTE)
    conversation = factories.ConversationFactory(client=shop)
    for position, role in enumerate(("ai", "user"), 1):
        conversation.chunks.create(position=position, role=role, content="Hello")
    assert promises_of(shop).of(Kind.FIRST_RESPONSE).met_at is None  # type: ignore[union-attr]
    answer = conversation.chunks.create(position=3, role="ai", content="How can I help you?")
    answer.refresh_from_db()
    assert promises_of(shop).of(Kind.FIRST_RESPONSE).met_at == answer.created_at  # type: ignore[union-attr]


def test_what_waits_for_a_person_has_to_be_answered(door: Door, shop: Client) -> None:
    promise(shop, answer=15 * MINUTE)
    door.says("Hello")
    assert promises_of(shop) == Promises(), "the assistant will answer"
    reply_to_all()
    assert promises_of(shop) == Promises()
    since = timezone.now() - 20 * MINUTE
    Conversation.objects.update(needs_staff_since=since)
    answer = promises_of(shop).of(Kind.ANSWER)
    assert answer
    assert answer.due_at == since + 15 * MINUTE
    assert promises_of(shop).was_late(timezone.now())


def test_a_conversation_is_resolved_when_it_ends(door: Door, shop: Client) -> None:
    promise(shop, resolve_within=HOUR)
    door.says("Hello")
    started = timezone.now() - 2 * HOUR
    Conversation.objects.update(started_at=started)
    resolution = promises_of(shop).next
    assert resolution
    assert (resolution.kind, resolution.due_at) == (Kind.RESOLUTION, started + HOUR)
    closing.close(Conversation.objects.get().pk, ended_by="staff", actor=ANN, now=started + 30 * MINUTE)
    assert promises_of(shop).next is None
    assert not promises_of(shop).was_late(timezone.now()), "it was in time"
    Conversation.objects.update(ended_at=started + 61 * MINUTE)
    assert promises_of(shop).was_late(timezone.now())


@pytest.mark.parametrize(("counts", "late"), [(True, False), (False, True)])
def test_a_night_counts_only_by_the_clock(door: Door, shop: Client, counts: bool, late: bool) -> None:
    promise(shop, answer=HOUR, week=OFFICE, counts_business_time=counts)
    door.says("Hello")
    Conversation.objects.update(needs_staff_since=datetime(2026, 11, 27, 17, 30, tzinfo=MADRID))
    monday = datetime(2026, 11, 30, 9, 15, tzinfo=MADRID)
    assert promises_of(shop).was_late(monday) == late
    assert promises_of(shop).was_late(monday + 16 * MINUTE)


def test_nothing_of_another_client_is_told(door: Door, shop: Client, neighbour: Client) -> None:
    promise(shop, resolve_within=HOUR)
    door.says("Hello")
    assert promises.promises(neighbour.pk, [Conversation.objects.get().pk]) == {}


# --- the list ---------------------------------------------------------------------------------------------------------
def waits(client: Client, minutes: float) -> Conversation:
    since = timezone.now() - timedelta(minutes=minutes)
    return factories.ConversationFactory(
        client=client, needs_staff_since=since, started_at=since, last_message_at=since
    )


def test_what_is_late_comes_first_whoever_promised_it(shop: Client, neighbour: Client) -> None:
    promise(shop, answer=60 * MINUTE)
    promise(neighbour, answer=10 * MINUTE)
    soon, quiet = waits(neighbour, 5), factories.ConversationFactory(client=shop, last_message_at=timezone.now())
    later, late, latest = waits(shop, 30), waits(shop, 70), waits(neighbour, 40)
    found = inbox.page([shop.pk, neighbour.pk], 0, Tab.ALL, Order.LATE).rows
    assert [each.id for each in found] == [each.pk for each in (latest, late, soon, later, quiet)]
    clocks = inbox.next_promises(found)
    words = [promise_view.shown(clocks.get(each.id), timezone.now()) for each in found]
    assert [each and each.words for each in words] == [
        *("30 min late", "10 min late", "due in 4 min", "due in 29 min", None)
    ]


def test_business_hours_change_the_order(shop: Client, neighbour: Client) -> None:
    now = timezone.now()
    promise(shop, answer=20 * MINUTE, week=[[[0, 1]], *[[]] * 6])  # a minute a week
    promise(neighbour, answer=2 * HOUR)
    ours, theirs = waits(shop, 90), waits(neighbour, 60)
    found = inbox.page([shop.pk, neighbour.pk], 0, Tab.ALL, Order.LATE).rows
    assert [each.id for each in found] == [theirs.pk, ours.pk]
    assert inbox.next_promises(found)[ours.pk].due_at > now + timedelta(days=100)


def test_an_unanswered_first_message_is_sorted_as_well(door: Door, shop: Client) -> None:
    promise(shop, first_response_within=5 * MINUTE, answer=HOUR)
    for name in ("answered", "unanswered"):
        door.says("Hello", user_id=name, name=name)
        if name == "answered":
            reply_to_all()
    Conversation.objects.update(needs_staff_since=timezone.now())
    http = signed_in(staff("ann", shop=Role.AGENT))
    assert names(http, order="late") == ["unanswered", "answered"]
    page = http.get("/admin/inbox/", {"order": "late"}).content.decode()
    assert "First response" in page
    assert "due in 4 min" in page


def test_among_ones_mentions_an_ended_conversation_is_not_late(door: Door, shop: Client) -> None:
    promise(shop, first_response_within=5 * MINUTE)
    max_ = staff("max", shop=Role.AGENT)
    for name in ("ended", "open"):
        pk = door.says("Hello", user_id=name, name=name)["conversation_id"]
        notes.add_note(pk, "@max, please look.", actor=ANN, now=timezone.now(), client=shop)
        if name == "ended":
            closing.close(pk, ended_by="staff", actor=ANN, now=timezone.now())
    # A tool call whose outcome nobody knows asks for staff after the end as well.
    Conversation.objects.update(needs_staff_since=timezone.now())
    found = inbox.page([shop.pk], max_.pk, Tab.MENTIONS, Order.LATE).rows
    assert [each.name for each in found] == ["open", "ended"]


def test_pages_of_late_ones_go_on_behind_the_last_row(
    shop: Client, neighbour: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PAGE_SIZE", 3)
    inbox._open.cache_clear()
    promise(shop, answer=10 * MINUTE, week=OFFICE)
    promise(neighbour, answer=10 * MINUTE)
    made = [waits(client, minutes) for client in (shop, neighbour) for minutes in (1, 1, 2, 3, 3000, 90_000)]
    made += [factories.ConversationFactory(client=shop) for _ in range(4)]
    read, cursor = [], ""
    while True:
        page = inbox.page([shop.pk, neighbour.pk], 0, Tab.ALL, Order.LATE, cursor)
        read += [row.id for row in page.rows]
        if not (cursor := page.next):
            break
    assert sorted(read) == sorted(each.pk for each in made)
    inbox._open.cache_clear()


@pytest.mark.parametrize("order", Order)
def test_a_list_with_promises_costs_the_same_however_much_is_stored(door: Door, shop: Client, order: Order) -> None:
    promise(shop, answer=10 * MINUTE, first_response_within=MINUTE, resolve_within=HOUR, week=OFFICE)
    http = signed_in(staff("ann", shop=Role.AGENT))
    door.says("Hello", user_id="first")
    costs = []
    for count in (0, 20):
        for number in range(count):
            door.says("Hello", user_id=f"user-{number}")
        Conversation.objects.update(needs_staff_since=timezone.now())
        http.get("/admin/inbox/list/", {"order": order})
        with CaptureQueriesContext(connection) as seen:
            assert len(http.get("/admin/inbox/list/", {"order": order}).json()["html"]) > 100
        costs.append(len(seen))
    assert costs[0] == costs[1] <= (12 if order == Order.LATE else 11) + IN_CLUSTER, [each["sql"] for each in seen]


def test_the_head_of_a_conversation_shows_its_clock(door: Door, shop: Client) -> None:
    promise(shop, answer=15 * MINUTE)
    pk = door.says("Hello")["conversation_id"]
    Conversation.objects.update(needs_staff_since=timezone.now() - 80 * MINUTE)
    page = signed_in(staff("ann", shop=Role.AGENT)).get(f"/admin/inbox/{pk}/pane/").content.decode()
    assert "Answer" in page
    assert "1 h late" in page


def test_lengths_are_told_in_their_largest_unit() -> None:
    for length, words in ((10, "1 min"), (3_599, "59 min"), (3_600, "1 h"), (86_400 * 3, "3 d")):
        assert promise_view.span(timedelta(seconds=length)) == words
    assert promise_view.shown(None, datetime.now(UTC)) is None
