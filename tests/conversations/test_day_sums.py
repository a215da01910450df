"""Sums by day: reports say the same with them as without, whenever they are made, made anew or interrupted."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.utils import timezone

from conversations.models import (
    Conversation,
    DayFigures,
    DaysSummed,
    DayTimes,
    FiguresDone,
    Label,
    QuarterFigures,
    QuarterTimes,
    Team,
)
from conversations.services.figures import days, keeping
from conversations.services.figures.reading import Narrowed, Period, Report, Step, report
from tests import factories

pytestmark = pytest.mark.django_db
FIRST = datetime(2026, 2, 20, 3, 15, tzinfo=UTC)
COUNTED = datetime(2026, 4, 20, 13, 0, tzinfo=UTC)
ALL = Period(date(2026, 2, 10), date(2026, 4, 25), ZoneInfo("Europe/Madrid"))


@pytest.fixture
def madrid(shop: Any) -> Any:
    """The shop in a zone whose clocks change in March, with figures of two months, of a label and of a team."""
    shop.time_zone = "Europe/Madrid"
    shop.save()
    label, team = Label.objects.create(client=shop, name="late"), Team.objects.create(client=shop, name="Sales")
    dice, figures, times = random.Random(8), [], []
    for _ in range(700):
        of = {
            "client": shop,
            "quarter": FIRST + timedelta(minutes=15) * dice.randrange(60 * 96),
            "channel": dice.choice(["sms", "whatsapp"]),
            "colleague_id": dice.choice([0, 5]),
            "label_id": dice.choice([0, 0, label.pk]),
            "team_id": dice.choice([0, 0, team.pk]),
        }
        figures.append(QuarterFigures(**of, opened=dice.randrange(9), tokens=dice.randrange(99), cost="0.25"))
        times.append(QuarterTimes(**of, kind="first", bucket=dice.randrange(20), number=dice.randrange(1, 9)))
    QuarterFigures.objects.bulk_create(figures, ignore_conflicts=True)
    QuarterTimes.objects.bulk_create(times, ignore_conflicts=True)
    return shop


def said(found: Report) -> Any:
    """Everything that a report says."""
    parts = [*found.steps.items(), ("total", found.total), ("before", found.before)]
    parts += [
        ((name, key), numbers) for name, split in sorted(found.by.items()) for key, numbers in sorted(split.items())
    ]
    return [(key, numbers.sums, {kind: +each for kind, each in numbers.times.items()}) for key, numbers in parts]


def reports(client: Any, zone: str = "Europe/Madrid") -> list[Any]:
    label, team = Label.objects.get(client=client), Team.objects.get(client=client)
    first, last = date(2026, 3, 20), date(2026, 4, 2)
    asked = [
        (Period(ALL.first, ALL.last, ZoneInfo(zone)), Step.MONTH, None),
        (Period(first, last, ZoneInfo(zone)), Step.DAY, None),
        (Period(first, last, ZoneInfo(zone)), Step.WEEK, Narrowed(label_id=label.pk)),
        (Period(first, last, ZoneInfo(zone)), Step.DAY, Narrowed(channel="sms", colleague_id=5, team_id=team.pk)),
        (Period(date(2026, 3, 29), date(2026, 3, 29), ZoneInfo(zone)), Step.HOUR, None),
        (Period(date(2026, 4, 18), date(2026, 4, 20), ZoneInfo(zone)), Step.DAY, None),
    ]
    return [said(report(client.pk, *each)) for each in asked]


def test_reports_say_the_same_from_days_and_from_quarters(madrid):
    before = reports(madrid)
    days.sum_days(COUNTED)
    assert DaysSummed.objects.get(client=madrid).upto == datetime(2026, 4, 19, 22, 0, tzinfo=UTC)
    assert reports(madrid) == before
    assert before[0] != said(report(madrid.pk, ALL, Step.DAY)), "the comparison would see a difference"


def test_a_report_of_summed_days_reads_no_quarter_of_them(madrid):
    before = said(report(madrid.pk, ALL, Step.DAY))
    days.sum_days(COUNTED)
    upto = DaysSummed.objects.get(client=madrid).upto
    for model in (QuarterFigures, QuarterTimes):
        assert model.objects.filter(client=madrid, quarter__lt=upto).delete()[0] > 300
    assert said(report(madrid.pk, ALL, Step.DAY)) == before


def test_days_of_another_zone_are_made_from_quarters_until_the_sums_are_made_anew(madrid):
    days.sum_days(COUNTED)
    lima = reports(madrid, "America/Lima")
    madrid.time_zone = "America/Lima"
    madrid.save()
    assert reports(madrid, "America/Lima") == lima
    days.sum_days(COUNTED)
    assert DaysSummed.objects.get(client=madrid).zone == "America/Lima"
    assert {each.hour for each in DayFigures.objects.values_list("day", flat=True)} == {5}
    assert reports(madrid, "America/Lima") == lima


def test_a_sum_that_is_interrupted_goes_on_and_reports_are_right_meanwhile(madrid, monkeypatch):
    before, written = reports(madrid), days._write

    def dies(client_id: Any, zone: str, since: datetime, until: datetime) -> None:
        written(client_id, zone, since, until)
        if since.month == 3:
            raise ZeroDivisionError

    monkeypatch.setattr(days, "_write", dies)
    with pytest.raises(ZeroDivisionError):
        days.sum_days(COUNTED)
    assert DaysSummed.objects.get(client=madrid).upto < datetime(2026, 4, 1, tzinfo=UTC)
    assert reports(madrid) == before
    monkeypatch.setattr(days, "_write", written)
    days.sum_days(COUNTED)
    assert DaysSummed.objects.get(client=madrid).upto > datetime(2026, 4, 1, tzinfo=UTC)
    assert reports(madrid) == before


def test_summing_again_changes_nothing_and_another_client_has_its_own(madrid, neighbour):
    QuarterFigures.objects.create(client=neighbour, quarter=FIRST, channel="sms", opened=7)
    days.sum_days(COUNTED)
    before = list(DayFigures.objects.order_by("pk").values()), list(DayTimes.objects.order_by("pk").values())
    days.sum_days(COUNTED)
    assert before == (list(DayFigures.objects.order_by("pk").values()), list(DayTimes.objects.order_by("pk").values()))
    assert DayFigures.objects.get(client=neighbour).day == datetime(2026, 2, 20, tzinfo=UTC), (
        "its days are those of UTC"
    )


@pytest.mark.parametrize("zone", ["America/Santiago", "Asia/Beirut", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_days_that_begin_at_an_hour_that_the_clocks_leave_out(shop, zone):
    """In Santiago and Beirut clocks change at midnight: a day begins at one."""
    shop.time_zone = zone
    shop.save()
    since = datetime(2024, 3, 1, tzinfo=UTC)
    for number in range(96 * 240 // 7):
        at = since + timedelta(minutes=15) * number * 7
        QuarterFigures.objects.create(client=shop, quarter=at, channel="sms", opened=1)
    period = Period(date(2024, 3, 5), date(2024, 10, 20), ZoneInfo(zone))
    before = said(report(shop.pk, period, Step.DAY))
    days.sum_days(datetime(2024, 12, 1, tzinfo=UTC))
    assert said(report(shop.pk, period, Step.DAY)) == before


# --- as figures are kept ----------------------------------------------------------------------------------------------
def test_a_day_is_summed_once_its_quarters_are_counted_for_the_last_time(shop):
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    began = midnight - timedelta(hours=3)
    factories.ConversationFactory(client=shop, started_at=began, last_message_at=began)
    FiguresDone.objects.create(pk=1, upto=midnight - timedelta(hours=4))
    keeping.keep(midnight + timedelta(minutes=50))
    assert not DayFigures.objects.exists(), "the last quarter of the day is counted again"
    keeping.keep(midnight + timedelta(minutes=61))
    assert DayFigures.objects.get().opened == 1


def test_counting_a_summed_day_again_sums_it_again(shop):
    now = timezone.now()
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=5)
    factories.ConversationFactory(client=shop, started_at=noon, last_message_at=noon)
    FiguresDone.objects.create(pk=1, upto=keeping.quarter_of(now))
    days.sum_days(now)
    assert not DayFigures.objects.exists()
    call_command("count_figures", since=(noon - timedelta(days=1)).isoformat(), until=now.isoformat())
    period = Period(noon.date(), noon.date(), ZoneInfo("UTC"))
    assert DayFigures.objects.get().opened == report(shop.pk, period, Step.DAY).total["opened"] == 1
    assert Conversation.objects.count() == 1
