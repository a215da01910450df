"""Reports: the figures of a client over some days of a time zone, by steps of time and by what they are split by.

A report reads rows of figures alone, by their key, whatever the number of conversations. Days that are summed it reads
as such, and quarters of an hour where hours are shown and where days are not summed yet.
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
from conversations.models.figures import COLUMNS
from conversations.services.core.sql import rows
from conversations.services.figures.buckets import percentile

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


# $1 client, $2 label, $3 and $4 the time, $5 channel, $6 assistant, $7 colleague, $8 team, $9 the zone whose days may
# be read, null for none; $10 step, $11 zone.
_NARROWED = """
    ($5::text = '' OR f.channel = $5) AND ($6::uuid IS NULL OR f.assistant_id = $6)
    AND ($7::bigint IS NULL OR f.colleague_id = $7)"""
_SUMMED = "COALESCE((SELECT d.upto FROM days_summed d WHERE d.client_id = $1 AND d.zone = $9::text), '-infinity')"
_SUMS = ", ".join(f"sum({name})" for name in COLUMNS)
_SPLIT = ("step", "channel", "assistant", "colleague")
_COLUMNS = "step, channel, assistant_id, colleague_id"
_GROUPINGS = {0b0111: "step", 0b1011: "channel", 0b1101: "assistant", 0b1110: "colleague"}


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of days and of quarters in which some columns are."""

    days: str
    quarters: str
    columns: tuple[str, ...]

    def of(self, label_id: str, team_id: str) -> str:
        """Return the statement for the rows: days as far as they are summed, quarters from there on."""
        columns = ", ".join(f"f.{name}" for name in (*("channel", "assistant_id", "colleague_id"), *self.columns))
        which = f"f.client_id = $1 AND f.label_id = {label_id} AND f.team_id = {team_id} AND {_NARROWED}"
        return f"""
            SELECT f.day AS began, {columns} FROM {self.days} f
            WHERE {which} AND f.day >= $3 AND f.day < LEAST($4::timestamptz, {_SUMMED})
            UNION ALL SELECT f.quarter, {columns} FROM {self.quarters} f
            WHERE {which} AND f.quarter >= GREATEST($3::timestamptz, {_SUMMED}) AND f.quarter < $4"""

    def in_steps(self) -> str:
        """Return the rows with the step in which each began, as the clocks of the zone show it."""
        return f"SELECT date_trunc($10, f.began AT TIME ZONE $11) AS step, f.* FROM ({self.of('$2', '$8')}) f"

    def of_each(self, sums: str, more: str = "") -> str:
        """Return the statement for the sums of each label and of each team, also grouped by `more`."""
        return f"""
            SELECT 'label', l.id {more}, {sums} FROM desk_labels l CROSS JOIN LATERAL ({self.of("l.id", "$8")}) f
            WHERE l.client_id = $1 AND ($2::bigint = 0 OR l.id = $2) GROUP BY l.id {more}
            UNION ALL
            SELECT 'team', l.id {more}, {sums} FROM desk_teams l CROSS JOIN LATERAL ({self.of("$2", "l.id")}) f
            WHERE l.client_id = $1 AND ($8::bigint = 0 OR l.id = $8) GROUP BY l.id {more}"""


_FIGURE_ROWS = _Rows("day_figures", "quarter_figures", COLUMNS)
_TIME_ROWS = _Rows("day_times", "quarter_times", ("kind", "bucket", "number"))
# Each row is added up once, and only the few sums are split in four ways.
_FIGURES = f"""
    WITH summed AS MATERIALIZED (
        SELECT {_COLUMNS}, {", ".join(f"sum({name}) AS {name}" for name in COLUMNS)}
        FROM ({_FIGURE_ROWS.in_steps()}) f GROUP BY {_COLUMNS})
    SELECT GROUPING({_COLUMNS}), {_COLUMNS}, {_SUMS} FROM summed
    GROUP BY GROUPING SETS ((step), (channel), (assistant_id), (colleague_id))"""
_TIMES = f"""
    WITH summed AS MATERIALIZED (
        SELECT {_COLUMNS}, kind, bucket, sum(number) AS number
        FROM ({_TIME_ROWS.in_steps()}) f GROUP BY {_COLUMNS}, kind, bucket)
    SELECT GROUPING({_COLUMNS}), {_COLUMNS}, kind, bucket, sum(number) FROM summed
    GROUP BY GROUPING SETS (
        (step, kind, bucket), (channel, kind, bucket), (assistant_id, kind, bucket), (colleague_id, kind, bucket))"""
_FIGURES_OF_EACH = _FIGURE_ROWS.of_each(_SUMS)
_TIMES_OF_EACH = _TIME_ROWS.of_each("sum(number)", ", f.kind, f.bucket")
_TOTAL = f"""
    SELECT {_SUMS} FROM ({_FIGURE_ROWS.of("$2", "$8")}) f"""
_TOTAL_TIMES = f"""
    SELECT kind, bucket, sum(number) FROM ({_TIME_ROWS.of("$2", "$8")}) f GROUP BY 1, 2"""


def report(client_id: UUID, period: Period, step: Step, narrowed: Narrowed | None = None) -> Report:
    """Return the report of the client's period, in six statements."""
    narrowed = narrowed or Narrowed()
    zone = None if step == Step.HOUR else period.zone.key
    values = _values(client_id, period, narrowed, zone)
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
    return Report(period, step, steps, total, _total(_values(client_id, before, narrowed, before.zone.key)), by)


def _total(values: tuple[Any, ...]) -> Numbers:
    numbers = Numbers()
    [sums] = rows(_TOTAL, *values)
    numbers.sums.update(_sums(sums))
    for kind, bucket, number in rows(_TOTAL_TIMES, *values):
        numbers.times[kind][bucket] += int(number)
    return numbers


def _values(client_id: UUID, period: Period, narrowed: Narrowed, zone: str | None) -> tuple[Any, ...]:
    more = (narrowed.channel, narrowed.assistant_id, narrowed.colleague_id, narrowed.team_id or 0, zone)
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
