"""Going away: what becomes of the conversations that wait for a colleague, in the inbox and on managers' pages.

/admin/inbox/available/             whether round robin may give the user conversations
/admin/inbox/available/give-back/   what waits for the user goes back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from conversations.admin.access import actor_of
from conversations.admin.transcript import no_store
from conversations.models import Membership
from conversations.services.desk import giving_back, teams


# --- in the inbox -----------------------------------------------------------------------------------------------------
def available(request: HttpRequest) -> HttpResponse:
    """Note whether the user is available for round robin; of one who goes away, do what their clients chose."""
    wanted = request.POST.get("available", "")
    if wanted not in ("yes", "no"):
        return no_store(JsonResponse({"said": _("Choose available or away.")}, status=409))
    user_id = int(request.user.pk or 0)
    teams.set_available(user_id, wanted == "yes")
    if wanted == "yes":
        return no_store(HttpResponse(status=204))
    clients = giving_back.clients_of(user_id)
    left = giving_back.leave(clients, user_id, actor=actor_of(request), now=timezone.now())
    if not (left.given or left.asked):
        return no_store(HttpResponse(status=204))
    said = _went_back(left.given) if left.given else ""
    return no_store(JsonResponse({"said": said, "question": _may_go_back(left.asked) if left.asked else ""}))


def give_back(request: HttpRequest) -> HttpResponse:
    """Give back what waits for the user, in the clients that let them choose."""
    user_id = int(request.user.pk or 0)
    clients = giving_back.clients_of(user_id)
    count = giving_back.give_back_asked(clients, user_id, actor=actor_of(request), now=timezone.now())
    return no_store(JsonResponse({"said": _went_back(count), "question": ""}))


def routes() -> list[tuple[str, Callable[..., Any], str, Any]]:
    """Return the addresses in the inbox: path, view, name, and what restricts their method."""
    return [
        ("available/", available, "available", require_POST),
        ("available/give-back/", give_back, "give-back", require_POST),
    ]


# --- on managers' pages -----------------------------------------------------------------------------------------------
def question_of(membership: Membership) -> str:
    """Return what a manager is asked before a colleague's conversations go back."""
    count = giving_back.waiting_for(membership.client_id, membership.user_id)
    return ngettext(
        "%(n)s conversation waits for an answer of %(user)s. It goes back to its team, or to unassigned, and"
        " %(user)s is away.",
        "%(n)s conversations wait for an answer of %(user)s. They go back to their teams, or to unassigned, and"
        " %(user)s is away.",
        count,
    ) % {"n": count, "user": membership.user}


def send_away(request: HttpRequest, membership: Membership) -> str:
    """Let the colleague be away, give back what waits for them, and return the sentence that says how much it was."""
    of = (membership.client_id, membership.user_id)
    return _went_back(giving_back.send_away(*of, actor=actor_of(request), now=timezone.now()))


def note_absent(
    page: Any, request: HttpRequest, user: Any, client_ids: Iterable[UUID], *, can_ask: bool = True
) -> None:
    """Do what each client chose for what waits for a user who may answer no more, and tell whoever did it.

    page: the admin page that shows the sentences
    can_ask: False where the user has no page any more on which it could be done later
    """
    for client_id in client_ids:
        left = giving_back.leave([client_id], user.pk, actor=actor_of(request), now=timezone.now(), can_ask=can_ask)
        if left.given:
            page.message_user(request, _went_back(left.given), messages.SUCCESS)
        membership = Membership.objects.filter(client=client_id, user=user.pk).first() if left.asked else None
        if membership:
            address = reverse("admin:conversations_membership_change", args=[membership.pk])
            page.message_user(
                request,
                format_html('<a href="{}">{}</a>', address, _still_waiting(left.asked, user)),
                messages.WARNING,
            )


# --- sentences --------------------------------------------------------------------------------------------------------
def _went_back(count: int) -> str:
    if not count:
        return _("Nothing waits any more.")
    return ngettext(
        "%(n)s conversation went back to its team, or to unassigned.",
        "%(n)s conversations went back to their teams, or to unassigned.",
        count,
    ) % {"n": count}


def _may_go_back(count: int) -> str:
    return ngettext(
        "%(n)s conversation waits for an answer of yours. Should it go back to its team, or to unassigned?",
        "%(n)s conversations wait for an answer of yours. Should they go back to their teams, or to unassigned?",
        count,
    ) % {"n": count}


def _still_waiting(count: int, user: Any) -> str:
    return ngettext(
        "%(n)s conversation waits for an answer of %(user)s. Give it back on their page.",
        "%(n)s conversations wait for an answer of %(user)s. Give them back on their page.",
        count,
    ) % {"n": count, "user": user}
