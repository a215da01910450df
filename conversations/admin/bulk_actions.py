"""Actions on many conversations: a preview page with the counts, then a progress page.

Which actions there are, and what the preview says, is declared in `conversation_actions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from conversations.admin import access
from conversations.admin.action_types import Bulk
from conversations.admin.conversation_actions import BULK_ACTIONS, LONGEST_REASON
from conversations.admin.conversation_list import LEFT_OUT, ConversationList
from conversations.http.downloads import Download
from conversations.models import Assistant, BulkJob
from conversations.services.core.errors import NotFoundError
from conversations.services.export.sessions import json_lines
from conversations.services.staff_actions import bulk

MOST_SELECTED = 100
MOST_ASSISTANTS = 500  # in the list to choose from


class BulkActionPages(ConversationList):
    """Actions of managers on the selected conversations, or on all that match the list's filters."""

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the preview page and of the progress page before Django's."""
        wrap = self.admin_site.admin_view
        own = [
            path("bulk/<slug:kind>/", wrap(self.bulk_preview), name="conversations_conversation_bulk"),
            path("bulk/jobs/<uuid:pk>/", wrap(self.bulk_progress), name="conversations_conversation_bulk_job"),
            path(
                "bulk/jobs/<uuid:pk>/go-on/",
                wrap(require_POST(self.bulk_go_on)),
                name="conversations_conversation_bulk_go_on",
            ),
        ]
        return [*own, *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> Any:
        """Return the bulk actions that the user may run, as Django's list offers them."""
        return {
            f"{name}_selected": (_to_preview_of(name), f"{name}_selected", f"{action.label}…")
            for name, action in BULK_ACTIONS.items()
            if self._may_run(request, name)
        }

    def bulk_preview(self, request: HttpRequest, kind: str) -> HttpResponseBase:
        """Return the page that says how many conversations there are and what will happen. On POST, begin."""
        if kind not in BULK_ACTIONS or not self._may_run(request, kind):
            raise Http404
        action, rules = BULK_ACTIONS[kind], _rules(kind)
        matching = self._matching(request, rules.role).values_list("pk", "client_id")
        clients = dict(matching[: bulk.MOST_CONVERSATIONS + 1])
        ids = list(clients)
        assistants = Assistant.objects.filter(client__in=access.clients_of(request.user, rules.role))
        if request.method == "POST" and ids:
            chosen = {pk: clients[pk] for pk in ids[: bulk.MOST_CONVERSATIONS]}
            return self._begin(request, kind, chosen, assistants)
        counted = (
            self.get_queryset(request)
            .filter(pk__in=ids[: bulk.MOST_CONVERSATIONS])
            .order_by()
            .values("status", "client")
        )
        counts: dict[str, int] = {}
        for each in counted.annotate(number=Count("pk")):
            counts[each["status"]] = counts.get(each["status"], 0) + each["number"]
        return self._page(
            request,
            "preview",
            action.label,
            action=action,
            counts=counts,
            total=sum(counts.values()),
            left_out=getattr(request, LEFT_OUT, []),
            affected=sum(counts.get(status, 0) for status in rules.statuses),
            too_many=bulk.MOST_CONVERSATIONS if len(ids) > bulk.MOST_CONVERSATIONS else 0,
            assistants=_choices(assistants) if rules.asks_assistant else [],
        )

    def bulk_progress(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the page that runs the user's job batch by batch and shows how far it has come."""
        job = get_object_or_404(BulkJob.objects.select_related("assistant"), pk=pk, user=request.user.pk)
        return self._page(request, "progress", BULK_ACTIONS[job.kind].label, job=job, total=len(job.sessions))

    def bulk_go_on(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        """Run the next batch of the user's job and return the progress."""
        job = get_object_or_404(BulkJob, pk=pk, user=request.user.pk)
        role = _rules(job.kind).role

        def allowed(ids: Sequence[UUID]) -> set[UUID]:
            return set(self._permitted(request, role).filter(pk__in=ids).values_list("pk", flat=True))

        try:
            job = bulk.continue_job(pk, actor=access.actor_of(request), now=timezone.now(), allowed=allowed)
        except NotFoundError:
            raise Http404 from None
        return JsonResponse(
            {"handled": job.handled, "changed": job.changed, "refused": job.refused, "ended": job.ended_at is not None}
        )

    def _begin(
        self, request: HttpRequest, kind: str, clients: Mapping[UUID, UUID], assistants: QuerySet[Assistant]
    ) -> HttpResponseBase:
        rules, actor = _rules(kind), access.actor_of(request)
        if rules.is_download:
            return _download(request, clients)
        assistant = _chosen(request, assistants) if rules.asks_assistant else None
        reason = request.POST.get("reason", "").replace("\x00", "").strip()[:LONGEST_REASON]
        job = bulk.start_job(kind, list(clients), actor=actor, reason=reason, assistant=assistant)
        return redirect("admin:conversations_conversation_bulk_job", pk=job.pk)

    def _may_run(self, request: HttpRequest, kind: str) -> bool:
        return self.has_role(request, _rules(kind).role)

    def _permitted(self, request: HttpRequest, role: str) -> QuerySet[Any]:
        """Return the conversations of the clients in which the user has the role."""
        rows: QuerySet[Any] = self.get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(client__in=access.clients_of(request.user, role))

    def _matching(self, request: HttpRequest, role: str) -> QuerySet[Any]:
        """Return the permitted conversations that `?ids=` names or, without it, that match the list's filters."""
        if "ids" in request.GET:
            return self._permitted(request, role).filter(pk__in=_uuids(request.GET["ids"]))
        try:
            matching: QuerySet[Any] = self.get_changelist_instance(request).queryset.order_by()
        except IncorrectLookupParameters:
            raise Http404 from None
        return matching.filter(pk__in=self._permitted(request, role).values("pk"))

    def _page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, f"admin/bulk_actions/{template}.html", {**shared, **context})


def _rules(kind: str) -> Bulk:
    rules = BULK_ACTIONS[kind].bulk
    assert rules is not None  # noqa: S101 - BULK_ACTIONS has no others
    return rules


def _to_preview_of(kind: str) -> Any:
    """Return a list action that redirects to the preview page of the selected conversations."""

    def redirect_to_preview(admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        ids = ",".join(str(pk) for pk in queryset.values_list("pk", flat=True)[:MOST_SELECTED])
        return redirect(reverse("admin:conversations_conversation_bulk", args=[kind]) + "?" + urlencode({"ids": ids}))

    return redirect_to_preview


def _uuids(text: str) -> list[UUID]:
    try:
        return [UUID(each) for each in text.split(",") if each]
    except ValueError:
        raise Http404 from None


def _choices(assistants: QuerySet[Assistant]) -> list[Assistant]:
    return list(assistants.select_related("client").order_by("client__name", "key")[:MOST_ASSISTANTS])


def _chosen(request: HttpRequest, assistants: QuerySet[Assistant]) -> Assistant:
    try:
        return get_object_or_404(assistants, pk=UUID(request.POST.get("assistant", "")))
    except ValueError:
        raise Http404 from None


def _download(request: HttpRequest, clients: Mapping[UUID, UUID]) -> Download:
    lines = json_lines(clients, actor=access.actor_of(request))
    name = f"sessions-{timezone.now():%Y%m%d-%H%M%S}.jsonl"
    return Download(lines, name=name, content_type="application/x-ndjson")
