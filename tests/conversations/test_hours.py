"""Business hours as pure functions, held against a clock that looks at every minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversations.services.core import hours as h
from conversations.services.core.hours import Holiday, Hours
from conversations.services.core.sql import rows

MINUTE = timedelta(minutes=1)
DAY = [(540, 1080)]
OFFICE = Hours("Europe/Madrid", ((tuple(DAY),) * 5) + ((), ()))
# Each has a change of its clock on some of these days: at 2:00, at midnight, by half an hour, and a day left out.
CHANGES = [
    ("Europe/Madrid", datetime(2026, 3, 28, 12, tzinfo=UTC)),
    ("Europe/Madrid", datetime(2026, 10, 24, 12, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 7, 12, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 10, 31, 12, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 10, 31, 12, tzinfo=UTC)),
    ("America/Asuncion", datetime(2023, 9, 30, 12, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 0, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 29, 0, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 6, 1, 0, tzinfo=UTC)),
]


@st.composite
def spans(draw: st.DrawFn) -> tuple[h.Span, ...]:
    """Spans of one day, which neither overlap nor are empty; some reach 24:00."""
    cuts = sorted(draw(st.sets(st.integers(0, 1440), max_size=6)))
    return tuple(zip(cuts[::2], cuts[1::2], strict=False))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Hours, datetime]:
    zone, near = draw(st.sampled_from(CHANGES))
    week = tuple(draw(st.lists(spans(), min_size=7, max_size=7)))
    on = near.date() + timedelta(days=draw(st.integers(0, 2)))
    holidays = (Holiday(on, "Feast", draw(spans())),) if draw(st.booleans()) else ()
    begin = near + timedelta(minutes=draw(st.integers(0, 1800)))
    return Hours(zone, week, holidays), begin


def shown(hours: Hours, at: datetime) -> bool:
    """The oracle: what the clock on the wall shows in this minute lies in a span of its day."""
    if not any(hours.week):
        return True
    wall = at.astimezone(ZoneInfo(hours.zone))
    of_day = next((each.spans for each in hours.holidays if each.on == wall.date()), hours.week[wall.weekday()])
    return any(begin <= wall.hour * 60 + wall.minute < end for begin, end in of_day)


@settings(max_examples=150, deadline=None)
@given(case=cases(), length=st.integers(0, 2200))
def test_what_is_computed_is_what_a_look_at_every_minute_finds(case: tuple[Hours, datetime], length: int) -> None:
    hours, begin = case
    minutes = [begin + MINUTE * n for n in range(length)]
    looked = [shown(hours, each) for each in minutes]
    assert [h.is_open(hours, each) for each in minutes[:200]] == looked[:200]
    assert h.business_seconds(hours, begin, begin + MINUTE * length) == 60 * sum(looked)
    first = next((at for at, is_open in zip(minutes, looked, strict=True) if is_open), None)
    if first:
        assert h.next_opening(hours, begin) == first
        wanted = sum(looked)
        reached = h.after_business_time(hours, begin, MINUTE * wanted)
        last = max(at for at, is_open in zip(minutes, looked, strict=True) if is_open)
        assert reached == last + MINUTE
        assert h.business_seconds(hours, begin, reached) == 60 * wanted


@settings(max_examples=60, deadline=None)
@given(case=cases(), seconds=st.floats(0, 200_000), later=st.floats(0, 200_000), span=st.integers(1, 400_000))
def test_time_adds_up_and_never_runs_backwards(
    case: tuple[Hours, datetime], seconds: float, later: float, span: int
) -> None:
    hours, begin = case
    middle, end = begin + timedelta(seconds=seconds), begin + timedelta(seconds=seconds + later)
    whole = h.business_seconds(hours, begin, end)
    parts = h.business_seconds(hours, begin, middle) + h.business_seconds(hours, middle, end)
    assert whole == pytest.approx(parts, abs=1e-3)
    assert 0 <= whole <= (end - begin).total_seconds() + 1e-3
    dues = [h.after_business_time(hours, each, timedelta(seconds=span)) for each in (begin, end)]
    if all(dues):
        assert dues[0] <= dues[1]  # type: ignore[operator]


@pytest.mark.django_db
@settings(max_examples=40, deadline=None)
@given(
    case=cases(), starts=st.lists(st.integers(-3000, 200_000), min_size=1, max_size=8), span=st.integers(60, 300_000)
)
def test_sql_finds_the_same_moments(case: tuple[Hours, datetime], starts: list[int], span: int) -> None:
    hours, begin = case
    made = h.scale(hours, begin, begin + timedelta(days=60))
    moments = [begin + timedelta(seconds=each) for each in starts if each >= 0]
    promised = [("m.at", "$5::interval * 2"), ("m.at", "$5::interval"), ("m.at", "NULL::interval")]
    found = rows(
        f"""
        SELECT ({h.soonest_due_sql(promised, "o")})
        FROM unnest($1::timestamptz[]) WITH ORDINALITY AS m(at, n),
             (
                SELECT $2::float8[] AS opens, $3::float8[] AS closes,
                    $4::float8[] AS passed, $6::float8[] AS shift) o ORDER BY m.n""",
        *(moments, list(made.opens), list(made.closes), list(made.passed), timedelta(seconds=span), list(made.shift)),
    )
    for (due,), start in zip(found, moments, strict=True):
        expected = h.after_business_time(hours, start, timedelta(seconds=span))
        if expected and expected < begin + timedelta(days=60):
            assert due.timestamp() == pytest.approx(expected.timestamp(), abs=0.01)


def test_the_hours_of_an_office_over_a_weekend_and_a_holiday() -> None:
    friday = datetime(2026, 11, 27, 17, 30, tzinfo=ZoneInfo("Europe/Madrid"))
    monday = datetime(2026, 11, 30, 9, 0, tzinfo=ZoneInfo("Europe/Madrid"))
    assert h.is_open(OFFICE, friday)
    assert not h.is_open(OFFICE, friday + timedelta(minutes=30))
    assert h.next_opening(OFFICE, friday + timedelta(hours=1)) == monday
    assert h.next_opening(OFFICE, friday) == friday
    assert h.after_business_time(OFFICE, friday, timedelta(minutes=30)) == friday + timedelta(minutes=30)
    assert h.after_business_time(OFFICE, friday, timedelta(hours=1)) == monday + timedelta(minutes=30)
    closed = Hours(OFFICE.zone, OFFICE.week, (Holiday(date(2026, 11, 30), "Saint Andrew"),))
    assert h.next_opening(closed, friday + timedelta(hours=1)) == monday + timedelta(days=1)
    short = Hours(OFFICE.zone, OFFICE.week, (Holiday(date(2026, 11, 30), "Saint Andrew", ((600, 660),)),))
    assert h.business_seconds(short, monday, monday + timedelta(days=1)) == 3600


def test_a_night_goes_over_midnight_and_a_day_may_end_at_24() -> None:
    night = Hours("America/Bogota", (((1320, 1440),), ((0, 360),), (), (), (), (), ()))
    monday = datetime(2026, 11, 30, 22, 0, tzinfo=ZoneInfo("America/Bogota"))
    [found] = list(h.openings(night, monday - timedelta(hours=1), monday + timedelta(days=3)))
    assert found == (monday.astimezone(UTC), (monday + timedelta(hours=8)).astimezone(UTC))
    assert h.is_open(night, monday + timedelta(hours=2))


def test_without_hours_it_is_always_open_and_without_an_opening_there_is_no_next() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    assert h.is_open(Hours(), at)
    assert h.next_opening(Hours(), at) == at
    assert h.business_seconds(Hours(), at, at + timedelta(days=2)) == 172_800
    assert h.business_seconds(OFFICE, at, at - timedelta(days=2)) == 0
    feasts = tuple(Holiday(date(2026, 1, 1) + timedelta(days=n), "Feast") for n in range(1000))
    never = Hours("UTC", OFFICE.week, feasts)
    assert h.next_opening(never, at) is None
    assert h.after_business_time(never, at, MINUTE) is None


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("9", 540),
        (" 9:30 ", 570),
        ("00:00", 0),
        ("24:00", 1440),
        ("24:01", None),
        ("9:60", None),
        ("x", None),
        ("", None),
    ],
)
def test_times_are_read_as_people_write_them(text: str, minutes: int | None) -> None:
    assert h.minutes_of(text) == minutes


def test_spans_that_overlap_or_end_before_they_begin_are_named() -> None:
    assert h.problem([(540, 780), (780, 1080)]) == ""
    assert h.problem([(540, 800), (780, 1080)]) == "9:00-13:20 and 13:00-18:00 overlap."
    assert h.problem([(1320, 360)]).startswith("22:00-6:00 ends before it begins.")
    assert h.problem([(540, 540)]).startswith("9:00-9:00 ends before it begins.")
