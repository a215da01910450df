"""The roles that the groups of an identity provider give."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from conversations.models import Client, Membership
from conversations.services.core import audit_log

log = logging.getLogger(__name__)

_RANKS: Mapping[str, int] = {Membership.Role.VIEWER: 1, Membership.Role.AGENT: 2, Membership.Role.MANAGER: 3}


def roles_of(groups: Collection[str], mapping: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return the role by sub-domain that the groups give; where several give one, the highest.

    mapping: group, sub-domain and role
    """
    found: dict[str, str] = {}
    for group, sub_domain, role in mapping:
        if group in groups and _RANKS[role] > _RANKS.get(found.get(sub_domain, ""), 0):
            found[sub_domain] = role
    return found


def apply_roles(user: Any, provider: str, roles: Mapping[str, str]) -> None:
    """Give the user these roles, and take away the provider's others. Memberships that colleagues gave stay.

    Who has a membership may enter the back office; who has none any more, and no password, may not.

    provider: the name of the identity provider
    roles: role by sub-domain; an unknown sub-domain is logged and gives nothing
    """
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=user.pk)  # two sign-ins at the same time
        clients = {each.sub_domain: each for each in Client.objects.filter(sub_domain__in=roles)}
        for unknown in roles.keys() - clients.keys():
            log.warning("roles of %s name no client %s", provider, unknown)
        before = {each.client_id: each for each in Membership.objects.filter(user=user).select_related("client")}
        for sub_domain, client in clients.items():
            _give(user, provider, client, roles[sub_domain], before.get(client.pk))
        kept = {client.pk for client in clients.values()}
        for membership in before.values():
            if membership.provider == provider and membership.client_id not in kept:
                audit_log.record(user, "lost at sign-in", membership, membership.client_id)
                membership.delete()
        _allow_entry(user)


def has_access(user: Any) -> bool:
    """Return whether the user is a superuser or has a role in any client."""
    return bool(user.is_superuser or Membership.objects.filter(user=user).exists())


def _give(user: Any, provider: str, client: Client, role: str, before: Membership | None) -> None:
    if before is None:
        made = Membership.objects.create(user=user, client=client, role=role, provider=provider)
        audit_log.record(user, "received at sign-in", made, client.pk, {"role": (None, role)})
    elif before.provider == provider and before.role != role:
        changes = {"role": (before.role, role)}
        before.role = role
        before.save(update_fields=["role"])
        audit_log.record(user, "received at sign-in", before, client.pk, changes)


def _allow_entry(user: Any) -> None:
    may_enter = has_access(user)
    if may_enter != user.is_staff and (may_enter or not user.has_usable_password()):
        user.is_staff = may_enter
        user.save(update_fields=["is_staff"])
