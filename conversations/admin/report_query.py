"""The query of a report: client, first and last day, step, and what it is narrowed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from django.http import Http404, HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from channels_out.kinds import Channel
from conversations.admin import access
from conversations.models import Client
from conversations.services.figures.reading import LONGEST_DAYS, Narrowed, Period, Step

USUAL_DAYS = 30
HOURS_FOR_DAYS = 7  # more would be too many steps
EARLIEST, LATEST = date(2000, 1, 3), date(2199, 12, 31)
NAMES = (gettext_noop("channel"), gettext_noop("assistant"), gettext_noop("colleague"), gettext_noop("label"))


@dataclass(slots=True)
class Asked:
    """The report that the query asks for. `problems` has a sentence for each part of it that was not taken."""

    client: Client
    period: Period
    step: Step
    narrowed: Narrowed
    problems: list[str] = field(default_factory=list)

    def query(self, **others: Any) -> str:
        """Return the query of the same report, with other values for some of it."""
        values = {
            "client": self.client.pk,
            "first": self.period.first,
            "last": self.period.last,
            "step": self.step.value,
            "channel": self.narrowed.channel,
            "assistant": self.narrowed.assistant_id,
            "colleague": self.narrowed.colleague_id,
            "team": self.narrowed.team_id,
            "label": self.narrowed.label_id,
        } | others
        return urlencode({name: str(value) for name, value in values.items() if value not in (None, "")})


def asked_for(request: HttpRequest, clients: list[Client]) -> Asked:
    """Return what the query asks for. Raises Http404 where it names another client than the user's, or none is there.

    Of what makes no sense, the usual value is taken, and a sentence says so.
    """
    query: Mapping[str, str] = request.GET
    client = _client(query.get("client", ""), clients)
    zone = ZoneInfo(client.time_zone)
    problems: list[str] = []
    period = _period(query, zone, problems)
    narrowed = Narrowed(
        channel=_known(query, "channel", {each.value for each in Channel}, problems) or "",
        assistant_id=_id(query, "assistant", UUID, problems),
        colleague_id=_id(query, "colleague", int, problems),
        label_id=_id(query, "label", int, problems),
        team_id=_id(query, "team", int, problems),
    )
    step = _known(query, "step", {each.value for each in Step}, problems)
    return Asked(client, period, _step(step, period, problems), narrowed, problems)


def _client(wanted: str, clients: list[Client]) -> Client:
    found = next((each for each in clients if not wanted or str(each.pk) == wanted), None)
    if found is None:
        raise Http404
    return found


def _period(query: Mapping[str, str], zone: ZoneInfo, problems: list[str]) -> Period:
    today = timezone.now().astimezone(zone).date()
    usual = Period(today - timedelta(days=USUAL_DAYS - 1), today, zone)
    try:
        first = date.fromisoformat(query["first"]) if query.get("first") else None
        last = date.fromisoformat(query["last"]) if query.get("last") else None
    except ValueError:
        problems.append(_("Write days as year-month-day, such as 2026-11-30. The last 30 days are shown."))
        return usual
    if first is None and last is None:
        return usual
    last = last or max(today, first or today)
    first = first or last - timedelta(days=USUAL_DAYS - 1)
    if first > last:
        problems.append(_("The first day must not be after the last. The last 30 days are shown."))
    elif (last - first).days >= LONGEST_DAYS:
        problems.append(_("A report has at most 366 days. The last 30 days are shown."))
    elif not EARLIEST <= first <= last <= LATEST:
        problems.append(_("There are no figures of that time. The last 30 days are shown."))
    else:
        return Period(first, last, zone)
    return usual


def _known(query: Mapping[str, str], name: str, known: set[str], problems: list[str]) -> str | None:
    value = query.get(name, "")
    if not value or value in known:
        return value or None
    problems.append(_("There is no such %(name)s; all are shown.") % {"name": _(name)})
    return None


def _id(query: Mapping[str, str], name: str, kind: Callable[[str], Any], problems: list[str]) -> Any:
    value = query.get(name, "")
    try:
        found = kind(value) if value else None
    except ValueError:
        found = -1
    if isinstance(found, int) and not 0 <= found < 2**63:
        problems.append(_("There is no such %(name)s; all are shown.") % {"name": _(name)})
        return None
    return found


def _step(wanted: str | None, period: Period, problems: list[str]) -> Step:
    """Return the step; the usual one of so many days if none is asked for, or if it makes too many."""
    if wanted == Step.HOUR and period.days > HOURS_FOR_DAYS:
        problems.append(_("Hours are shown for at most 7 days."))
        wanted = None
    if wanted:
        return Step(wanted)
    if period.days <= 1:
        return Step.HOUR
    return Step.DAY if period.days <= 62 else Step.WEEK if period.days <= 190 else Step.MONTH


def usual_periods(asked: Asked) -> list[tuple[str, str, bool]]:
    """Return the usual periods: name, query, and whether it is the one that is shown."""
    today = timezone.now().astimezone(asked.period.zone).date()
    month = today.replace(day=1)
    before = month - timedelta(days=1)
    usual = [
        (_("Today"), today, today),
        (_("7 days"), today - timedelta(days=6), today),
        (_("30 days"), today - timedelta(days=29), today),
        (_("This month"), month, today),
        (_("Last month"), before.replace(day=1), before),
        (_("12 months"), today - timedelta(days=364), today),
    ]
    shown = (asked.period.first, asked.period.last)
    current = next((name for name, *days in usual if tuple(days) == shown), None)
    return [(name, asked.query(first=first, last=last, step=""), name == current) for name, first, last in usual]


def clients_of(request: HttpRequest) -> list[Client]:
    """Return the clients whose figures the user may see, by name."""
    return list(access.clients_of(request.user).order_by("name", "pk"))
