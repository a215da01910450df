"""Teams of a client, and which of its staff are available for round robin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from conversations.models import Client, DeskState, Membership, Team, TeamMember
from conversations.services.core.sql import rows

MOST_TEAMS = 200  # of a client, in the choices of a screen
MOST_MEMBERS = 500  # of all teams of a client, in the choices of a screen


@dataclass(frozen=True, slots=True)
class TeamChoice:
    """A team to which a conversation can be assigned, and its members who may answer: ids and user names."""

    id: int
    name: str
    members: list[tuple[int, str]]


# Those who may answer, as states.colleagues has them.
_CHOICES = """
    SELECT t.id, t.name, w.user_id, w.username FROM desk_teams t
    LEFT JOIN LATERAL (
        SELECT u.id AS user_id, u.username FROM desk_team_members m
        JOIN memberships b ON b.client_id = m.client_id AND b.id = m.membership_id AND b.role IN ('agent', 'manager')
        JOIN auth_user u ON u.id = b.user_id AND u.is_active AND u.is_staff
        WHERE m.client_id = t.client_id AND m.team_id = t.id) w ON true
    WHERE t.client_id = $1 ORDER BY t.name, t.id, w.username LIMIT $2"""


def choices(client_id: UUID) -> list[TeamChoice]:
    """Return the client's teams with their members, by name. One statement."""
    found: dict[int, TeamChoice] = {}
    for team_id, name, user_id, user_name in rows(_CHOICES, client_id, MOST_MEMBERS):
        team = found.setdefault(team_id, TeamChoice(team_id, name, []))
        if user_id:
            team.members.append((user_id, user_name))
    return list(found.values())


def names(client_ids: Sequence[UUID]) -> list[tuple[int, str]]:
    """Return the ids and names of the clients' teams, by name."""
    return list(Team.objects.filter(client__in=client_ids).order_by("name").values_list("pk", "name")[:MOST_TEAMS])


def delete(team: Team) -> None:
    """Delete the team. Its conversations stay with whoever is responsible for them."""
    with transaction.atomic():
        locked = Team.objects.select_for_update().get(client=team.client_id, pk=team.pk)  # nothing is assigned to it
        DeskState.objects.filter(client=team.client_id, team=team.pk).update(team=None)
        locked.delete()


# --- who is available -------------------------------------------------------------------------------------------------
def availability(user_id: int) -> bool | None:
    """Return whether round robin may give conversations to the user; None for a member of no team."""
    found = TeamMember.objects.filter(membership__user=user_id).values_list("membership__is_available", flat=True)
    available = list(found)
    return any(available) if available else None


def set_available(user_id: int, is_available: bool) -> None:
    """Note in all memberships of the user whether round robin may give them conversations."""
    Membership.objects.filter(user=user_id).exclude(is_available=is_available).update(is_available=is_available)


def is_member(client: Client | UUID, team_id: int, user_id: int) -> bool:
    """Return whether the user is a member of the client's team."""
    return TeamMember.objects.filter(client=client, team=team_id, membership__user=user_id).exists()


def staff_of(client_ids: Sequence[UUID], most: int) -> list[tuple[int, str]]:
    """Return the ids and user names of those who may answer in any of the clients, by name."""
    found = Membership.objects.filter(client__in=client_ids, role__in=("agent", "manager"))
    users = found.filter(user__is_active=True, user__is_staff=True).order_by("user__username")
    return list(users.values_list("user", "user__username").distinct()[:most])
