"""The figures of quarters of an hour: what is counted in which, and that counting again changes nothing."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from conversations import tasks
from conversations.models import (
    Assistant,
    Chunk,
    Client,
    ClientHours,
    Conversation,
    ConversationEvent,
    ConversationLabel,
    DeskState,
    FiguresDone,
    Label,
    QuarterFigures,
    QuarterTimes,
    Rating,
    Team,
    Turn,
)
from conversations.services.figures import buckets, counting, keeping
from conversations.services.figures.reading import Narrowed, Period, Step, report
from conversations.services.jobs import sweep
from tests import factories
from tests.conversations.staff import staff

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
FIRST = QuarterTimes.Kind.FIRST_RESPONSE
RESOLUTION = QuarterTimes.Kind.RESOLUTION


def at(minutes: float) -> datetime:
    return DAY + timedelta(minutes=minutes)


def conversation(client: Any, begins: float = 0, ends: float | None = None, **more: Any) -> Conversation:
    """A conversation that began so many minutes after DAY, and perhaps ended."""
    end = {"status": "closed", "ended_by": "staff", "ended_at": at(ends)} if ends is not None else {}
    values = {"started_at": at(begins), "last_message_at": at(begins), "last_position": 9, **end, **more}
    made: Conversation = factories.ConversationFactory(client=client, **values)
    return made


def says(its: Conversation, position: int, role: str, minutes: float, **more: Any) -> Chunk:
    return Chunk.objects.create(
        conversation=its, position=position, role=role, content="x", created_at=at(minutes), **more
    )


def turn(its: Conversation, minutes: float, **more: Any) -> Turn:
    values = {"attempt": 1, "inbound_sequence": 1, "lease_until": at(minutes), "status": "committed"}
    return Turn.objects.create(conversation=its, ended_at=at(minutes), **{**values, **more})


def sums(**of: Any) -> dict[str, Any]:
    """The sums that are not 0, over all rows without a label, or of these."""
    of = {"team_id": 0} | (of or {"label_id": 0})
    total: dict[str, Any] = {}
    for row in QuarterFigures.objects.filter(**of).values(*counting.COLUMNS):
        for name, value in row.items():
            total[name] = total.get(name, 0) + value
    return {name: value for name, value in total.items() if value}


def count() -> int:
    return counting.count(at(-60), at(24 * 60))


def rows() -> list[Any]:
    left_out = ("id",)
    return [
        sorted(str({k: v for k, v in row.items() if k not in left_out}) for row in model.objects.values())
        for model in (QuarterFigures, QuarterTimes)
    ]


@pytest.fixture
def told(shop: Any) -> Any:
    """A conversation that the assistant answered alone, and one that a colleague took over."""
    ann = staff("ann", shop="agent")
    alone = conversation(shop, 0, 20, channel="whatsapp")
    says(alone, 3, "user", 1)
    says(alone, 4, "ai", 1.5)
    turn(alone, 1.5, tokens_in=100, tokens_out=20, cost=Decimal("0.5"))
    turn(alone, 2, status="failed", tokens_in=7)
    taken = conversation(shop, 5, 65)
    says(taken, 3, "user", 6)
    says(taken, 4, "user", 7)
    says(taken, 5, "ai", 16, author=ann)
    ConversationEvent.objects.create(conversation=taken, kind="taken_over", actor="staff", created_at=at(15))
    Rating.objects.create(conversation=taken, scale="five", asked_at=at(66), score=4, rated_at=at(95))
    label = Label.objects.create(client=shop, name="vip")
    ConversationLabel.objects.create(client=shop, conversation=taken, label=label)
    return {"ann": ann, "alone": alone, "taken": taken, "label": label}


def test_each_figure_is_counted_once_in_its_quarter(told, shop):
    count()
    assert sums() == {
        "opened": 2,
        "ended": 2,
        "answered_alone": 1,
        "handed_over": 1,
        "messages_in": 3,
        "messages_out": 2,
        "asked": 1,
        "ratings": 1,
        "satisfied": 1,
        "rating_sum": 4,
        "tokens": 127,
        "cost": Decimal("0.5"),
    }
    assert sums(label_id=0, quarter=at(0)) == {
        "opened": 2,
        "messages_in": 3,
        "messages_out": 1,
        "tokens": 127,
        "cost": Decimal("0.5"),
    }
    assert sums(label_id=0, quarter=at(15)) == {"ended": 1, "answered_alone": 1, "messages_out": 1}
    assert sums(label_id=0, quarter=at(60)) == {"ended": 1, "handed_over": 1, "asked": 1}
    assert sums(label_id=0, quarter=at(90)) == {"ratings": 1, "satisfied": 1, "rating_sum": 4}
    assert sums(label_id=0, channel="whatsapp")["opened"] == 1
    ann = sums(label_id=0, colleague_id=told["ann"].pk)
    assert (ann["messages_out"], ann["ended"], ann["ratings"]) == (1, 1, 1)
    labelled = sums(label_id=told["label"].pk)
    assert (labelled["opened"], labelled["messages_in"], "tokens" in labelled) == (1, 2, False)
    default = Assistant.objects.get(client=shop).pk
    assert set(QuarterFigures.objects.values_list("assistant_id", flat=True)) == {default}


def test_times_fall_into_buckets_of_the_reply_s_and_the_end_s_quarter(told):
    count()
    times = QuarterTimes.objects.filter(label_id=0)
    found = {(kind, quarter): bucket for kind, quarter, bucket in times.values_list("kind", "quarter", "bucket")}
    assert found == {
        (FIRST, at(0)): buckets.bucket_of(30),
        (FIRST, at(15)): buckets.bucket_of(600),
        (RESOLUTION, at(15)): buckets.bucket_of(20 * 60),
        (RESOLUTION, at(60)): buckets.bucket_of(60 * 60),
    }


def test_counting_again_gives_the_same_rows_and_what_came_late_is_added(told, shop):
    count()
    before = rows()
    count()
    counting.count(at(0), at(15))
    assert rows() == before
    says(told["alone"], 5, "user", 14)
    late = conversation(shop, 14.9)
    count()
    assert (sums()["messages_in"], sums()["opened"]) == (4, 3)
    Conversation.objects.filter(pk__in=[late.pk, told["alone"].pk]).delete()
    count()
    assert (sums()["messages_in"], sums()["opened"]) == (4, 3), "what was deleted stays counted"


def test_a_colleague_who_is_deleted_does_not_double_what_they_said(told, shop):
    count()
    before, by = (
        sums(),
        list(QuarterTimes.objects.filter(team_id=0, label_id=0).values_list("kind", "bucket", "number")),
    )
    told["ann"].delete()
    count()
    assert sums() == before, "the messages are nobody's now, and were counted as hers"
    again = QuarterTimes.objects.filter(team_id=0, label_id=0).values_list("kind", "bucket", "number")
    assert sorted(again) == sorted(by)
    says(told["taken"], 6, "ai", 17)
    count()
    assert sums() == before | {"messages_out": before["messages_out"] + 1}, "what comes late is counted still"


def test_an_assistant_who_is_deleted_or_follows_another_does_not_double_what_was_counted(told, shop):
    other = factories.AssistantFactory(client=shop, key="other", is_default=False)
    Conversation.objects.filter(pk=told["alone"].pk).update(assistant=other)
    count()
    before = sums()
    Conversation.objects.filter(pk=told["taken"].pk).update(assistant=other)
    count()
    assert sums() == before, "it counts for the assistant that it had first"
    other.delete()
    count()
    assert sums() == before
    assert sums(label_id=told["label"].pk)["opened"] == 1


def test_what_was_deleted_stays_counted_beside_a_colleague_who_was(told, shop):
    count()
    before = sums()
    told["alone"].delete()
    told["ann"].delete()
    count()
    assert sums() == before


def test_bounds_belong_to_the_quarter_that_they_begin(shop):
    for minutes in (0, 14.999, 15, 29.999):
        conversation(shop, minutes)
    counting.count(at(15), at(30))
    assert list(QuarterFigures.objects.values_list("quarter", "opened")) == [(at(15), 2)]


@pytest.mark.parametrize(
    ("fact", "alone", "over"),
    [("nothing", 1, 0), ("colleague", 0, 0), ("elsewhere", 0, 0), ("taken over", 0, 1), ("no answer", 0, 0)],
)
def test_an_answer_is_the_assistant_s_alone_where_no_person_had_it(shop, fact, alone, over):
    its = conversation(shop, 0, 20)
    says(its, 3, "user", 1)
    if fact != "no answer":
        says(its, 4, "ai", 2)
    if fact == "colleague":
        says(its, 5, "ai", 3, author=staff("ann", shop="agent"))
    elif fact == "elsewhere":
        says(its, 5, "ai", 3, metadata={"colleague": "the inbox"})
    elif fact == "taken over":
        ConversationEvent.objects.create(conversation=its, kind="taken_over", actor="system")
    count()
    assert (sums().get("answered_alone", 0), sums().get("handed_over", 0), sums()["ended"]) == (alone, over, 1)


def test_what_ran_out_has_no_resolution_and_what_went_on_elsewhere_has_no_end(shop):
    ran_out = conversation(shop, 0, 20)
    Conversation.objects.filter(pk=ran_out.pk).update(status="expired", ended_by="timeout")
    conversation(shop, 0, 20, last_position=0)
    count()
    assert sums() == {"opened": 2, "ended": 1}
    assert not QuarterTimes.objects.exists()


def test_an_archived_conversation_was_answered_where_a_turn_says_so(shop):
    its = conversation(shop, 0, 20)
    turn(its, 1)
    count()
    assert sums()["answered_alone"] == 1


def test_another_client_s_rows_are_its_own(told, shop, neighbour):
    conversation(neighbour, 0, 20)
    count()
    assert sums(label_id=0, client=neighbour) == {"opened": 1, "ended": 1}
    assert sums(label_id=0, client=shop)["opened"] == 2


def test_a_team_s_rows_count_once_more_and_another_team_later_doubles_nothing(told, shop):
    sales, care = (Team.objects.create(client=shop, name=name) for name in ("Sales", "Care"))
    state = DeskState.objects.create(client=shop, conversation=told["taken"], team=sales)
    count()
    assert sums(label_id=0, team_id=sales.pk) == {
        **dict.fromkeys(("opened", "ended", "handed_over", "messages_out", "asked", "ratings", "satisfied"), 1),
        "messages_in": 2,
        "rating_sum": 4,
    }
    assert sums(label_id=told["label"].pk, team_id=sales.pk) == sums(label_id=0, team_id=sales.pk)
    before = rows()
    count()
    assert rows() == before
    state.team = care
    state.save(update_fields=["team"])
    count()
    everything = period(date(2026, 3, 10), date(2026, 3, 10))
    found = report(shop.pk, everything, Step.DAY)
    assert (found.total["opened"], found.total["ended"]) == (2, 2)
    assert {pk: each["ended"] for pk, each in found.by["team"].items()} == {sales.pk: 1, care.pk: 1}
    assert found.by["team"][care.pk].time(FIRST) > 0
    assert found.by["label"][told["label"].pk]["ended"] == 1
    both = report(shop.pk, everything, Step.DAY, Narrowed(label_id=told["label"].pk, team_id=care.pk))
    assert (both.total["ended"], [*both.by["team"]], [*both.by["label"]]) == (1, [care.pk], [told["label"].pk])


def promise(client: Any, **within: Any) -> None:
    Client.objects.filter(pk=client.pk).update(answer_within=timedelta(minutes=1))
    ClientHours.objects.update_or_create(client=client, defaults={"counts_business_time": False, **within})


def test_what_was_late_is_counted_where_it_ended_and_stays_so_once_archived(told, shop):
    count()
    assert "late" not in sums()
    promise(shop, first_response_within=timedelta(minutes=5))
    count()
    assert (sums()["late"], sums(label_id=0, team_id=0, quarter=at(60))["late"]) == (1, 1), (
        "ten minutes were promised five"
    )
    assert sums(label_id=told["label"].pk)["late"] == 1
    before = rows()
    Chunk.objects.filter(conversation=told["taken"]).delete()
    Conversation.objects.filter(pk=told["taken"].pk).update(status="archived", archived_at=at(120))
    count()
    assert rows() == before, "its end and its rating do not count again, although its colleague is not known any more"
    promise(shop, first_response_within=timedelta(minutes=5), resolve_within=timedelta(minutes=19))
    count()
    assert (sums()["late"], sums(label_id=0, team_id=0, quarter=at(15))["late"]) == (2, 1)


def test_nothing_is_late_that_was_in_time_or_promised_to_another_client(told, shop, neighbour):
    promise(shop, first_response_within=timedelta(minutes=10), resolve_within=timedelta(hours=1))
    promise(neighbour, first_response_within=timedelta(minutes=1))
    unanswered = conversation(shop, 0, 20)
    says(unanswered, 3, "user", 1)
    count()
    assert "late" not in sums()


def test_guests_who_are_deleted_as_they_expire_are_counted_once(door, shop):
    before = timezone.now() - timedelta(hours=25)
    for number in range(3):
        door.says("Hello", user_id=f"guest-{number}")
    Conversation.objects.update(started_at=before, last_message_at=before)
    Chunk.objects.update(created_at=before)
    counting.count(keeping.quarter_of(before), keeping.quarter_of(before) + timedelta(minutes=15))
    assert sums(label_id=0) == {"opened": 3, "messages_in": 3}
    sweep.sweep(timezone.now())
    assert not Conversation.objects.exists()
    assert sums(label_id=0, of_deleted=True) == {"ended": 3}
    now = timezone.now()
    keeping.keep(now + timedelta(minutes=16))
    keeping.keep(now + timedelta(minutes=32))
    assert sums(label_id=0) == {"opened": 3, "messages_in": 3, "ended": 3}


def test_a_guest_whose_end_is_counted_is_not_counted_again_as_it_is_deleted(door, shop):
    door.says("Hello", user_id="guest")
    ended_at = timezone.now() - timedelta(hours=2)
    Conversation.objects.update(
        status="expired", started_at=ended_at, ended_at=ended_at, ended_by="timeout", reply_owed=False
    )
    FiguresDone.objects.create(pk=1, upto=keeping.quarter_of(timezone.now()) - timedelta(hours=3))
    keeping.keep(timezone.now())
    assert sums()["ended"] == 1
    sweep.sweep(timezone.now())
    assert not Conversation.objects.exists()
    assert sums()["ended"] == 1


# --- keeping ----------------------------------------------------------------------------------------------------------
def test_a_quarter_is_counted_once_it_is_over_and_a_run_goes_on_where_one_ended(shop, monkeypatch):
    now = timezone.now().replace(hour=10, minute=16, second=30)
    quarter = now.replace(minute=0, second=0, microsecond=0)
    for minutes in (-20, 1, 16):
        began = quarter + timedelta(minutes=minutes)
        factories.ConversationFactory(client=shop, started_at=began, last_message_at=began)
    assert keeping.is_pending(now)
    keeping.keep(now)
    assert sums() == {"opened": 2}
    assert FiguresDone.objects.get().upto == quarter + timedelta(minutes=15)
    assert not keeping.is_pending(now)
    later = quarter + timedelta(minutes=31, seconds=30)

    with monkeypatch.context() as patch:
        patch.setattr(counting, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keeping.keep(later)
    assert FiguresDone.objects.get().upto == quarter + timedelta(minutes=15), "what was not counted is not done"
    keeping.keep(later)
    assert sums() == {"opened": 3}


def test_days_without_a_run_are_made_up_for(shop):
    now = timezone.now()
    FiguresDone.objects.create(pk=1, upto=keeping.quarter_of(now - timedelta(days=2)))
    for hours in (47, 20, 1):
        factories.ConversationFactory(client=shop, last_message_at=now - timedelta(hours=hours))
    keeping.keep(now)
    assert sums() == {"opened": 3}
    assert keeping.keep(now) >= 0
    assert sums() == {"opened": 3}


def test_the_task_counts(shop):
    factories.ConversationFactory(client=shop, last_message_at=timezone.now() - timedelta(minutes=40))
    tasks.keep_figures()
    assert sums() == {"opened": 1}


def test_the_command_counts_what_was_before_and_shows_it_first(told):
    out, err = StringIO(), StringIO()
    call_command("count_figures", "--dry-run", "--until", at(180).isoformat(), stdout=out, stderr=err)
    assert not QuarterFigures.objects.exists()
    assert "Would count" in out.getvalue()
    for _ in range(2):
        call_command("count_figures", "--until", at(180).isoformat(), stdout=out, stderr=err)
    assert (sums()["opened"], sums()["ratings"]) == (2, 1)
    assert "up to 2026-03-10" in err.getvalue()
    with pytest.raises(CommandError):
        call_command("count_figures", "--since", at(1).isoformat(), "--until", at(0).isoformat())


def test_the_command_has_nothing_to_count_without_conversations(db):
    out = StringIO()
    call_command("count_figures", stdout=out)
    assert "no conversation" in out.getvalue()


# --- reading ----------------------------------------------------------------------------------------------------------
def period(first: date, last: date, zone: str = "UTC") -> Period:
    return Period(first, last, ZoneInfo(zone))


def test_a_report_has_each_step_the_total_the_period_before_and_what_it_is_split_by(told, shop):
    count()
    found = report(shop.pk, period(date(2026, 3, 9), date(2026, 3, 11)), Step.DAY)
    assert [(at.date().day, each["opened"]) for at, each in found.steps.items()] == [(9, 0), (10, 2), (11, 0)]
    assert (found.total["opened"], found.before["opened"]) == (2, 0)
    assert found.total.share("answered_alone", "ended") == 50
    assert found.by["channel"]["whatsapp"]["opened"] == 1
    assert found.by["colleague"][told["ann"].pk]["messages_out"] == 1
    assert found.by["label"][told["label"].pk]["opened"] == 1
    assert 28 <= found.by["channel"]["whatsapp"].time(FIRST) <= 38
    after = report(shop.pk, period(date(2026, 3, 11), date(2026, 3, 11)), Step.HOUR)
    assert (after.total["opened"], after.before["opened"], len(after.steps)) == (0, 2, 24)


@pytest.mark.parametrize(
    ("narrowed", "opened", "replied"),
    [
        (lambda told: Narrowed(channel="whatsapp"), 1, 1),
        (lambda told: Narrowed(colleague_id=told["ann"].pk), 0, 1),
        (lambda told: Narrowed(label_id=told["label"].pk), 1, 1),
        (lambda told: Narrowed(assistant_id=UUID(int=1)), 0, 0),
    ],
)
def test_a_report_can_be_narrowed(told, shop, narrowed, opened, replied):
    count()
    found = report(shop.pk, period(date(2026, 3, 10), date(2026, 3, 10)), Step.DAY, narrowed(told))
    assert (found.total["opened"], found.total["messages_out"]) == (opened, replied)


def test_days_are_those_of_the_zone_and_a_day_of_daylight_saving_has_23_or_25_hours(shop):
    madrid = "Europe/Madrid"
    spring, autumn = date(2026, 3, 29), date(2026, 10, 25)
    assert period(spring, spring, madrid).until - period(spring, spring, madrid).since == timedelta(days=1)
    hours = {}
    for day in (spring, autumn):
        began = period(day, day, madrid).since.astimezone(UTC) - timedelta(hours=1)
        for hour in range(27):
            when = began + timedelta(hours=hour)
            factories.ConversationFactory(client=shop, started_at=when, last_message_at=when)
        counting.count(began, began + timedelta(hours=28))
        hours[day] = report(shop.pk, period(day, day, madrid), Step.DAY).total["opened"]
    assert hours == {spring: 23, autumn: 25}
    steps = report(shop.pk, period(autumn, autumn, madrid), Step.HOUR).steps
    assert [at.hour for at, each in steps.items() if each["opened"] == 2] == [2], "an hour that comes twice"
    week = report(shop.pk, period(spring, date(2026, 3, 30), madrid), Step.WEEK).steps
    assert [at.date() for at in week] == [date(2026, 3, 23), date(2026, 3, 30)]
    months = report(shop.pk, period(date(2026, 1, 31), autumn, madrid), Step.MONTH).steps
    assert [at.month for at in months] == list(range(1, 11))


def test_a_zone_of_a_quarter_of_an_hour_has_its_own_midnight(shop):
    nepal = period(date(2026, 3, 10), date(2026, 3, 10), "Asia/Kathmandu")
    for seconds in (-1, 0, 86_399, 86_400):
        when = nepal.since.astimezone(UTC) + timedelta(seconds=seconds)
        factories.ConversationFactory(client=shop, started_at=when, last_message_at=when)
    counting.count(at(-2 * 24 * 60), at(2 * 24 * 60))
    assert report(shop.pk, nepal, Step.DAY).total["opened"] == 2


def test_a_median_is_right_within_a_bucket_and_bounds_hold():
    assert buckets.percentile({}, 0.5) is None
    assert (buckets.bucket_of(-5), buckets.bucket_of(0), buckets.bucket_of(1)) == (0, 0, 1)
    assert buckets.bucket_of(10**9) == len(buckets.bounds()) - 1
    chance = random.Random(4)
    times = sorted(chance.lognormvariate(4, 1.5) for _ in range(5_000))
    found: dict[int, int] = {}
    for each in times:
        found[buckets.bucket_of(each)] = found.get(buckets.bucket_of(each), 0) + 1
    for share in (0.5, 0.9):
        exact = times[int(share * len(times))]
        assert abs(buckets.percentile(found, share) - exact) < 0.1 * exact
