"""Who may see and do what: a role in each client, by Membership. Django's permissions per table play no part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from conversations.models import Client, Membership

Role = Membership.Role

SUPERUSER = "superuser"  # above every role: no membership gives it

RANKS: Mapping[str, int] = {Role.VIEWER: 1, Role.AGENT: 2, Role.MANAGER: 3, SUPERUSER: 4}


def clients_of(user: Any, role: str = Role.VIEWER) -> QuerySet[Client]:
    """The clients in which the user has the role or a higher one; all for a superuser."""
    if user.is_superuser and user.is_active:
        return Client.objects.all()
    return Client.objects.filter(pk__in=client_ids_of(user, role))


def client_ids_of(user: Any, role: str = Role.VIEWER) -> list[UUID]:
    """The ids of the clients in which someone who is no superuser has the role or a higher one."""
    return [client_id for client_id, has in _roles_of(user).items() if RANKS[has] >= RANKS[role]]


def role_in(user: Any, client: Client | UUID) -> str | None:
    """The user's role in the client, None where there is none. A superuser is everybody's manager."""
    if user.is_superuser and user.is_active:
        return Role.MANAGER
    return _roles_of(user).get(client.pk if isinstance(client, Client) else client)


def can(user: Any, role: str, client: Client | UUID) -> bool:
    """Whether the user may do in the client what the role may: viewer < agent < manager."""
    has = role_in(user, client)
    return has is not None and RANKS[has] >= RANKS[role]


def can_somewhere(user: Any, role: str) -> bool:
    """Whether there is a client in which the user may do what the role may."""
    return bool(user.is_active and (user.is_superuser or client_ids_of(user, role)))


def sees_receipts(user: Any, client: Client | UUID) -> bool:
    """Whether the user may see what the model was given, system prompt and all: managers, and those whose membership
    says so."""
    if can(user, Role.MANAGER, client):
        return True
    _roles_of(user)
    return (client.pk if isinstance(client, Client) else client) in getattr(user, "_sees_receipts_of", ())


def _roles_of(user: Any) -> Mapping[UUID, str]:
    """Client to role, read once for each user object: a request has one of its own."""
    if not (user.is_active and user.is_authenticated):
        return {}
    roles: Mapping[UUID, str] | None = getattr(user, "_roles_by_client", None)
    if roles is None:
        found = list(Membership.objects.filter(user=user).values_list("client_id", "role", "sees_receipts"))
        roles = {client_id: role for client_id, role, _ in found}
        user._roles_by_client = roles
        user._sees_receipts_of = {client_id for client_id, _, sees in found if sees}
    return roles
