"""The inbox: the list of conversations, the open conversation, and the person, side by side.

    /admin/inbox/                    the page; /admin/inbox/<id>/ with a conversation open
    /admin/inbox/list/               a page of the list, as HTML
    /admin/inbox/find/               people, labels and words said, as HTML
    /admin/inbox/live/               news, as a stream (live.py)
    /admin/inbox/<id>/pane/          a conversation and its person, as HTML
    /admin/inbox/<id>/news/          what changed in it
    /admin/inbox/<id>/choices/       what its composer offers: canned replies and colleagues
    /admin/inbox/<id>/draft/         the user's own draft, posted while they write
    /admin/inbox/<id>/preview/       how the channel will show what is posted
    /admin/inbox/<id>/presence/      that the user has it open, posted every few seconds
    /admin/inbox/<id>/seen/          how far the user has seen it, posted while they read
    /admin/inbox/views/ ...          saved views, and whether the user is available (inbox_views.py)

Older messages and actions have the addresses of the transcript page (transcript.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST
from unfold.dataclasses import SearchResult

from conversations.admin import access, inbox_lists, inbox_rows, inbox_views, live, promise_view, transcript_view
from conversations.admin.base import visible_rows
from conversations.admin.channel_names import name_of
from conversations.admin.composing import preview, proposal_of
from conversations.admin.form_fields import whole_number
from conversations.admin.inbox_rows import PRIORITIES, InboxList, ShownRow
from conversations.admin.inbox_views import client_ids_of
from conversations.admin.person import person_of
from conversations.admin.transcript import RELATED, context_of, news_of, no_store
from conversations.http import repeating
from conversations.models import ContactIdentity, Conversation, ConversationLabel, DeskState, Label
from conversations.services.desk import canned, filters, finding, inbox, mail_choices, notes, own, states, tab_counts
from conversations.services.desk.filters import LONGEST_QUERY, Filters
from conversations.services.desk.inbox import Order, Tab
from conversations.services.history import search
from conversations.words import lazy as _
from memory.snippets import Snippet

TEMPLATES = "admin/inbox"
COLLEAGUES = 500  # whom a note can mention
ADDRESSES = 20  # of the person
LABELS = 200  # in the list of labels
EARLIER = 10  # conversations of the person beside the open one
SECTIONS = {
    "title": f"{TEMPLATES}/_title.html",
    "requests": "admin/transcript/_requests.html",
    "holder": f"{TEMPLATES}/_holder.html",
    "proposal": f"{TEMPLATES}/_proposal.html",
    "composer": f"{TEMPLATES}/_composer.html",
    "person": f"{TEMPLATES}/_person.html",
    "desk": f"{TEMPLATES}/_desk.html",
    "notes": f"{TEMPLATES}/_notes.html",
    "steps": "admin/transcript/_steps.html",
}
TAB_NAMES = {
    Tab.MINE: _("Mine"),
    Tab.UNASSIGNED: _("Unassigned"),
    Tab.ALL: _("All"),
    Tab.TEAMS: _("My teams"),
    Tab.MENTIONS: _("Mentions"),
    Tab.SNOOZED: _("Snoozed"),
    Tab.ENDED: _("Ended"),
}
TAB_ICONS = {
    Tab.TEAMS: "groups",
    Tab.MENTIONS: "alternate_email",
    Tab.SNOOZED: "snooze",
    Tab.ENDED: "task_alt",
}  # those shown as icons


def page(request: HttpRequest, pk: UUID | None = None) -> HttpResponse:
    """Return the inbox, with the conversation open if one is named."""
    choice = filters.read(request.GET)
    context = {
        **admin.site.each_context(request),
        **_list(request, choice, pk),
        "title": gettext("Inbox"),
        "open_id": pk,
        **inbox_views.of_page(request, client_ids_of(request), choice),
        "labels": Label.objects.filter(client__in=client_ids_of(request)).order_by("name")[:LABELS],
    }
    if pk:
        context |= _pane(request, _conversation(request, pk))
    return no_store(TemplateResponse(request, f"{TEMPLATES}/inbox.html", context))


def rows(request: HttpRequest) -> HttpResponse:
    """Return a page of the list: `html`, `next` (a cursor) and the counts of the tabs."""
    return no_store(repeating.answer(request, inbox_lists.viewer_of(request), inbox_lists.bodies))


def find(request: HttpRequest) -> JsonResponse:
    """Return the people, labels and conversations that match `?q=`, as HTML."""
    client_ids, query = client_ids_of(request), request.GET.get("q", "")[:LONGEST_QUERY]
    found = finding.find(client_ids, query)
    of_people = [each.conversation_id for each in found.people if each.conversation_id]
    rows_of = inbox.rows_of(client_ids, _user_id(request), [*of_people, *found.conversations])
    in_list = InboxList(Tab.ALL, Order.NEWEST, names_clients=len(client_ids) > 1)
    shown = {each.row.id: each for each in inbox_rows.shown(rows_of, _user_id(request), in_list)}
    context = {
        "people": [(each, each.conversation_id and shown.get(each.conversation_id)) for each in found.people],
        "found_labels": found.labels,
        "said": _with_snippets([shown[pk] for pk in found.conversations if pk in shown], query),
        "left_out": found.left_out,
        "query": query.strip(),
    }
    html = render_to_string(f"{TEMPLATES}/_found.html", context, request=request)
    return no_store(JsonResponse({"html": html}))


def search_everywhere(request: HttpRequest, query: str) -> list[SearchResult]:
    """Return the people whom Ctrl+K finds, for unfold's own search."""
    results = []
    for person in finding.people(client_ids_of(request), query):
        name = transcript_view.plain_text(person.name or person.phone or person.user_id)
        if person.conversation_id:
            link = reverse("inbox:open", args=[person.conversation_id])
        else:
            link = reverse("admin:conversations_contact_change", args=[person.contact_id])
        results.append(SearchResult(name, transcript_view.plain_text(person.phone or person.user_id), link, "person"))
    return results


def _with_snippets(shown: list[ShownRow], query: str) -> list[ShownRow]:
    """Return the rows, each with the part of a message in which the words are."""
    conversations = Conversation.objects.filter(
        client__in={each.row.client_id for each in shown}, pk__in=[each.row.id for each in shown]
    )
    snippets = search.snippets_of(conversations, query)
    return [
        replace(each, at=snippet.position, snippet=_parts(snippet)) if (snippet := snippets.get(each.row.id)) else each
        for each in shown
    ]


def _parts(snippet: Snippet) -> tuple[tuple[str, bool], ...]:
    parts, upto = [], 0
    for start, end in snippet.highlights:
        parts += [(snippet.text[upto:start], False), (snippet.text[start:end], True)]
        upto = end
    parts.append((snippet.text[upto:], False))
    return tuple((transcript_view.plain_text(text), is_found) for text, is_found in parts)


def pane(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Return the conversation and its person as HTML."""
    found = _pane(request, _conversation(request, pk))
    return no_store(HttpResponse(render_to_string(f"{TEMPLATES}/_open.html", found, request=request)))


def news(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Return the messages after `?after=` and the sections beside them, or 204 if they are what `?seen=` names."""
    conversation = _conversation(request, pk)
    return news_of(request, conversation, SECTIONS, _context(request, conversation))


def choices(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Return what the composer offers: `canned` (shortcut and filled text) and `colleagues` (user names)."""
    conversation = _conversation(request, pk)
    agent = request.user.get_full_name() or request.user.get_username()  # type: ignore[union-attr]
    canned_replies = canned.replies_for(conversation, agent)
    names = states.colleagues(conversation.client_id).values_list("username", flat=True)[:COLLEAGUES]
    return no_store(JsonResponse({"canned": canned_replies, "colleagues": list(names)}))


def draft(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Keep the user's own draft. Raises PermissionDenied for those who may not reply."""
    conversation = _conversation(request, pk)
    if not access.can(request.user, access.Role.AGENT, conversation.client_id):
        raise PermissionDenied
    text = request.POST.get("text", "").replace("\x00", "")
    own.save_draft(conversation.client_id, conversation.pk, _user_id(request), text, timezone.now())
    return no_store(HttpResponse(status=204))


def show_preview(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Return how the channel will show the posted text, as HTML."""
    return preview(request, _conversation(request, pk))


def seen(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Note that the user has seen the conversation up to the posted position."""
    conversation = _conversation(request, pk)
    position = whole_number(request.POST.get("position", ""))
    own.note_seen(conversation.client_id, conversation.pk, _user_id(request), position, timezone.now())
    return no_store(HttpResponse(status=204))


def news_stream(request: HttpRequest) -> HttpResponseBase:
    """Return the stream of news of the user's clients. Whoever reads it is in the back office."""
    mail_choices.note_here(_user_id(request), timezone.now())
    return live.stream(request, client_ids_of(request))


def presence(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Note whether the user has the conversation open, and whether they are typing."""
    return live.note_presence(request, _conversation(request, pk))


def urls() -> list[URLPattern]:
    """Return the addresses below `/admin/inbox/`, for staff alone."""

    def route(way: str, view: Callable[..., Any], name: str, method: Any = require_GET) -> URLPattern:
        guarded: Callable[..., HttpResponse] = admin.site.admin_view(method(_for_members(view)))
        return path(way, guarded, name=name)

    return [
        route("", page, "page"),
        route("list/", rows, "list"),
        route("find/", find, "find"),
        route("live/", news_stream, "live"),
        *(route(*each) for each in inbox_views.routes()),
        route("<uuid:pk>/", page, "open"),
        route("<uuid:pk>/pane/", pane, "pane"),
        route("<uuid:pk>/news/", news, "news"),
        route("<uuid:pk>/choices/", choices, "choices"),
        route("<uuid:pk>/draft/", draft, "draft", require_POST),
        route("<uuid:pk>/presence/", presence, "presence", require_POST),
        route("<uuid:pk>/preview/", show_preview, "preview", require_POST),
        route("<uuid:pk>/seen/", seen, "seen", require_POST),
    ]


def _for_members(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view, refused to users without a role in any client."""

    def guarded(request: HttpRequest, **named: Any) -> Any:
        if not access.can_somewhere(request.user, access.Role.VIEWER):
            raise PermissionDenied
        return view(request, **named)

    return guarded


# --- the list ---------------------------------------------------------------------------------------------------------
def _list(request: HttpRequest, choice: Filters, open_id: UUID | None = None) -> dict[str, Any]:
    client_ids = client_ids_of(request)
    user_id = _user_id(request)
    after = request.GET.get("after", "")
    of_choice = inbox_lists.clients_of_choice(client_ids, choice)
    found = inbox.page(of_choice, user_id, choice.tab, choice.order, after, choice.narrowing)
    counts = tab_counts.of_user(tab_counts.counted(client_ids, [user_id]), user_id, client_ids)
    in_list = InboxList(choice.tab, choice.order, names_clients=len(client_ids) > 1)
    return {
        "rows": inbox_rows.shown(found.rows, user_id, in_list, open_id),
        "next": found.next,
        "tab": choice.tab,
        "order": choice.order,
        "label_id": choice.narrowing.label_id,
        "tabs": [(tab, name, TAB_ICONS.get(tab, ""), counts.get(tab, 0)) for tab, name in TAB_NAMES.items()],
        "empty": inbox_lists.EMPTY[choice.tab],
    }


def _user_id(request: HttpRequest) -> int:
    return int(request.user.pk or 0)


# --- the open conversation --------------------------------------------------------------------------------------------
def _conversation(request: HttpRequest, pk: UUID) -> Conversation:
    """Return the conversation, if the user may see it. Raises Http404."""
    found = visible_rows(request, admin.site, Conversation).select_related(*RELATED).filter(pk=pk).first()
    if found is None:
        raise Http404
    conversation: Conversation = found
    return conversation


def _pane(request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
    at = whole_number(request.GET.get("at", ""))
    return {
        **_context(request, conversation),
        "open_id": conversation.pk,
        "at": at,
        "messages_page": transcript_view.around(conversation, at),
    }


def _context(request: HttpRequest, conversation: Conversation) -> dict[str, Any]:
    contact = conversation.contact
    of_contact = Conversation.objects.filter(client=conversation.client_id, contact=contact).exclude(pk=conversation.pk)
    client_id = conversation.client_id
    state = (
        DeskState.objects.filter(client=client_id, conversation=conversation).select_related("assignee", "team").first()
    )
    on_it = ConversationLabel.objects.filter(client=client_id, conversation=conversation).select_related("label")
    return {
        **context_of(request, conversation),
        "state": state,
        "snoozed_until": _snoozed_until(conversation, state),
        **promise_view.beside(conversation, timezone.now()),
        "priorities": [(0, _("Normal")), *PRIORITIES.items()],
        **inbox_views.assignable(_colleagues(request, client_id), client_id, state),
        "on_it": [each.label for each in on_it.order_by("label__name")],
        "known_labels": Label.objects.filter(client=client_id).values_list("name", flat=True)[:LABELS],
        "notes": notes.notes_of(client_id, conversation.pk),
        "draft": own.draft_of(client_id, conversation.pk, _user_id(request)),
        "channel": name_of(conversation.channel),
        "is_mine": conversation.taken_over_by_id == request.user.pk,
        "addresses": [(name_of(each.channel), each.address) for each in _addresses(conversation)],
        "person": person_of(request, contact, conversation),
        "proposal": proposal_of(conversation),
        "earlier": [(each, name_of(each.channel)) for each in of_contact.order_by("-started_at", "id")[:EARLIER]],
    }


def _snoozed_until(conversation: Conversation, state: DeskState | None) -> datetime | None:
    """Return until when the conversation is out of sight, or None."""
    until = state.snoozed_until if state else None
    is_over = until is None or until <= timezone.now() or conversation.inbound_sequence > (state.snoozed_sequence or 0)  # type: ignore[union-attr]
    return None if is_over else until


def _colleagues(request: HttpRequest, client_id: UUID) -> list[tuple[int, str]]:
    """Return the ids and names of those who may be responsible, the user first."""
    others = [(user.pk, user.get_full_name() or user.get_username()) for user in states.colleagues(client_id)]
    return [
        (_user_id(request), gettext("You")),
        *[each for each in others[:COLLEAGUES] if each[0] != _user_id(request)],
    ]


def _addresses(conversation: Conversation) -> QuerySet[ContactIdentity]:
    found = ContactIdentity.objects.filter(client=conversation.client_id, contact=conversation.contact_id)
    return found.order_by("id")[:ADDRESSES]
