"""A session's page: its transcript, what stands beside it, and the forms with which staff steer it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET, require_POST

from conversations.admin import access, entries
from conversations.admin.base import Crumb
from conversations.admin.deeds import DEEDS, position_of, staff, whole
from conversations.admin.entries import Entry, Stretch
from conversations.admin.long_list import LongList
from conversations.http.downloads import Download
from conversations.models import Conversation
from conversations.services.core.errors import DomainError, NotFoundError
from conversations.services.export.sessions import note_taken
from conversations.services.export.transcripts import FORMATS

ROOM = "admin/conversations/conversation"
SECTIONS = ("head", "takeover", "reply", "steps", "close", "hold", "ledger", "turns")

Answer = TypeVar("Answer", bound=HttpResponse)


class TranscriptPage(LongList):
    """Shows one session. What changes there is asked for every two seconds, and nothing is sent where nothing did."""

    def get_urls(self) -> list[URLPattern]:
        """The page's own, before Django's, whose last one takes everything."""
        wrap = self.admin_site.admin_view
        own = [
            path("<uuid:pk>/older/", wrap(require_GET(self.older)), name="conversations_conversation_older"),
            path("<uuid:pk>/news/", wrap(require_GET(self.news)), name="conversations_conversation_news"),
            path(
                "<uuid:pk>/export/<slug:form>/",
                wrap(require_POST(self.export)),
                name="conversations_conversation_export",
            ),
            path("<uuid:pk>/do/<slug:deed>/", wrap(require_POST(self.do)), name="conversations_conversation_do"),
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page, with `?at=` at that position. Nothing is posted to it."""
        if request.method != "GET":
            raise PermissionDenied
        try:
            conversation = self._sessions(request).filter(pk=UUID(object_id)).first()
        except ValueError:
            conversation = None
        if conversation is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        at = whole(request.GET.get("at", ""))
        stretch = entries.around(conversation, at)
        return TemplateResponse(
            request,
            f"{ROOM}/transcript.html",
            {
                **self.admin_site.each_context(request),
                **self._context(request, conversation),
                **(extra_context or {}),
                "opts": self.opts,
                "title": entries.title_of(conversation),
                "object": Crumb(conversation, entries.title_of(conversation)),
                "stretch": stretch,
                "at": at,
            },
        )

    def older(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        """The entries before `?before=`, as bubbles."""
        conversation = self._session(request, pk)
        stretch = entries.before(conversation, whole(request.GET.get("before", "")))
        return _no_store(JsonResponse(self._bubbles(request, conversation, stretch) | {"more": stretch.more}))

    def news(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """What is new after `?after=`, and what stands beside it; 204 where that is what `?seen=` had already."""
        conversation = self._session(request, pk)
        stretch = entries.since(conversation, whole(request.GET.get("after", "")))
        body = self._bubbles(request, conversation, stretch) | {
            "behind": stretch.last < conversation.last_position,
            "sections": self._sections(request, conversation),
        }
        seen = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if request.GET.get("seen") == seen:
            return _no_store(HttpResponse(status=204))
        return _no_store(JsonResponse(body | {"seen": seen}))

    def do(self, request: HttpRequest, pk: UUID, deed: str) -> JsonResponse:
        """Do what a form asks for, and say in a sentence what is true now, or why not. Where the form names an entry
        by its `position`, the entry comes along as it is now."""
        conversation = self._session(request, pk)
        if deed not in DEEDS:
            raise Http404
        if not access.can(request.user, DEEDS[deed].role, conversation.client_id):
            return _no_store(JsonResponse({"said": f"Only {DEEDS[deed].role}s may do that."}, status=403))
        try:
            sentence = DEEDS[deed].do(request, conversation)
        except NotFoundError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=404))
        except DomainError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=409))
        position = position_of(request)
        return _no_store(
            JsonResponse({"said": sentence} | self._bubbles(request, conversation, entries.at(conversation, position)))
        )

    def export(self, request: HttpRequest, pk: UUID, form: str) -> HttpResponseBase:
        """The transcript as a file, or as a page to print."""
        conversation = self._session(request, pk)
        if form not in FORMATS:
            raise Http404
        if not access.can(request.user, access.Role.MANAGER, conversation.client_id):
            raise PermissionDenied
        note_taken([conversation.pk], actor=staff(request), cause=form)
        return Download(**FORMATS[form].file_of(conversation))

    def _sessions(self, request: HttpRequest) -> QuerySet[Conversation]:
        related = ("contact", "client", "assistant", "channel_account", "taken_over_by", "device")
        return self.get_queryset(request).select_related(*related)

    def _session(self, request: HttpRequest, pk: UUID) -> Conversation:
        conversation = self._sessions(request).filter(pk=pk).first()
        if conversation is None:
            raise Http404
        return conversation

    def _context(self, request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
        return {
            "conversation": conversation,
            **_rights(request, conversation),
            **entries.beside(conversation),
        }

    def _sections(self, request: HttpRequest, conversation: Conversation) -> dict[str, str]:
        context = self._context(request, conversation)
        return {name: render_to_string(f"{ROOM}/_{name}.html", context, request=request) for name in SECTIONS}

    def _bubbles(self, request: HttpRequest, conversation: Conversation, stretch: Stretch) -> dict[str, Any]:
        return {"bubbles": [self._bubble(request, conversation, entry) for entry in stretch.entries]}

    def _bubble(self, request: HttpRequest, conversation: Conversation, entry: Entry) -> tuple[int, str]:
        context = {"entry": entry, "conversation": conversation, **_rights(request, conversation)}
        return entry.chunk.position, render_to_string(f"{ROOM}/_bubble.html", context, request=request).strip()


def _rights(request: HttpRequest, conversation: Conversation) -> dict[str, bool]:
    """What the forms that are shown depend on."""
    return {
        "may_manage": access.can(request.user, access.Role.MANAGER, conversation.client_id),
        "may_steer": access.can(request.user, access.Role.AGENT, conversation.client_id),
        "may_see_receipts": access.sees_receipts(request.user, conversation.client_id),
        "may_correct": conversation.archived_at is None
        and access.can(request.user, access.Role.MANAGER, conversation.client_id),
    }


def _no_store(response: Answer) -> Answer:
    """What people said stays out of caches."""
    response["Cache-Control"] = "no-store"
    return response
