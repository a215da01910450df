"""Which user may see and do what.

A user has one role in each client, given by a Membership. Django's permissions per table are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest

from conversations.models import Client, Membership
from conversations.services.core.ledger import Actor, Kind

Role = Membership.Role

SUPERUSER = "superuser"  # above every role: no membership gives it

RANKS: Mapping[str, int] = {Role.VIEWER: 1, Role.AGENT: 2, Role.MANAGER: 3, SUPERUSER: 4}


def clients_of(user: Any, role: str = Role.VIEWER) -> QuerySet[Client]:
    """Return the clients in which the user has the role or a higher one. A superuser has every client."""
    if user.is_superuser and user.is_active:
        return Client.objects.all()
    return Client.objects.filter(pk__in=client_ids_of(user, role))


def client_ids_of(user: Any, role: str = Role.VIEWER) -> list[UUID]:
    """Return the ids of the clients in which the user's memberships give the role or a higher one.

    Superusers need no membership: use `clients_of` where the user may be one.
    """
    return [client_id for client_id, has in _roles_of(user).items() if RANKS[has] >= RANKS[role]]


def only_client_of(user: Any) -> UUID | None:
    """Return the id of the only client that the user sees, or None if there are several, or the user is a superuser.

    A sub-select that names it as a value is answered by the client's server; a cluster asks every server otherwise.
    """
    found = [] if user.is_superuser else client_ids_of(user)
    return found[0] if len(found) == 1 else None


def role_in(user: Any, client: Client | UUID) -> str | None:
    """Return the user's role in the client, or None. A superuser is a manager in every client."""
    if user.is_superuser and user.is_active:
        return Role.MANAGER
    return _roles_of(user).get(client.pk if isinstance(client, Client) else client)


def can(user: Any, role: str, client: Client | UUID) -> bool:
    """Return whether the user has the role or a higher one in the client. The order is viewer, agent, manager."""
    has = role_in(user, client)
    return has is not None and RANKS[has] >= RANKS[role]


def can_somewhere(user: Any, role: str) -> bool:
    """Return whether the user has the role or a higher one in at least one client."""
    return bool(user.is_active and (user.is_superuser or client_ids_of(user, role)))


def can_see_prompts(user: Any, client: Client | UUID) -> bool:
    """Return whether the user may see what the model was given, the system prompt included.

    Managers may. Others may if their membership says so (`sees_receipts`).
    """
    if can(user, Role.MANAGER, client):
        return True
    _roles_of(user)
    return (client.pk if isinstance(client, Client) else client) in getattr(user, "_sees_prompts_of", ())


def actor_of(request: HttpRequest) -> Actor:
    """Return the signed-in user as the ledger names them."""
    user: Any = request.user
    return Actor(Kind.STAFF, user.get_username(), user.pk)


def _roles_of(user: Any) -> Mapping[UUID, str]:
    """Return the user's role by client id. One query per user object, and each request has its own."""
    if not (user.is_active and user.is_authenticated):
        return {}
    roles: Mapping[UUID, str] | None = getattr(user, "_roles_by_client", None)
    if roles is None:
        found = list(Membership.objects.filter(user=user).values_list("client_id", "role", "sees_receipts"))
        roles = {client_id: role for client_id, role, _ in found}
        user._roles_by_client = roles
        user._sees_prompts_of = {client_id for client_id, _, sees in found if sees}
    return roles
