"""The filters, saved views and teams of the inbox.

/admin/inbox/views/                 the user's saved views, as HTML, with their counts
/admin/inbox/views/save/            the filters that are posted, under a name
/admin/inbox/views/<id>/rename/     another name
/admin/inbox/views/<id>/delete/     no view any more
/admin/inbox/available/ ...         whether round robin may give the user conversations (away.py)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, JsonResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from conversations.admin import access, away
from conversations.admin.access import Role
from conversations.admin.channel_names import CHANNEL_NAMES
from conversations.admin.transcript import no_store
from conversations.models import OPEN, Client, DeskState, SavedView, Status
from conversations.services.core import audit_log
from conversations.services.core.errors import DomainError, InvalidError, NotFoundError
from conversations.services.desk import filters, saved_views, teams
from conversations.services.desk.filters import Filters

TEMPLATES = "admin/inbox"
COLLEAGUES = 500  # among whom one filters


def client_ids_of(request: HttpRequest) -> list[UUID]:
    """Return the ids of the clients whose conversations the user may read."""
    if request.user.is_superuser:
        return list(access.clients_of(request.user).values_list("pk", flat=True))
    return access.client_ids_of(request.user)


# --- what the page shows ----------------------------------------------------------------------------------------------
def of_page(request: HttpRequest, client_ids: Sequence[UUID], choice: Filters) -> dict[str, Any]:
    """Return what the page shows beside its list: the choices of the filters, the views, the user's availability."""
    user_id = int(request.user.pk or 0)
    parameters = choice.parameters() | ({"client": str(choice.client_id)} if choice.client_id else {})
    clients = Client.objects.filter(pk__in=client_ids).order_by("name").values_list("pk", "name")
    return {
        "parameters": parameters,
        "selects": _selects(client_ids, list(clients), parameters),
        "query": choice.words,
        "available": teams.availability(user_id),
        **_views(request, saved_views.views_of(client_ids, user_id), {}, is_of_several=len(client_ids) > 1),
        "view_id": request.GET.get("view", ""),
    }


def _selects(
    client_ids: Sequence[UUID], clients: Sequence[tuple[UUID, str]], parameters: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the selects of the filters: name, label, what they offer, and what is chosen."""
    statuses = [(each.value, each.label, "open" if each in OPEN else "ended") for each in Status]
    found: list[tuple[str, str, str, list[Any]]] = [
        ("client", _("Client"), _("All clients"), list(clients) if len(clients) > 1 else []),
        ("channel", _("Channel"), _("All channels"), [(key, each.name) for key, each in CHANNEL_NAMES.items()]),
        ("status", _("Status"), _("Any status"), statuses),
        ("team", _("Team"), _("All teams"), teams.names(client_ids)),
        (
            "priority",
            _("Priority"),
            _("Any priority"),
            [(value, _(str(label))) for value, label in DeskState.Priority.choices],
        ),
        ("assigned", _("Assigned to"), _("Anybody or nobody"), _people(client_ids)),
    ]
    return [
        {
            "name": name,
            "label": label,
            "none": none,
            "options": [(str(value), text, "".join(more)) for value, text, *more in options],
            "chosen": parameters.get(name, ""),
        }
        for name, label, none, options in found
        if options
    ]


def _people(client_ids: Sequence[UUID]) -> list[tuple[str, str]]:
    known = [("me", _("Me")), ("nobody", _("Nobody"))]
    return known + [(str(pk), name) for pk, name in teams.staff_of(client_ids, COLLEAGUES)]


def _views(
    request: HttpRequest, found: Sequence[SavedView], counts: dict[int, int], *, is_of_several: bool
) -> dict[str, Any]:
    """Return the views, each with its address, its parameters, and whether the user may change it.

    is_of_several: the user sees several clients
    """
    user: Any = request.user
    shown = []
    for view in found:
        parameters = {**view.filters, **({"client": str(view.client_id)} if is_of_several else {})}
        count = counts.get(view.pk, 0)
        most = saved_views.MOST_COUNTED
        shown.append(
            {
                "view": view,
                "parameters": parameters,
                "address": urlencode({**parameters, "view": view.pk}),
                "may_change": _may_change(user, view),
                "count": f"{most - 1}+" if count >= most else count or "",
            }
        )
    return {
        "views": shown,
        "shares_views": access.can_somewhere(user, Role.MANAGER),
        "names_view_clients": is_of_several,
    }


def assignable(colleagues: Sequence[tuple[int, str]], client_id: UUID, state: DeskState | None) -> dict[str, Any]:
    """Return who can be responsible: colleagues, teams, and members within a team; and the value that is chosen."""
    groups = [
        (
            each.name,
            [(f"0/{each.id}", each.name), *[(f"{pk}/{each.id}", f"{name} · {each.name}") for pk, name in each.members]],
        )
        for each in teams.choices(client_id)
    ]
    chosen, offered = _chosen(state), {str(pk) for pk, _name in colleagues}
    offered |= {value for _group, options in groups for value, _name in options} | {"0"}
    names = [str(each) for each in (state.assignee, state.team) if each] if state else []
    return {
        "colleagues": [(str(pk), name) for pk, name in colleagues],
        "teams": groups,
        "chosen": chosen,
        "chosen_name": "" if chosen in offered else " · ".join(names),
    }


def _chosen(state: DeskState | None) -> str:
    if state is None:
        return "0"
    user = str(state.assignee_id or 0)
    return f"{user}/{state.team_id}" if state.team_id else user


# --- views ------------------------------------------------------------------------------------------------------------
def views(request: HttpRequest) -> JsonResponse:
    """Return the saved views as HTML, with the number of conversations in each."""
    return _answer(request, "")


def save(request: HttpRequest) -> JsonResponse:
    """Save the posted filters under the posted name: for the user, or for all staff of the client (managers)."""
    return _done(request, _save)


def rename(request: HttpRequest, view_id: int) -> JsonResponse:
    """Give a view another name."""

    def run(request: HttpRequest) -> str:
        view = _changeable(request, view_id)
        before = view.name
        saved_views.rename(view, request.POST.get("name", ""))
        _record(request, "changed", view, {"name": (before, view.name)})
        return _("The view is called %(name)s.") % {"name": view.name}

    return _done(request, run)


def delete(request: HttpRequest, view_id: int) -> JsonResponse:
    """Delete a view."""

    def run(request: HttpRequest) -> str:
        view = _changeable(request, view_id)
        _record(request, "deleted", view)
        saved_views.delete(view)
        return _("The view %(name)s is deleted.") % {"name": view.name}

    return _done(request, run)


def _save(request: HttpRequest) -> str:
    choice = filters.read(request.POST.dict(), strict=True)
    user: Any = request.user
    client = _client_of(request, choice)
    is_shared = request.POST.get("shared") == "yes"
    if is_shared and not access.can(user, Role.MANAGER, client):
        raise InvalidError(_("Only managers share views."), code="not_yours")
    view = saved_views.save(client, None if is_shared else int(user.pk), request.POST.get("name", ""), choice)
    _record(request, "added", view)
    return _("The view %(name)s is saved.") % {"name": view.name}


def _client_of(request: HttpRequest, choice: Filters) -> Client:
    """Return the client that the filters name, or the only one of the user."""
    clients = access.clients_of(request.user)
    if choice.client_id:
        found = clients.filter(pk=choice.client_id).first()
        if found is None:
            raise NotFoundError(_("There is no such client."))
        return found
    first, *others = [*clients[:2], None]
    if first is None or others != [None]:
        raise InvalidError(_("Choose the client whose conversations the view shows."), code="no_client")
    return first


def _changeable(request: HttpRequest, view_id: int) -> SavedView:
    """Return the view, if the user may change it. Raises Http404 for what the user does not see."""
    user: Any = request.user
    client_ids = client_ids_of(request)
    view = next((each for each in saved_views.views_of(client_ids, int(user.pk)) if each.pk == view_id), None)
    if view is None:
        raise Http404
    if not _may_change(user, view):
        raise InvalidError(_("Only managers change shared views."), code="not_yours")
    return view


def _may_change(user: Any, view: SavedView) -> bool:
    return view.owner_id == user.pk or (view.is_shared and access.can(user, Role.MANAGER, view.client_id))


def _record(request: HttpRequest, verb: str, view: SavedView, changes: Any = None) -> None:
    """Record what is done to a shared view in the audit log."""
    if view.is_shared:
        user: Any = request.user
        audit_log.record(user, verb, view, view.client_id, changes)


def _done(request: HttpRequest, run: Callable[[HttpRequest], str]) -> JsonResponse:
    try:
        said = run(request)
    except NotFoundError as error:
        return no_store(JsonResponse({"said": str(error)}, status=404))
    except DomainError as error:
        return no_store(JsonResponse({"said": str(error)}, status=409))
    return _answer(request, said)


def _answer(request: HttpRequest, said: str) -> JsonResponse:
    user_id = int(request.user.pk or 0)
    client_ids = client_ids_of(request)
    found = saved_views.views_of(client_ids, user_id)
    context = _views(request, found, saved_views.counts(found, user_id), is_of_several=len(client_ids) > 1)
    html = render_to_string(f"{TEMPLATES}/_views.html", context, request=request)
    managed = render_to_string(f"{TEMPLATES}/_managed_views.html", context, request=request)
    return no_store(JsonResponse({"said": said, "html": html, "managed": managed}))


def routes() -> list[tuple[str, Callable[..., Any], str, Any]]:
    """Return the addresses: path, view, name, and what restricts their method."""
    return [
        ("views/", views, "views", require_GET),
        ("views/save/", save, "save-view", require_POST),
        ("views/<int:view_id>/rename/", rename, "rename-view", require_POST),
        ("views/<int:view_id>/delete/", delete, "delete-view", require_POST),
        *away.routes(),
    ]
