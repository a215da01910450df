"""The dashboard: what waits, what failed, and the activity of the day. Each number links to the list of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext, pgettext

from conversations import queue
from conversations.admin import access
from conversations.admin.channel_names import name_of
from conversations.admin.conversation_list import DUE_SUMMARIES
from conversations.admin.navigation import WAITING, address_of
from conversations.models import (
    ChannelAccount,
    Chunk,
    Conversation,
    EventEndpoint,
    InboundEvent,
    Message,
    Status,
    ToolCall,
    Turn,
)
from conversations.services.jobs import backlog, metrics, overdue
from conversations.services.jobs.backlog import Waiting
from conversations.services.jobs.metrics import ClientIds, DayMetrics, OpenSessions, WorkQueue
from conversations.services.tenants import day_quotas, model_endings
from conversations.words import lazy as _

# The kinds of the backlog: their names, and how long the first may wait before the number is red.
NAMES = {
    "replies": (_("Due replies"), timedelta(minutes=1)),
    "sends": (_("Unsent messages"), timedelta(minutes=1)),
    "summaries": (_("Summaries"), timedelta(minutes=15)),
    "remembering": (_("To be remembered"), timedelta(minutes=15)),
    "archiving": (_("To be archived"), timedelta(hours=3)),
    "events": (_("Events to process"), timedelta(minutes=15)),
}

admin.site.index_template = "admin/dashboard/dashboard.html"


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its name, a link to the rows it counts, and a remark. alarming: it is shown in red."""

    name: str
    value: str
    link: str
    more: str = ""
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart. percent: its length relative to the longest. link: the list of the rows it counts."""

    name: str
    value: int
    percent: int
    link: str


def add_numbers(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the template context of the dashboard with the numbers of the user's clients."""
    user: Any = request.user
    if not access.can_somewhere(user, access.Role.VIEWER):
        return {**context, "title": gettext("Dashboard")}
    client_ids = None if user.is_superuser else access.client_ids_of(user)
    now = timezone.now()
    conversations, day = metrics.open_sessions(client_ids), metrics.last_day(client_ids, now)
    return {
        **context,
        "title": gettext("Dashboard"),
        "missing": _missing(now),
        "endings": model_endings.endings(client_ids, now.date()),
        "quotas": day_quotas.warnings(client_ids, now),
        "waiting": _waiting(client_ids, now),
        "failures": _failures(client_ids, now),
        "times": _times(day),
        "open": _open(conversations),
        "channels": _channels(conversations),
        "hours": _hours(day),
        "said": sum(hour.messages for hour in day.hours),
        "answered": sum(hour.replies for hour in day.hours),
    }


def _missing(now: datetime) -> list[str]:
    """Return a sentence for each process that does not seem to run."""
    found = [overdue.oldest_overdue().late]
    if since := queue.late_since(now):
        found.append(
            gettext(
                "The scheduled tasks have not run since %(since)s. Conversations do not expire, and nothing is"
                " remembered or summarised. Start the queue: manage.py qcluster."
            )
            % {"since": f"{timezone.localtime(since):%Y-%m-%d %H:%M}"}
        )
    return [sentence for sentence in found if sentence]


def link(model: type[Model], **wanted: Any) -> str:
    """Return the address of the table's list with these filters."""
    return f"{address_of(model)}?{urlencode(wanted)}"


def _waiting(client_ids: ClientIds, now: datetime) -> list[Number]:
    staff, found = metrics.waiting_for_staff(client_ids), backlog.backlog(client_ids, now).total
    lists = _lists(now.isoformat())
    return [
        _queue(gettext("For a person"), staff, now, link(Conversation, **WAITING), timedelta()),
        *(_queue(name, found[kind], now, lists[kind], patience) for kind, (name, patience) in NAMES.items()),
    ]


def _lists(now: str) -> dict[str, str]:
    """Return the address of the list of what waits, by kind. That of archiving also has what is not due yet."""
    return {
        "replies": link(Conversation, reply_owed__exact=1, taken_over_at__isnull=True, reply_due_at__lte=now),
        "sends": link(Message, status__exact="queued", due_at__lte=now),
        "summaries": link(Conversation, **{DUE_SUMMARIES: now}),
        "remembering": link(Conversation, remember_due_at__lte=now),
        "archiving": link(Conversation, remembered_at__isnull=False, archived_at__isnull=True),
        "events": link(InboundEvent, reason__exact="processing_failed", settled_at__isnull=True),
    }


def _queue(name: str, queue: WorkQueue | Waiting, now: datetime, address: str, patience: timedelta) -> Number:
    if not queue.since:
        return Number(name, "0", address, gettext("nothing waits"))
    waits = gettext("the first for %(time)s") % {"time": timesince(queue.since, now, depth=1)}
    more = "+" if isinstance(queue, Waiting) and queue.more else ""
    return Number(name, f"{queue.count:,}{more}", address, waits, alarming=now - queue.since > patience)


def _failures(client_ids: ClientIds, now: datetime) -> list[Number]:
    since = (now - timedelta(hours=metrics.HOURS)).isoformat()
    messages, replies = metrics.failed_messages(client_ids, now), metrics.failed_replies(client_ids, now)
    calls = metrics.unclear_tool_calls(client_ids)
    unclear = metrics.unclear_messages(client_ids)
    broken, noted = metrics.broken_and_noted_accounts(client_ids, now - timedelta(hours=metrics.HOURS))
    unreached = metrics.unreached_accounts(client_ids)
    found = [
        (
            gettext("Messages"),
            messages.count,
            link(Message, status__exact="failed", failed_at__gte=since),
            gettext("not sent, 24 hours"),
        ),
        (
            gettext("Replies"),
            replies.count,
            link(Turn, status__exact="failed", ended_at__gte=since),
            gettext("failed turns, 24 hours"),
        ),
        (gettext("Unclear"), unclear.count, link(Message, status__exact="unknown"), gettext("sent, may have arrived")),
        (
            gettext("Tool calls"),
            calls,
            link(ToolCall, status__exact="unknown"),
            gettext("perhaps carried out: find out"),
        ),
        (
            gettext("Accounts"),
            broken,
            link(ChannelAccount, health__exact="broken", is_active__exact=1),
            gettext("refused by providers"),
        ),
        (
            gettext("Not reached"),
            unreached,
            link(ChannelAccount, unreached=1),
            gettext("accounts whose provider is away"),
        ),
    ]
    if noted:
        notes = link(ChannelAccount, notice_at__gte=since)
        found.append((gettext("Notes"), noted, notes, gettext("of providers about accounts, 24 hours")))
    if failing := metrics.failing_endpoints(client_ids):
        found.append(
            (
                gettext("Endpoints"),
                failing,
                link(EventEndpoint, trouble=1),
                gettext("that take no events, or are paused"),
            )
        )
    return [Number(name, f"{count:,}", address, more, alarming=count > 0) for name, count, address, more in found]


def _times(day: DayMetrics) -> list[Number]:
    replies = link(Chunk, role__exact="ai", created_at__gte=day.hours[0].start.isoformat())
    return [
        Number(gettext("Half within"), _seconds(day.median_seconds), replies, gettext("median (p50)")),
        Number(gettext("95 of 100 within"), _seconds(day.slow_seconds), replies, "p95"),
    ]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _open(conversations: list[OpenSessions]) -> list[Number]:
    def count(**which: str) -> str:
        return f"{sum(each.count for each in conversations if all(getattr(each, k) == v for k, v in which.items())):,}"

    return [
        Number(pgettext("conversations", "Open"), count(), link(Conversation, status__in="active,stale")),
        Number(pgettext("conversations", "Active"), count(status="active"), link(Conversation, status__exact="active")),
        Number(pgettext("conversations", "Stale"), count(status="stale"), link(Conversation, status__exact="stale")),
        Number(
            gettext("Guests"),
            f"{sum(each.guests for each in conversations):,}",
            link(Conversation, status__in="active,stale", is_guest__exact=1),
        ),
    ]


def _channels(conversations: list[OpenSessions]) -> list[dict[str, Any]]:
    """Return a row per channel with bars for active and stale conversations."""
    highest = max((each.count for each in conversations), default=0)
    counts = {(each.channel, each.status): each.count for each in conversations}
    return [
        {
            "name": name_of(channel),
            "bars": [
                Bar(
                    Status(status).label.lower(),
                    number := counts.get((channel, status), 0),
                    _percent(number, highest),
                    link(Conversation, channel__exact=channel, status__exact=status),
                )
                for status in ("active", "stale")
            ],
        }
        for channel in dict.fromkeys(each.channel for each in conversations)
    ]


def _hours(day: DayMetrics) -> list[dict[str, Any]]:
    """Return a column per hour with bars for messages and replies."""
    highest = max((max(hour.messages, hour.replies) for hour in day.hours), default=0)
    columns = []
    for hour in day.hours:
        within = {"created_at__gte": hour.start.isoformat(), "created_at__lt": _after(hour.start).isoformat()}
        messages = link(Chunk, role__in="user,voice", **within)
        replies = link(Chunk, role__exact="ai", **within)
        bars = [
            Bar(gettext("messages"), hour.messages, _percent(hour.messages, highest), messages),
            Bar(gettext("replies"), hour.replies, _percent(hour.replies, highest), replies),
        ]
        columns.append({"start": hour.start, "bars": bars, "labelled": timezone.localtime(hour.start).hour % 6 == 0})
    return columns


def _after(hour: datetime) -> datetime:
    return hour + timedelta(hours=1)


def _percent(number: int, highest: int) -> int:
    """Return the percentage, at least 1 if the number is not 0."""
    return max(round(100 * number / highest), 1) if number else 0
