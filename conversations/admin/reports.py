"""The reports: figures of a client over some days, as charts with their tables, and as CSV.

    /admin/reports/                   the page
    /admin/reports/<table>.csv        the table of a chart, or of what the figures are split by
    /admin/reports/each-conversation.csv  a row for each conversation that began in the period

All take the same query: client, first, last, step, channel, assistant, colleague, team, label. Days are those of the
client's time zone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Value
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format, get_format
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from channels_out.kinds import Channel
from conversations.admin import access
from conversations.admin.channel_names import name_of
from conversations.admin.report_columns import CARDS, CHARTS, PERCENT, SECONDS, SPLITS, Chart, Column
from conversations.admin.report_query import Asked, asked_for, clients_of, usual_periods
from conversations.admin.transcript import no_store
from conversations.http.downloads import Download
from conversations.models import Assistant, Client, Label, Membership, Team
from conversations.models.figures import NOBODY
from conversations.services.core import audit_log
from conversations.services.export import report_rows
from conversations.services.figures.reading import Numbers, Report, Step, report

TEMPLATE = "admin/reports/reports.html"
COLOURS = ("var(--color-primary-600)", "#d97706")
MOST_CHANGE = 999  # per cent; more says no more
MOST_ROWS = 500  # of what figures are split by
CSV = "text/csv; charset=utf-8"
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SCALE = {"ticks": {"color": "#7c8494", "maxRotation": 0}, "border": {"display": False}}
OPTIONS = {
    "animation": False,
    "responsive": True,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "plugins": {"legend": {"display": False}},
    "datasets": {"bar": {"maxBarThickness": 18, "borderRadius": 2}, "line": {"borderWidth": 2, "pointRadius": 2}},
    "scales": {"x": {**_SCALE, "grid": {"display": False}}, "y": {**_SCALE, "grid": {}, "beginAtZero": True}},
}


def page(request: HttpRequest) -> HttpResponse:
    """Return the page of a report."""
    clients = clients_of(request)
    asked = asked_for(request, clients)
    found, names = report(asked.client.pk, asked.period, asked.step, asked.narrowed), _Names(asked.client)
    context = {
        **admin.site.each_context(request),
        "title": _("Reports"),
        "asked": asked,
        "clients": clients,
        "zone": asked.period.zone.key,
        "before": asked.period.before(),
        "steps": [(Step.HOUR, _("Hour")), (Step.DAY, _("Day")), (Step.WEEK, _("Week")), (Step.MONTH, _("Month"))],
        "periods": usual_periods(asked),
        "channels": [(each.value, name_of(each)) for each in Channel],
        "names": names,
        "is_empty": not (found.total["opened"] or found.total["ended"] or found.total["messages_in"]),
        "cards": [_card(column, found) for column in CARDS],
        "charts": [_chart(chart, found, asked) for chart in CHARTS],
        "splits": [_split(name, found, asked, names) for name in SPLITS],
        "rows_link": f"{reverse('reports:conversations')}?{asked.query()}",
    }
    return no_store(TemplateResponse(request, TEMPLATE, context))


def table_csv(request: HttpRequest, name: str) -> HttpResponseBase:
    """Return the table of a chart, or of what the figures are split by, as CSV. Raises Http404 for another name."""
    asked = asked_for(request, clients_of(request))
    if asked.problems:
        return _refused(asked)
    charts = {chart.name: chart for chart in CHARTS}
    if name not in charts and name not in SPLITS:
        raise Http404
    found = report(asked.client.pk, asked.period, asked.step, asked.narrowed)
    columns: tuple[Column, ...]
    if name in charts:
        columns, head = (*charts[name].shown, *charts[name].more), _("From")
        table = [[at.isoformat(sep=" ", timespec="minutes"), *_raw(columns, each)] for at, each in found.steps.items()]
    else:
        _title, head, columns = SPLITS[name]  # type: ignore[assignment]
        rows = _rows(name, found, _Names(asked.client))
        table = [[key_name, *_raw(columns, numbers)] for _key, key_name, numbers in rows]
    pieces = report_rows.table_as_csv([str(head), *(column.name for column in columns)], table)
    return _download(pieces, name, asked)


def conversations_csv(request: HttpRequest) -> HttpResponseBase:
    """Return a row for each conversation that began in the period, as CSV. The audit log says who took it."""
    asked = asked_for(request, clients_of(request))
    if asked.problems:
        return _refused(asked)
    download = _download(report_rows.as_csv(asked.client.pk, asked.period, asked.narrowed), "conversations", asked)
    taken = {"conversations from": ("", str(asked.period.first)), "to": ("", str(asked.period.last))}
    audit_log.record(request.user, "exported", asked.client, asked.client.pk, taken)  # type: ignore[arg-type]
    return download


def urls() -> list[URLPattern]:
    """Return the addresses below `/admin/reports/`, for staff with a role in a client."""

    def route(way: str, view: Callable[..., Any], name: str) -> URLPattern:
        guarded: Callable[..., HttpResponse] = admin.site.admin_view(require_GET(_for_members(view)))
        return path(way, guarded, name=name)

    return [
        route("", page, "page"),
        route("each-conversation.csv", conversations_csv, "conversations"),
        route("<slug:name>.csv", table_csv, "table"),
    ]


def _for_members(view: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: HttpRequest, **named: Any) -> Any:
        if not access.can_somewhere(request.user, access.Role.VIEWER):
            raise PermissionDenied
        return view(request, **named)

    return guarded


def _refused(asked: Asked) -> HttpResponse:
    return HttpResponse(" ".join(asked.problems), status=400, content_type="text/plain; charset=utf-8")


def _download(pieces: Any, name: str, asked: Asked) -> Download:
    period = asked.period
    file_name = f"{asked.client.sub_domain}-{name}-{period.first}-{period.last}.csv"
    return Download(pieces, name=file_name, content_type=CSV)


# --- what is shown ----------------------------------------------------------------------------------------------------
class _Names:
    """The names of what figures are split by, and the choices of the form."""

    def __init__(self, client: Client) -> None:
        assistants = Assistant.objects.filter(client=client).order_by("name", "pk")
        self.assistants = [(each.pk, each.name) for each in assistants]
        users = get_user_model().objects.filter(
            pk__in=Membership.objects.filter(client=client).values("user"), is_active=True
        )
        self.colleagues = sorted(
            ((user.pk, user.get_full_name() or user.get_username()) for user in users), key=lambda each: each[1]
        )
        labels, teams = (
            model.objects.filter(client=client).order_by().values_list(Value(split), "pk", "name")
            for split, model in (("label", Label), ("team", Team))
        )
        named = sorted(labels.union(teams, all=True), key=lambda each: each[2])
        self.labels = [(pk, name) for split, pk, name in named if split == "label"]
        self.teams = [(pk, name) for split, pk, name in named if split == "team"]
        self._others: dict[int, str] = {}

    def find(self, colleagues: list[int]) -> None:
        """Read the names of those who are no members any more."""
        unknown = {*colleagues} - {0, *(pk for pk, _name in self.colleagues)}
        if unknown:
            users = get_user_model().objects.filter(pk__in=unknown)
            self._others = {user.pk: user.get_full_name() or user.get_username() for user in users}

    def of(self, split: str, key: Any) -> str:
        """Return the name of what a key stands for."""
        if split == "channel":
            return name_of(key)
        if split == "assistant":
            return dict(self.assistants).get(key) or (_("No assistant") if key == NOBODY else _("Deleted"))
        if split in ("label", "team"):
            return dict(self.labels if split == "label" else self.teams).get(key) or _("Deleted")
        if not key:
            return _("Nobody of the staff")
        return dict(self.colleagues).get(key) or self._others.get(key) or _("Deleted")


def _card(column: Column, found: Report) -> dict[str, Any]:
    now, before = column.value(found.total), column.value(found.before)
    return {"title": column.title, "words": column.words(found.total), "change": _change(now, before)}


def _change(now: Any, before: Any) -> str:
    """Return by how many per cent a figure is more or less than before; '' where that says nothing."""
    if now is None or not before:
        return ""
    change = round(100 * (float(now) - float(before)) / float(before))
    if change > MOST_CHANGE:
        return f"> +{MOST_CHANGE} %"
    return f"{'+' if change > 0 else '−' if change < 0 else '±'}{abs(change)} %"  # noqa: RUF001 - a minus sign


def _chart(chart: Chart, found: Report, asked: Asked) -> dict[str, Any]:
    values = [[column.value(each) for each in found.steps.values()] for column in chart.shown]
    factor, unit = _unit(chart, values)
    datasets = [
        {
            "label": f"{column.title} ({unit})" if unit else str(column.title),
            "data": [None if value is None else round(float(value) / factor, 4) for value in each],
            "backgroundColor": colour,
            "borderColor": colour,
            "spanGaps": True,
        }
        for column, each, colour in zip(chart.shown, values, COLOURS, strict=False)
    ]
    columns = (*chart.shown, *chart.more)
    labels = [_at(at, found.step) for at in found.steps]
    return {
        "name": chart.name,
        "title": chart.title,
        "note": chart.note,
        "shape": chart.shape,
        "legend": list(zip(("first", "second"), [each["label"] for each in datasets], strict=False)),
        "data": json.dumps({"labels": labels, "datasets": datasets}),
        "options": json.dumps({**OPTIONS, "locale": get_language()}),
        "has_values": any(value for each in values for value in each),
        "columns": [column.title for column in columns],
        "rows": [(_at(at, found.step), [column.words(each) for column in columns]) for at, each in found.steps.items()],
        "total": [column.words(found.total) for column in columns],
        "csv": f"{reverse('reports:table', args=[chart.name])}?{asked.query()}",
    }


def _unit(chart: Chart, values: list[list[Any]]) -> tuple[int, str]:
    """Return what the values of a chart are divided by, and the name of their unit, '' for none."""
    if chart.shown[0].kind != SECONDS:
        return 1, "%" if chart.shown[0].kind == PERCENT else ""
    highest = max((value for each in values for value in each if value is not None), default=0)
    return next(((length, unit) for length, unit in UNITS if highest >= 2 * length), UNITS[-1])


def _at(at: datetime, step: Step) -> str:
    day_and_month = get_format("DATE_FORMAT").removesuffix(" Y")
    if step == Step.HOUR:
        return date_format(at, f"{day_and_month}, H:i")
    month = get_format("DATE_FORMAT").removeprefix("j ")
    return date_format(at, month if step == Step.MONTH else day_and_month)


def _split(name: str, found: Report, asked: Asked, names: _Names) -> dict[str, Any]:
    title, head, columns = SPLITS[name]
    return {
        "name": name,
        "title": title,
        "head": head,
        "columns": [column.title for column in columns],
        "rows": [
            (key_name, [column.words(numbers) for column in columns], asked.query(**{name: key}) if key else "")
            for key, key_name, numbers in _rows(name, found, names)
        ],
        "csv": f"{reverse('reports:table', args=[name])}?{asked.query()}",
    }


def _rows(name: str, found: Report, names: _Names) -> list[tuple[Any, str, Numbers]]:
    """Return what the figures are split by: key, name and figures, by name."""
    split = found.by[name]
    if name == "colleague":
        names.find(list(split))
    rows = sorted(((key, names.of(name, key), numbers) for key, numbers in split.items()), key=lambda each: each[1])
    return rows[:MOST_ROWS]


def _raw(columns: tuple[Column, ...], numbers: Numbers) -> list[Any]:
    """Return the values of a row of CSV: counts as they are, seconds and per cent with one digit."""
    values = [column.value(numbers) for column in columns]
    return [round(value, 1) if isinstance(value, float) else value for value in values]
