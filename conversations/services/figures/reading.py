"""Reports: the figures of a client over some days of a time zone, by steps of time and by what they are split by.

A report reads rows of figures alone, by their key, whatever the number of conversations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from conversations.models import QuarterTimes
from conversations.services.core.sql import rows
from conversations.services.figures.buckets import percentile
from conversations.services.figures.counting import COLUMNS

LONGEST_DAYS = 366
HALF, MOST = 0.5, 0.9


class Step(StrEnum):
    """The steps of a report, in the time zone. A week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days of a time zone, from `first` to `last`."""

    first: date
    last: date
    zone: ZoneInfo

    @property
    def days(self) -> int:
        """Return the number of days."""
        return (self.last - self.first).days + 1

    @property
    def since(self) -> datetime:
        """Return the instant at which the first day begins."""
        return datetime.combine(self.first, time(), self.zone)

    @property
    def until(self) -> datetime:
        """Return the instant at which the day after the last begins."""
        return datetime.combine(self.last + timedelta(days=1), time(), self.zone)

    def before(self) -> Period:
        """Return as many days just before."""
        return Period(self.first - timedelta(days=self.days), self.first - timedelta(days=1), self.zone)

    def steps(self, step: Step) -> Iterator[datetime]:
        """Return the beginning of each step that the days touch, as the clocks of the zone show it."""
        at = datetime.combine(_beginning(self.first, step), time())
        end = datetime.combine(self.last + timedelta(days=1), time())
        while at < end:
            yield at
            at = _next(at, step)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What a report is narrowed to; None and '' for all."""

    channel: str = ""
    assistant_id: UUID | None = None
    colleague_id: int | None = None
    label_id: int | None = None
    team_id: int | None = None


@dataclass(slots=True)
class Numbers:
    """Figures of some time. services/figures/counting.py says what each is."""

    sums: dict[str, Any] = field(default_factory=lambda: {**dict.fromkeys(COLUMNS, 0), "cost": Decimal(0)})
    times: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in QuarterTimes.Kind})

    def __getitem__(self, name: str) -> Any:
        return self.sums[name]

    def add(self, other: Numbers) -> None:
        """Add the other figures to these."""
        for name in COLUMNS:
            self.sums[name] += other.sums[name]
        for kind, buckets in other.times.items():
            self.times[kind].update(buckets)

    def time(self, kind: str, share: float = HALF) -> float | None:
        """Return the seconds that this share of the times of a kind does not exceed; None without any."""
        return percentile(self.times[kind], share)

    def share(self, part: str, whole: str) -> float | None:
        """Return one figure in per cent of another; None where that is 0."""
        return 100 * float(self.sums[part]) / self.sums[whole] if self.sums[whole] else None


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a period: by steps, in total, of the period before, and by what they are split by.

    `by` has "channel", "assistant", "colleague", "team" and "label", each with the figures by its key. The key is
    the channel, or an id; a colleague 0 stands for nobody of the staff.
    """

    period: Period
    step: Step
    steps: dict[datetime, Numbers]
    total: Numbers
    before: Numbers
    by: dict[str, dict[Any, Numbers]]


# $1 client, $2 label, $3 and $4 the time, $5 channel, $6 assistant, $7 colleague, $8 team; $9 step and $10 zone.
_NARROWED = """
    ($5::text = '' OR f.channel = $5) AND ($6::uuid IS NULL OR f.assistant_id = $6)
    AND ($7::bigint IS NULL OR f.colleague_id = $7)"""
_IN_TIME = f"f.quarter >= $3 AND f.quarter < $4 AND {_NARROWED}"
_ROWS = f"f.client_id = $1 AND f.label_id = $2 AND f.team_id = $8 AND {_IN_TIME}"
_SUMS = ", ".join(f"sum({name})" for name in COLUMNS)
_SPLIT = ("step", "channel", "assistant", "colleague")
_COLUMNS = "step, channel, assistant_id, colleague_id"
_GROUPINGS = {0b0111: "step", 0b1011: "channel", 0b1101: "assistant", 0b1110: "colleague"}


def _of(table: str) -> str:
    return f"""
        SELECT date_trunc($9, f.quarter AT TIME ZONE $10) AS step, f.* FROM {table} f
        WHERE {_ROWS}"""


def _of_each(sums: str, table: str, more: str = "") -> str:
    """Return the statement for the sums of each label and of each team. `more`: what they are grouped by besides."""
    return f"""
        SELECT 'label', l.id {more}, {sums} FROM desk_labels l
        JOIN {table} f ON f.client_id = $1 AND f.label_id = l.id AND f.team_id = $8
        WHERE l.client_id = $1 AND ($2::bigint = 0 OR l.id = $2) AND {_IN_TIME} GROUP BY l.id {more}
        UNION ALL
        SELECT 'team', l.id {more}, {sums} FROM desk_teams l
        JOIN {table} f ON f.client_id = $1 AND f.label_id = $2 AND f.team_id = l.id
        WHERE l.client_id = $1 AND ($8::bigint = 0 OR l.id = $8) AND {_IN_TIME} GROUP BY l.id {more}"""


# Each row is added up once, and only the few sums are split in four ways.
_FIGURES = f"""
    WITH summed AS MATERIALIZED (
        SELECT {_COLUMNS}, {", ".join(f"sum({name}) AS {name}" for name in COLUMNS)}
        FROM ({_of("quarter_figures")}) f GROUP BY {_COLUMNS})
    SELECT GROUPING({_COLUMNS}), {_COLUMNS}, {_SUMS} FROM summed
    GROUP BY GROUPING SETS ((step), (channel), (assistant_id), (colleague_id))"""
_TIMES = f"""
    WITH summed AS MATERIALIZED (
        SELECT {_COLUMNS}, kind, bucket, sum(number) AS number
        FROM ({_of("quarter_times")}) f GROUP BY {_COLUMNS}, kind, bucket)
    SELECT GROUPING({_COLUMNS}), {_COLUMNS}, kind, bucket, sum(number) FROM summed
    GROUP BY GROUPING SETS (
        (step, kind, bucket), (channel, kind, bucket), (assistant_id, kind, bucket), (colleague_id, kind, bucket))"""
_FIGURES_OF_EACH = _of_each(_SUMS, "quarter_figures")
_TIMES_OF_EACH = _of_each("sum(number)", "quarter_times", ", f.kind, f.bucket")
_TOTAL = f"""
    SELECT {_SUMS} FROM quarter_figures f WHERE {_ROWS}"""
_TOTAL_TIMES = f"""
    SELECT kind, bucket, sum(number) FROM quarter_times f WHERE {_ROWS} GROUP BY 1, 2"""


def report(client_id: UUID, period: Period, step: Step, narrowed: Narrowed | None = None) -> Report:
    """Return the report of the client's period, in six statements."""
    narrowed = narrowed or Narrowed()
    values = _values(client_id, period, narrowed)
    in_steps = (*values, step.value, period.zone.key)
    by: dict[str, dict[Any, Numbers]] = {name: {} for name in (*_SPLIT, "team", "label")}
    for grouping, *keys, sums in ((found[0], *found[1:5], found[5:]) for found in rows(_FIGURES, *in_steps)):
        name = _GROUPINGS[grouping]
        _numbers(by[name], keys[_SPLIT.index(name)]).sums.update(_sums(sums))
    for grouping, *keys, kind, bucket, number in rows(_TIMES, *in_steps):
        name = _GROUPINGS[grouping]
        _numbers(by[name], keys[_SPLIT.index(name)]).times[kind][bucket] += int(number)
    for name, key, *sums in rows(_FIGURES_OF_EACH, *values):
        _numbers(by[name], key).sums.update(_sums(sums))
    for name, key, kind, bucket, number in rows(_TIMES_OF_EACH, *values):
        _numbers(by[name], key).times[kind][bucket] += int(number)
    found = by.pop("step")
    steps = {at: found.get(at, Numbers()) for at in period.steps(step)}
    total = Numbers()
    for each in steps.values():
        total.add(each)
    before = period.before()
    return Report(period, step, steps, total, _total(client_id, before, narrowed), by)


def _total(client_id: UUID, period: Period, narrowed: Narrowed) -> Numbers:
    values = _values(client_id, period, narrowed)
    numbers = Numbers()
    [sums] = rows(_TOTAL, *values)
    numbers.sums.update(_sums(sums))
    for kind, bucket, number in rows(_TOTAL_TIMES, *values):
        numbers.times[kind][bucket] += int(number)
    return numbers


def _values(client_id: UUID, period: Period, narrowed: Narrowed) -> tuple[Any, ...]:
    more = (narrowed.channel, narrowed.assistant_id, narrowed.colleague_id, narrowed.team_id or 0)
    return (client_id, narrowed.label_id or 0, period.since, period.until, *more)


def _numbers(found: dict[Any, Numbers], key: Any) -> Numbers:
    return found.setdefault(key, Numbers())


def _sums(values: Any) -> dict[str, Any]:
    named = zip(COLUMNS, values, strict=True)
    return {name: Decimal(value or 0) if name == "cost" else int(value or 0) for name, value in named}


def _beginning(day: date, step: Step) -> date:
    if step == Step.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if step == Step.MONTH else day


def _next(at: datetime, step: Step) -> datetime:
    if step == Step.MONTH:
        return (at.replace(day=1) + timedelta(days=32)).replace(day=1)
    return at + {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1), Step.WEEK: timedelta(days=7)}[step]
