"""Sums by day, from which reports of many days are made: a day has one row where its 96 quarters have up to 96.

Days are those of the client's time zone, as reports show them. They are summed once their quarters are counted for the
last time, and again when `count_figures` counts one of them. When the zone changes they are made anew; until that is
done, reports read quarters.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction

from conversations.models import DayFigures, DaysSummed, DayTimes, QuarterFigures
from conversations.models.figures import COLUMNS
from conversations.services.core.cluster import of_each
from conversations.services.core.sql import rows

AT_ONCE = timedelta(days=31)  # summed in one transaction
_NOTHING_SUMMED = {"zone": "", "upto": datetime(2000, 1, 1, tzinfo=UTC)}
_OF = "client_id, label_id, team_id, channel, assistant_id, colleague_id"


def _sum(of_days: str, of_quarters: str, columns: tuple[str, ...], more: str = "") -> str:
    """Return the statement that sums quarters from $2 to $3 by day of the time zone $4."""
    return f"""
        INSERT INTO {of_days} ({_OF} {more}, day, {", ".join(columns)})
        SELECT {_OF} {more}, date_trunc('day', quarter, $4) AS day, {", ".join(f"sum({each})" for each in columns)}
        FROM {of_quarters} WHERE client_id = $1 AND quarter >= $2 AND quarter < $3
        GROUP BY {_OF} {more}, day RETURNING client_id"""


_SUMS = _sum("day_figures", "quarter_figures", COLUMNS)
_TIMES = _sum("day_times", "quarter_times", ("number",), ", kind, bucket")


def sum_days(counted: datetime) -> None:
    """Sum the days that ended by `counted`, up to which quarters are not counted again, of every client.

    In a cluster, clients whose server is away are left out.
    """
    clients = rows("SELECT id, time_zone FROM clients ORDER BY id")
    for _ in of_each(clients, lambda client_id, zone: sum_days_of(client_id, zone, counted)):
        pass


def sum_days_of(client_id: UUID, zone: str, counted: datetime) -> None:
    """Sum the client's days of the time zone that ended by `counted` and are not summed yet."""
    upto = beginning_of_day(counted, ZoneInfo(zone))
    while not _is_summed(client_id, zone, upto):
        with transaction.atomic():
            done = _locked(client_id)
            if done.zone != zone:
                _begin_anew(done, zone, upto)
            until = min(beginning_of_day(done.upto + AT_ONCE, ZoneInfo(zone)), upto)
            _write(client_id, zone, done.upto, until)
            done.upto = until
            done.save()


def sum_again(client_id: UUID, since: datetime, until: datetime) -> None:
    """Sum those days again, of the days that are summed, of which a quarter from `since` to `until` was counted again.

    Call it in the transaction that counts.
    """
    done = DaysSummed.objects.select_for_update().filter(client=client_id).first()
    if done is None or since >= done.upto:
        return
    zone = ZoneInfo(done.zone)
    last = beginning_of_day(until - timedelta(microseconds=1), zone)
    _write(client_id, done.zone, beginning_of_day(since, zone), min(_day_after(last, zone), done.upto))


def beginning_of_day(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant at which the day begins, in the time zone, in which `at` is."""
    return datetime.combine(at.astimezone(zone).date(), time(), zone)


def _day_after(day: datetime, zone: ZoneInfo) -> datetime:
    return datetime.combine(day.astimezone(zone).date() + timedelta(days=1), time(), zone)


def _is_summed(client_id: UUID, zone: str, upto: datetime) -> bool:
    return DaysSummed.objects.filter(client=client_id, zone=zone, upto__gte=upto).exists()


def _locked(client_id: UUID) -> DaysSummed:
    DaysSummed.objects.get_or_create(client_id=client_id, defaults=_NOTHING_SUMMED)
    return DaysSummed.objects.select_for_update().get(client=client_id)


def _begin_anew(done: DaysSummed, zone: str, upto: datetime) -> None:
    """Delete what is summed by other days, and begin with the day of the client's first quarter."""
    for model in (DayFigures, DayTimes):
        model.objects.filter(client=done.client_id).delete()
    quarters = QuarterFigures.objects.filter(client=done.client_id, label_id=0, team_id=0)
    first = quarters.order_by("quarter").values_list("quarter", flat=True).first()
    done.zone, done.upto = zone, min(beginning_of_day(first or upto, ZoneInfo(zone)), upto)


def _write(client_id: UUID, zone: str, since: datetime, until: datetime) -> None:
    """Write the sums of the days from `since` to `until` in place of those that are there."""
    for model, statement in ((DayFigures, _SUMS), (DayTimes, _TIMES)):
        model.objects.filter(client=client_id, day__gte=since, day__lt=until).delete()
        rows(statement, client_id, since, until, zone)
