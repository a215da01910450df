"""Business hours: when a client's colleagues are there, and how much of that time lies between two moments.

It is open at a moment if the clock on the wall of the client's zone shows a time within a span of its day. So an hour
that a change of the clock repeats counts twice, and one that it leaves out does not count. Hours without any span are
not set: then it is always open, and holidays change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext

DAY_MINUTES = 1440
HORIZON = timedelta(days=400)  # no opening is looked for later
_STEP = timedelta(hours=6)  # no zone changes its clock twice within
_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\Z", re.ASCII)

Span = tuple[int, int]  # minutes after midnight, 0 to 1440: it begins with the first and ends before the second
Opening = tuple[datetime, datetime]


@dataclass(frozen=True)
class Holiday:
    """A day with hours of its own; without any it is closed."""

    on: date
    name: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Hours:
    """The hours of each weekday, Monday first, in a time zone of the IANA database, and the holidays."""

    zone: str = "UTC"
    week: tuple[tuple[Span, ...], ...] = ((),) * 7
    holidays: tuple[Holiday, ...] = ()

    @cached_property
    def is_set(self) -> bool:
        """Return whether any weekday has hours."""
        return any(self.week)

    @cached_property
    def _on_holidays(self) -> Mapping[date, tuple[Span, ...]]:
        return {each.on: each.spans for each in self.holidays}

    def spans_on(self, day: date) -> tuple[Span, ...]:
        """Return the spans of the day."""
        found = self._on_holidays.get(day)
        return self.week[day.weekday()] if found is None else found


def from_json(zone: str, week: Sequence[Any], holidays: Sequence[Mapping[str, Any]]) -> Hours:
    """Return the hours from what is stored (models/hours.py)."""
    return Hours(
        zone,
        tuple(_spans(each) for each in week),
        tuple(Holiday(date.fromisoformat(each["on"]), each["name"], _spans(each["hours"])) for each in holidays),
    )


def _spans(stored: Sequence[Sequence[int]]) -> tuple[Span, ...]:
    return tuple((begin, end) for begin, end in stored)


# --- the clock's own notation -----------------------------------------------------------------------------------------
def minutes_of(text: str) -> int | None:
    """Return the minutes after midnight of a time like 9, 9:30 or 24:00; None if the text is none."""
    found = _CLOCK.match(text.strip())
    minutes = int(found[1]) * 60 + int(found[2] or 0) if found else None
    return minutes if minutes is not None and minutes <= DAY_MINUTES else None


def clock(minutes: int) -> str:
    """Return the time like 9:30; 24:00 for the end of the day."""
    return f"{minutes // 60}:{minutes % 60:02}"


def in_words(spans: Sequence[Span]) -> str:
    """Return the spans like "9:00-13:00, 14:00-18:00"; '' for none."""
    return ", ".join(f"{clock(begin)}-{clock(end)}" for begin, end in spans)


def problem(spans: Sequence[Span]) -> str:
    """Return the sentence that says why these cannot be the hours of one day, in their order; '' if they can."""
    for begin, end in spans:
        if end <= begin:
            return gettext(
                "%(span)s ends before it begins. For a night, let it end at 24:00 and begin the next day at 0:00."
            ) % {"span": in_words([(begin, end)])}
    for one, other in pairwise(spans):
        if other[0] < one[1]:
            return gettext("%(one)s and %(other)s overlap.") % {"one": in_words([one]), "other": in_words([other])}
    return ""


# --- asking -----------------------------------------------------------------------------------------------------------
def is_open(hours: Hours, at: datetime) -> bool:
    """Return whether it is open at the moment."""
    if not hours.is_set:
        return True
    shown = at.astimezone(_zone(hours.zone)).replace(tzinfo=None)
    since_midnight = shown - datetime.combine(shown.date(), datetime.min.time())
    return any(
        timedelta(minutes=begin) <= since_midnight < timedelta(minutes=end)
        for begin, end in hours.spans_on(shown.date())
    )


def next_opening(hours: Hours, at: datetime) -> datetime | None:
    """Return the moment itself where it is open, else the next opening's; None if there is none within HORIZON."""
    if not hours.is_set:
        return at
    found = next(openings(hours, at), None)
    return found[0] if found else None


def business_seconds(hours: Hours, begin: datetime, end: datetime) -> float:
    """Return how many seconds between the two moments it is open; 0 where the second is not the later."""
    if end <= begin:
        return 0.0
    if not hours.is_set:
        return (end - begin).total_seconds()
    total = timedelta()
    for opens, closes in openings(hours, begin, until=end):
        total += min(closes, end) - opens
    return total.total_seconds()


def after_business_time(hours: Hours, begin: datetime, span: timedelta) -> datetime | None:
    """Return the moment at which it has been open for the span since `begin`; None if that is beyond HORIZON."""
    if not hours.is_set:
        return begin + span
    left = span
    for opens, closes in openings(hours, begin):
        if left <= closes - opens:
            return opens + left
        left -= closes - opens
    return None


def openings(hours: Hours, since: datetime, until: datetime | None = None) -> Iterator[Opening]:
    """Yield when it opens and closes, in UTC and in their order, from `since` on: where it is open then, from then.

    until: nothing that begins then or later is yielded; None for HORIZON after `since`
    """
    since = since.astimezone(UTC)
    until = until.astimezone(UTC) if until else since + HORIZON
    pending: Opening | None = None
    for opens, closes in _openings(hours, since, until):
        if pending and opens <= pending[1]:  # over midnight, or over a change of the clock
            pending = pending[0], closes
            continue
        if pending:
            yield pending
        pending = opens, closes
    if pending:
        yield pending


def _openings(hours: Hours, since: datetime, until: datetime) -> Iterator[Opening]:
    for begin, end, offset in _pieces(hours.zone, since, until):
        shown, last = (begin + offset).replace(tzinfo=None), (end + offset).replace(tzinfo=None)
        day = shown.date()
        while (midnight := datetime.combine(day, datetime.min.time())) < last:
            for opens, closes in hours.spans_on(day):
                from_, to = midnight + timedelta(minutes=opens), midnight + timedelta(minutes=closes)
                if max(from_, shown) < min(to, last):
                    yield tuple(each.replace(tzinfo=UTC) - offset for each in (max(from_, shown), min(to, last)))  # type: ignore[misc]
            day += timedelta(days=1)


def _pieces(zone: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Yield pieces of the time in which the zone's distance to UTC is the same, with that distance."""
    begin, at = since, since
    while at < until:
        to = min(at + _STEP, until)
        offset = _offset(zone, at)
        if _offset(zone, to) != offset:
            to = _changes_at(zone, at, to)
            yield begin, to, offset
            begin = to
        at = to
    if begin < until:
        yield begin, until, _offset(zone, begin)


def _changes_at(zone: str, before: datetime, after: datetime) -> datetime:
    """Return the first second at which the distance is another one than `before`."""
    offset = _offset(zone, before)
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle <= before:
            break
        before, after = (middle, after) if _offset(zone, middle) == offset else (before, middle)
    return after.replace(microsecond=0)


def _offset(zone: str, at: datetime) -> timedelta:
    return at.astimezone(_zone(zone)).utcoffset() or timedelta()


@lru_cache(maxsize=700)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


# --- the same in SQL --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Scale:
    """Openings as numbers, for SQL: seconds since 1970 at which it opens and closes, and the business seconds until
    each opening. Before the first of them all time counts."""

    opens: tuple[float, ...]
    closes: tuple[float, ...]
    passed: tuple[float, ...]

    @property
    def shift(self) -> tuple[float, ...]:
        """Return what makes of a moment in each opening the business seconds until it."""
        return tuple(passed - opens for passed, opens in zip(self.passed, self.opens, strict=True))


ALWAYS = Scale((0.0,), (1e12,), (0.0,))


@lru_cache(maxsize=2_000)
def scale(hours: Hours, since: datetime, until: datetime) -> Scale:
    """Return the openings between the two moments as a scale; ALWAYS where hours are not set."""
    if not hours.is_set:
        return ALWAYS
    first = since.timestamp()  # an empty opening: from here on the time that it is closed does not count
    found = [(first, first), *((o.timestamp(), c.timestamp()) for o, c in openings(hours, since, until))]
    passed, total = [], 0.0
    for opens, closes in found:
        passed.append(total)
        total += closes - opens
    return Scale(tuple(o for o, _ in found), tuple(c for _, c in found), tuple(passed))


def soonest_due_sql(promised: Sequence[tuple[str, str]], o: str) -> str:
    """Return the SQL of a sub-select with one row of one column: the soonest of the `after_business_time`, or NULL.

    promised: pairs of the SQL of a time and of an interval, each of which may be NULL
    o: the name of a row with the float8[] columns opens, closes, passed and shift, as in `Scale`
    """
    times = ", ".join(f"extract(epoch FROM {since})::float8 AS since{n}" for n, (since, _) in enumerate(promised))
    dues = ", ".join(_due_sql(f"v.since{n}", span, o) for n, (_, span) in enumerate(promised))
    return f"SELECT to_timestamp(LEAST({dues})) FROM (SELECT {times} OFFSET 0) v"  # OFFSET 0: each time is found once


def _due_sql(since: str, span: str, o: str) -> str:
    """Return the SQL of `after_business_time`, in seconds. It repeats itself: a step of its own would cost more."""
    place = f"GREATEST(width_bucket({since}, {o}.opens), 1)"
    needed = f"({o}.shift[{place}] + LEAST({since}, {o}.closes[{place}]) + extract(epoch FROM {span})::float8)"
    # What is reached exactly at a closing is due then, and not with the next opening.
    reached = f"GREATEST(width_bucket({needed} - 0.0005, {o}.passed), 1)"
    return f"CASE WHEN {since} IS NOT NULL THEN {needed} - {o}.shift[{reached}] END"
