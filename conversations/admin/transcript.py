"""The page of one conversation: its transcript, the panel beside it, and the forms of the actions of staff."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST

from conversations.admin import access, transcript_panel, transcript_view
from conversations.admin.base import Breadcrumb
from conversations.admin.channel_names import name_of
from conversations.admin.conversation_actions import ACTIONS, may_run, offered_actions, run_action
from conversations.admin.form_fields import whole_number
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import Bubble, Page
from conversations.http.downloads import Download
from conversations.models import Conversation, Rating
from conversations.services.core import files, proposals
from conversations.services.core.errors import DomainError, NotFoundError
from conversations.services.export.sessions import record_exported
from conversations.services.export.transcripts import FORMATS
from conversations.services.media import shown

TEMPLATES = "admin/transcript"
SECTIONS = ("head", "requests", "takeover", "reply", "steps", "calls", "close", "hold", "timeline", "turns")
RELATED = ("contact", "client", "assistant", "channel_account", "taken_over_by", "device")  # what a transcript reads

Response = TypeVar("Response", bound=HttpResponse)


class TranscriptPages(LongListAdmin):
    """The page of a conversation. It polls every two seconds and receives an answer only if something changed."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page's addresses before Django's, whose last pattern matches everything."""
        wrap = self.admin_site.admin_view
        own = [
            path("<uuid:pk>/older/", wrap(require_GET(self.older)), name="conversations_conversation_older"),
            path("<uuid:pk>/news/", wrap(require_GET(self.news)), name="conversations_conversation_news"),
            path(
                "<uuid:pk>/export/<slug:form>/",
                wrap(require_POST(self.export)),
                name="conversations_conversation_export",
            ),
            path(
                "<uuid:pk>/files/<uuid:attachment_id>/",
                wrap(require_GET(self.file)),
                name="conversations_conversation_file",
            ),
            path("<uuid:pk>/do/<slug:action>/", wrap(require_POST(self.do)), name="conversations_conversation_do"),
        ]
        return [*own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the page. With `?at=` it shows the message at that position. Nothing can be posted to it."""
        if request.method != "GET":
            raise PermissionDenied
        try:
            conversation = self._conversations(request).filter(pk=UUID(object_id)).first()
        except ValueError:
            conversation = None
        if conversation is None:
            return self.row_not_found(request, object_id)
        at = whole_number(request.GET.get("at", ""))
        return TemplateResponse(
            request,
            f"{TEMPLATES}/transcript.html",
            {
                **self.admin_site.each_context(request),
                **context_of(request, conversation),
                **(extra_context or {}),
                "opts": self.opts,
                "title": transcript_view.title_of(conversation),
                "object": Breadcrumb(conversation, transcript_view.title_of(conversation)),
                "messages_page": transcript_view.around(conversation, at),
                "at": at,
            },
        )

    def older(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        """Return the messages before the position `?before=` as HTML."""
        conversation = self._conversation(request, pk)
        page = transcript_view.before(conversation, whole_number(request.GET.get("before", "")))
        return no_store(JsonResponse(_rendered(request, conversation, page) | {"more": page.has_older}))

    def news(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the messages after the position `?after=` and the sections beside them as HTML.

        The answer is 204 if it would be the one that `?seen=` names.
        """
        conversation = self._conversation(request, pk)
        sections = {name: f"{TEMPLATES}/_{name}.html" for name in SECTIONS}
        return news_of(request, conversation, sections, context_of(request, conversation))

    def file(self, request: HttpRequest, pk: UUID, attachment_id: UUID) -> HttpResponse:
        """Send the colleague on to a link that runs out; with `?small=1` to that of the thumbnail."""
        conversation = self._conversation(request, pk)
        row = shown.find(conversation.client_id, attachment_id)
        if row is None or row.conversation_id != conversation.pk:
            raise Http404
        small = bool(row.thumbnail) and request.GET.get("small") == "1"
        path = urlsplit(files.link_to(row.client_id, row.pk, small=small)).path
        return no_store(HttpResponseRedirect(path))  # on the host on which the colleague is

    def do(self, request: HttpRequest, pk: UUID, action: str) -> JsonResponse:
        """Run an action of the registry and return a sentence: what is true now, or why it was refused.

        If the form names a message by its `position`, the answer contains the message as it is now.
        """
        conversation = self._conversation(request, pk)
        known = ACTIONS.get(action)
        if known is None or known.run is None:
            raise Http404
        if not may_run(known, request.user, conversation):
            only_managers = known.role == access.Role.MANAGER
            said = gettext("Only managers may do that.") if only_managers else gettext("Only agents may do that.")
            return no_store(JsonResponse({"said": said}, status=403))
        try:
            sentence = run_action(known, request, conversation)
        except NotFoundError as error:
            return no_store(JsonResponse({"said": str(error)}, status=404))
        except DomainError as error:
            return no_store(JsonResponse({"said": str(error)}, status=409))
        page = transcript_view.at(conversation, whole_number(request.POST.get("position", "")))
        return no_store(JsonResponse({"said": sentence} | _rendered(request, conversation, page)))

    def export(self, request: HttpRequest, pk: UUID, form: str) -> HttpResponseBase:
        """Return the transcript as a file, or as a page to print, and record that it was exported."""
        conversation = self._conversation(request, pk)
        if form not in FORMATS:
            raise Http404
        if not may_run(ACTIONS["export"], request.user, conversation):
            raise PermissionDenied
        record_exported({conversation.pk: conversation.client_id}, actor=access.actor_of(request), cause=form)
        return Download(**FORMATS[form].file_of(conversation))

    def _conversations(self, request: HttpRequest) -> QuerySet[Conversation]:
        return self.to_look_up(request).select_related(*RELATED)

    def _conversation(self, request: HttpRequest, pk: UUID) -> Conversation:
        conversation = self._conversations(request).filter(pk=pk).first()
        if conversation is None:
            raise Http404
        return conversation


def news_of(
    request: HttpRequest, conversation: Conversation, sections: Mapping[str, str], context: Mapping[str, Any]
) -> HttpResponse:
    """Return the messages after the position `?after=` and the sections beside them as HTML.

    sections: the template of each section of the page, by name
    context: the values of these templates

    The answer is 204 if it would be the one that `?seen=` names.
    """
    page = transcript_view.since(conversation, whole_number(request.GET.get("after", "")))
    body = _rendered(request, conversation, page) | {
        "behind": page.last < conversation.last_position,
        "sections": {
            name: render_to_string(template, {**context}, request=request) for name, template in sections.items()
        },
    }
    seen = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if request.GET.get("seen") == seen:
        return no_store(HttpResponse(status=204))
    return no_store(JsonResponse(body | {"seen": seen}))


def context_of(request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
    """Return the template values of a transcript and what stands beside it."""
    shown = {"rating": _rating_of(conversation), "waiting_proposal": _waiting_proposal(conversation)}
    return {**_offered(request, conversation), **transcript_panel.side_panel(conversation), **shown}


def _waiting_proposal(conversation: Conversation) -> str:
    """Return the proposal that waits for a colleague and answers the newest message, as plain text; '' for none."""
    if not (conversation.is_open and conversation.assistant and conversation.assistant.proposes):
        return ""
    found = proposals.open_proposal(conversation)
    return transcript_view.plain_text(found.text) if found and proposals.is_current(conversation, found) else ""


def _rating_of(conversation: Conversation) -> Rating | None:
    """Return the question about satisfaction, which is asked in ended conversations; None where it was not."""
    if conversation.is_open:
        return None
    return Rating.objects.filter(client=conversation.client_id, conversation=conversation).first()


def _offered(request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
    """Return what a message's template needs beside the message."""
    return {
        "conversation": conversation,
        "channel": name_of(conversation.channel),
        "actions": offered_actions(request.user, conversation),
        "has_templates": transcript_view.has_templates(conversation),
        "can_see_prompts": access.can_see_prompts(request.user, conversation.client_id),
    }


def _rendered(request: HttpRequest, conversation: Conversation, page: Page) -> dict[str, Any]:
    offered = _offered(request, conversation)

    def html(bubble: Bubble) -> str:
        context = {"bubble": bubble, **offered}
        return render_to_string(f"{TEMPLATES}/_bubble.html", context, request=request).strip()

    return {"bubbles": [(bubble.chunk.position, html(bubble)) for bubble in page.bubbles]}


def no_store(response: Response) -> Response:
    """Return the response with a header that keeps it out of caches."""
    response["Cache-Control"] = "no-store"
    return response
