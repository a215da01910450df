"""The page "Try this assistant": each check of its models, one after the other, with what to change."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST
from unfold.decorators import action

from conversations.admin.base import Breadcrumb, ClientScopedAdmin
from conversations.models import Assistant
from conversations.services.core.errors import TooManyError
from conversations.services.replies import trying
from conversations.services.replies.trying import Check
from conversations.words import lazy as _

TEMPLATES = "admin/try_assistant"


class TryAssistantPage(ClientScopedAdmin):
    """The page on which managers try an assistant. The browser asks for one check after the other."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page's addresses before Django's, whose last pattern matches everything."""
        wrap = self.admin_site.admin_view
        own = [
            path(
                "<uuid:pk>/try/", wrap(require_http_methods(["GET"])(self.try_page)), name="conversations_assistant_try"
            ),
            path(
                "<uuid:pk>/try/<slug:check>/",
                wrap(require_POST(self.try_check)),
                name="conversations_assistant_try_check",
            ),
        ]
        return [*own, *super().get_urls()]

    @action(description=_("Try this assistant"), url_path="open-try", permissions=["change"], icon="science")  # type: ignore[untyped-decorator]
    def open_try(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Redirect to the page."""
        assistant = self.get_object(request, unquote(object_id))
        if assistant is None:
            return self.row_not_found(request, object_id)
        return redirect(reverse("admin:conversations_assistant_try", args=[assistant.pk]))

    def try_page(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """Return the page with the checks, none of which has run."""
        assistant = self._assistant(request, pk)
        checks = [(check, trying.TITLES[check], check in trying.USUAL) for check in trying.OF_ASSISTANTS]
        context = {
            "title": gettext("Try %(assistant)s") % {"assistant": assistant},
            "object": Breadcrumb(assistant, gettext("Try %(assistant)s") % {"assistant": assistant}),
            "opts": self.opts,
            "assistant": assistant,
            "checks": checks if trying.is_by_model(assistant) else [],
            **self.admin_site.each_context(request),
        }
        return TemplateResponse(request, f"{TEMPLATES}/try_assistant.html", context)

    def try_check(self, request: HttpRequest, pk: Any, check: str) -> HttpResponse:
        """Run one check and return its results as a part of the page."""
        assistant = self._assistant(request, pk)
        if check not in trying.OF_ASSISTANTS:
            raise Http404
        user: Any = request.user
        try:
            with trying.within_limits(user.pk, timezone.now()):
                trials = trying.run_check(assistant, Check(check))
        except TooManyError as refusal:
            headers = {"Retry-After": str(refusal.retry_after)}
            return HttpResponse(str(refusal), content_type="text/plain", status=429, headers=headers)
        self.record(request, f"tried ({check})", assistant)
        response = TemplateResponse(request, f"{TEMPLATES}/_trials.html", {"trials": trials})
        response["Cache-Control"] = "no-store"
        return response

    def _assistant(self, request: HttpRequest, pk: Any) -> Assistant:
        assistant: Assistant | None = self.get_queryset(request).filter(pk=pk).first()
        if assistant is None:
            raise Http404
        if not self.has_change_permission(request, assistant):
            raise PermissionDenied
        return assistant
