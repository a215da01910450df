"""Retention: how long a client's data are kept, edited with a preview, and the reports of what was deleted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.forms import formset_factory
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext, ngettext_lazy
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from conversations.admin.base import Breadcrumb, ClientScopedAdmin, ReadOnlyAdmin
from conversations.admin.channel_names import name_of
from conversations.models import Client, RetentionReport, RetentionRule, Status
from conversations.models.retention import BY_STATUS, ENDED_STATUSES, FOR_EVER
from conversations.services.core.deadlines import default_days
from conversations.services.core.errors import InvalidError
from conversations.services.retention import policies, retention
from conversations.services.retention.deletions import RuleResult
from conversations.services.retention.policies import Policy
from conversations.words import lazy as _

MOST_EXCEPTIONS = 60
SPARE_ROWS = 3
NOUNS = {
    RetentionRule.GUESTS: ngettext_lazy("%(n)s conversation", "%(n)s conversations", "count"),
    RetentionRule.WEB: ngettext_lazy("%(n)s conversation", "%(n)s conversations", "count"),
    RetentionRule.SESSIONS: ngettext_lazy("%(n)s conversation", "%(n)s conversations", "count"),
    RetentionRule.MEMORY: ngettext_lazy("%(n)s archived transcript", "%(n)s archived transcripts", "count"),
    RetentionRule.TURNS: ngettext_lazy("%(n)s conversation with turns", "%(n)s conversations with turns", "count"),
    RetentionRule.SENDS: ngettext_lazy(
        "%(n)s conversation with deliveries", "%(n)s conversations with deliveries", "count"
    ),
    RetentionRule.EVENTS: ngettext_lazy("%(n)s raw payload", "%(n)s raw payloads", "count"),
}
PREVIEWED = "convo.retention.previewed"
PREVIEW_LASTS = 3600  # seconds; a later preview may show other counts


def _days() -> forms.IntegerField:
    attrs = {"inputmode": "numeric", "autocomplete": "off"}
    return forms.IntegerField(
        min_value=0, max_value=FOR_EVER, required=False, widget=UnfoldAdminTextInputWidget(attrs=attrs)
    )


class DaysForm(forms.Form):
    """The days of each rule, for all channels and statuses. Empty: the default of the settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for rule in RetentionRule:
            self.fields[rule.value] = field = _days()
            default = default_days(rule)
            in_words = (
                gettext("forever")
                if default >= FOR_EVER
                else ngettext("%(n)s day", "%(n)s days", default) % {"n": default}
            )
            field.label, field.help_text = rule.label, gettext("Empty: %(in_words)s") % {"in_words": in_words}

    def chosen(self) -> list[Policy]:
        """Return the policies that were entered."""
        return [Policy(rule, "", "", days) for rule, days in self.cleaned_data.items() if days is not None]


class ExceptionForm(forms.Form):
    """An exception: other days for one channel, or for one status of ended conversations."""

    rule = forms.ChoiceField(
        choices=[("", "—"), *RetentionRule.choices], required=False, widget=UnfoldAdminSelectWidget, label=_("What")
    )
    channel = forms.ChoiceField(
        choices=[("", _("every channel")), *((each, name_of(each)) for each in sorted(policies.CHANNELS))],
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    status = forms.ChoiceField(
        choices=[("", _("any status")), *((each, Status(each).label) for each in ENDED_STATUSES)],
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    days = _days()

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse a row that is incomplete."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("rule"):
            if given.get("days") is None and "days" not in self.errors:
                self.add_error("days", gettext("Enter the number of days."))
            if not given.get("channel") and not given.get("status"):
                self.add_error("channel", gettext("Choose a channel or a status. For all of them, use the list above."))
            if given.get("status") and given["rule"] not in BY_STATUS:
                self.add_error("status", gettext("This rule does not depend on the status."))
        elif given.get("days") is not None:
            self.add_error("rule", gettext("Choose what the days apply to."))
        return given

    def chosen(self) -> list[Policy]:
        """Return the policy of the row, if it has one."""
        given = self.cleaned_data
        return [Policy(given["rule"], given["channel"], given["status"], given["days"])] if given.get("rule") else []


Exceptions = formset_factory(ExceptionForm, extra=SPARE_ROWS, max_num=MOST_EXCEPTIONS, validate_max=True)


class RetentionPage(ClientScopedAdmin):
    """The page on which managers set how long the client's data are kept."""

    actions_detail = ("retention",)

    @action(description=_("Retention"), url_path="retention", icon="auto_delete", permissions=["change"])  # type: ignore[untyped-decorator]
    def retention(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the form. The first POST shows what the next run would delete; only a previewed form is saved."""
        client = self.get_object(request, unquote(object_id))
        if client is None:
            return self.row_not_found(request, object_id)
        if not self.has_change_permission(request, client):
            raise PermissionDenied
        kept = policies.policies_of(client)
        days = DaysForm(request.POST or None, initial=_for_all(kept))
        others = Exceptions(
            request.POST or None, initial=[asdict(each) for each in kept if each.channel or each.status]
        )
        shown: dict[str, Any] = {}
        if request.method == "POST" and days.is_valid() and others.is_valid():
            chosen = [*days.chosen(), *(policy for form in others for policy in form.chosen())]
            try:
                if "save" in request.POST and _was_seen(request, client, chosen):
                    return self._save(request, client, kept, chosen)
                shown = _preview(client, chosen)
            except InvalidError as error:
                shown = {"refused": str(error)}
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Retention: %(client)s") % {"client": client},
            "object": Breadcrumb(client, str(client)),
            "client": client,
            "days": days,
            "others": others,
            **shown,
        }
        return TemplateResponse(request, "admin/retention/retention.html", context)

    def _save(self, request: HttpRequest, client: Client, kept: list[Policy], chosen: list[Policy]) -> HttpResponse:
        with transaction.atomic():
            policies.replace(client, chosen)
            if sorted(set(chosen)) != kept:
                changes = {"retention": (policies.in_words(kept), policies.in_words(sorted(chosen)))}
                self.record(request, "changed", client, changes)
        self.message_user(request, gettext("Saved. The next run uses these periods."), messages.SUCCESS)
        return redirect(reverse("admin:conversations_client_change", args=[client.pk]))


def _for_all(kept: Iterable[Policy]) -> dict[str, int]:
    return {each.rule: each.days for each in kept if not each.channel and not each.status}


def _preview(client: Client, chosen: list[Policy]) -> dict[str, Any]:
    """Return what the next run would delete. The policies are saved for this and rolled back at once."""
    with transaction.atomic():
        policies.replace(client, chosen)
        found = retention.preview(timezone.now(), client)
        transaction.set_rollback(True)
    lines = [(rule, found.line(client.pk, rule)) for rule in RetentionRule]
    return {"preview": [(rule.label, line, _would(rule, line)) for rule, line in lines], "seen": _seen(client, chosen)}


def _would(rule: RetentionRule, line: RuleResult) -> str:
    """Return "would delete 12 conversations, the oldest of 2026-01-01 10:00"."""
    noun = NOUNS[rule] % {"count": line.deleted, "n": f"{line.deleted:,}"}
    said = gettext("would delete %(what)s, the oldest of %(at)s")
    parts = [said % {"what": noun, "at": _at(line.oldest)}] if line.oldest else []
    parts += [gettext("%(held_back)s on hold stay") % {"held_back": f"{line.held_back:,}"}] if line.held_back else []
    return "; ".join(parts) or gettext("nothing")


def _at(time: datetime) -> str:
    return f"{timezone.localtime(time):%Y-%m-%d %H:%M}"


def _seen(client: Client, chosen: list[Policy]) -> str:
    return signing.dumps(_facts(client, chosen), salt=PREVIEWED)


def _was_seen(request: HttpRequest, client: Client, chosen: list[Policy]) -> bool:
    """Return whether exactly these policies were previewed within PREVIEW_LASTS."""
    try:
        seen = signing.loads(request.POST.get("seen", ""), salt=PREVIEWED, max_age=PREVIEW_LASTS)
    except signing.BadSignature:
        return False
    return bool(seen == _facts(client, chosen))


def _facts(client: Client, chosen: list[Policy]) -> list[Any]:
    return [str(client.pk), [[each.rule, each.channel, each.status, each.days] for each in sorted(chosen)]]


@admin.register(RetentionReport)
class RetentionReportAdmin(ReadOnlyAdmin):
    """Reports of retention runs: what each deleted."""

    client_path = "client"
    list_display = ["started_at", "by", "client", "deleted", "held_back", "trouble"]
    list_filter = ["by"]
    list_select_related = ["client"]
    ordering = ["-id"]
    fields = ["started_at", "ended_at", "by", "client", "run", "by_rule"]

    @admin.display(description=_("Deleted"))
    def deleted(self, report: RetentionReport) -> str:
        """Return the number of deleted rows by rule."""
        return ", ".join(
            f"{line.deleted:,} {RetentionRule(line.rule).shown}" for line in lines_of(report) if line.deleted
        ) or gettext("nothing")

    @admin.display(description=_("On hold"))
    def held_back(self, report: RetentionReport) -> str:
        """Return how many rows were due but kept by a hold."""
        return f"{sum(line.held_back for line in lines_of(report)):,}"

    @admin.display(description=_("Errors"))
    def trouble(self, report: RetentionReport) -> str:
        """Return the error codes by rule."""
        return (
            ", ".join(f"{RetentionRule(line.rule).shown}: {line.error}" for line in lines_of(report) if line.error)
            or "none"
        )

    @admin.display(description=_("By rule"))
    def by_rule(self, report: RetentionReport) -> SafeString:
        """Return the whole report, rule by rule."""
        said = [(RetentionRule(line.rule).label, _said(line)) for line in lines_of(report)]
        return format_html_join("", "<p><b>{}</b><br>{}</p>", said) or format_html(
            "<p>{}</p>", gettext("Nothing was due.")
        )


def lines_of(report: RetentionReport) -> list[RuleResult]:
    """Return the lines of the report as values."""
    lines: list[dict[str, Any]] = report.lines
    return [RuleResult(**{**line, "oldest": parse_datetime(line["oldest"] or "")}) for line in lines]


def _said(line: RuleResult) -> str:
    parts = [gettext("%(deleted)s deleted") % {"deleted": f"{line.deleted:,}"}]
    parts += [gettext("the oldest of %(at)s") % {"at": _at(line.oldest)}] if line.oldest else []
    parts += [gettext("%(held_back)s kept by a hold") % {"held_back": f"{line.held_back:,}"}] if line.held_back else []
    parts += [gettext("failed: %(error)s") % {"error": line.error}] if line.error else []
    return ", ".join(parts)
