"""Doing something to many sessions: the counts first, then progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.deeds import LONGEST_REASON, staff
from conversations.admin.session_list import LEFT_OUT, SessionList
from conversations.models import OPEN, Assistant, BulkJob, Status
from conversations.services.core.errors import NotFoundError
from conversations.services.export.sessions import lines
from conversations.services.staff_actions import bulk

KINDS = {"close": "Close", "assign": "Assign assistant", "archive": "Archive", "export": "Export"}
# In which states a session can be what is asked for.
AFFECTED = {"close": OPEN, "assign": OPEN, "archive": (Status.CLOSED, Status.EXPIRED)}
ROOM = "admin/conversations/conversation"


class BulkPages(SessionList):
    """What managers do to the sessions they selected, or to all that match the list's filters."""

    bulk_kinds = KINDS
    actions = ("close_selected", "assign_selected", "archive_selected", "export_selected")

    def get_urls(self) -> list[URLPattern]:
        """A page that asks, and one that shows progress."""
        wrap = self.admin_site.admin_view
        own = [
            path("bulk/<slug:kind>/", wrap(self.bulk_ask), name="conversations_conversation_bulk"),
            path("bulk/jobs/<uuid:pk>/", wrap(self.bulk_job), name="conversations_conversation_bulk_job"),
            path(
                "bulk/jobs/<uuid:pk>/go-on/",
                wrap(require_POST(self.bulk_go_on)),
                name="conversations_conversation_bulk_go_on",
            ),
        ]
        return [*own, *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> Any:
        """For managers."""
        return super().get_actions(request) if self.may(request, Role.MANAGER) else {}

    @admin.action(description="Close…")
    def close_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Ask first."""
        return _ask_about("close", queryset)

    @admin.action(description="Assign assistant…")
    def assign_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Ask first."""
        return _ask_about("assign", queryset)

    @admin.action(description="Archive…")
    def archive_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Ask first."""
        return _ask_about("archive", queryset)

    @admin.action(description="Export…")
    def export_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Ask first."""
        return _ask_about("export", queryset)

    def bulk_ask(self, request: HttpRequest, kind: str) -> HttpResponseBase:
        """How many sessions it is about, and what will be done to them; posted, it begins."""
        if kind not in KINDS or not self.may(request, Role.MANAGER):
            raise Http404
        sessions = self._meant(request)
        ids = list(sessions.values_list("pk", flat=True)[: bulk.MOST + 1])
        assistants = Assistant.objects.filter(client__in=access.clients_of(request.user, Role.MANAGER))
        if request.method == "POST" and ids:
            if kind == "export":
                return _download(request, ids[: bulk.MOST])
            assistant = _chosen(request, assistants) if kind == "assign" else None
            reason = request.POST.get("reason", "").replace("\x00", "").strip()[:LONGEST_REASON]
            job = bulk.start(kind, ids[: bulk.MOST], actor=staff(request), reason=reason, assistant=assistant)
            return redirect("admin:conversations_conversation_bulk_job", pk=job.pk)
        counted = self.get_queryset(request).filter(pk__in=ids[: bulk.MOST]).order_by().values("status", "client")
        counts: dict[str, int] = {}
        for each in counted.annotate(number=Count("pk")):
            counts[each["status"]] = counts.get(each["status"], 0) + each["number"]
        total = sum(counts.values())
        return self._page(
            request,
            "bulk_ask",
            KINDS[kind],
            kind=kind,
            counts=counts,
            total=total,
            left_out=getattr(request, LEFT_OUT, []),
            affected=total if kind == "export" else sum(counts.get(status, 0) for status in AFFECTED[kind]),
            too_many=bulk.MOST if len(ids) > bulk.MOST else 0,
            assistants=list(assistants.select_related("client").order_by("client__name", "key")[:500]),
        )

    def bulk_job(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """How far it has come."""
        job = get_object_or_404(BulkJob.objects.select_related("assistant"), pk=pk, user=request.user.pk)
        return self._page(request, "bulk_job", KINDS[job.kind], job=job, total=len(job.sessions))

    def bulk_go_on(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        """One batch more."""

        def allowed(ids: Sequence[UUID]) -> set[UUID]:
            return set(self._managed(request).filter(pk__in=ids).values_list("pk", flat=True))

        try:
            job = bulk.go_on(pk, actor=staff(request), now=timezone.now(), allowed=allowed)
        except NotFoundError:
            raise Http404 from None
        return JsonResponse(
            {"handled": job.handled, "changed": job.changed, "refused": job.refused, "ended": job.ended_at is not None}
        )

    def _managed(self, request: HttpRequest) -> QuerySet[Any]:
        clients = access.clients_of(request.user, Role.MANAGER)
        rows: QuerySet[Any] = self.get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(client__in=clients)

    def _meant(self, request: HttpRequest) -> QuerySet[Any]:
        """The sessions that `?ids=` names, or that match the filters of the list; of clients that the user manages."""
        if "ids" in request.GET:
            return self._managed(request).filter(pk__in=_uuids(request.GET["ids"]))
        try:
            matching: QuerySet[Any] = self.get_changelist_instance(request).queryset.order_by()
        except IncorrectLookupParameters:
            raise Http404 from None
        return matching.filter(pk__in=self._managed(request).values("pk"))

    def _page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, f"{ROOM}/{template}.html", {**shared, **context})


def _ask_about(kind: str, queryset: QuerySet[Any]) -> HttpResponse:
    ids = ",".join(str(pk) for pk in queryset.values_list("pk", flat=True)[:100])
    return redirect(reverse("admin:conversations_conversation_bulk", args=[kind]) + "?" + urlencode({"ids": ids}))


def _uuids(text: str) -> list[UUID]:
    try:
        return [UUID(each) for each in text.split(",") if each]
    except ValueError:
        raise Http404 from None


def _chosen(request: HttpRequest, assistants: QuerySet[Assistant]) -> Assistant:
    try:
        return get_object_or_404(assistants, pk=UUID(request.POST.get("assistant", "")))
    except ValueError:
        raise Http404 from None


def _download(request: HttpRequest, ids: Sequence[UUID]) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(lines(ids, actor=staff(request)), content_type="application/x-ndjson")
    answer["Content-Disposition"] = f'attachment; filename="sessions-{timezone.now():%Y%m%d-%H%M%S}.jsonl"'
    answer["Cache-Control"] = "no-store"
    return answer
