"""Giving back: conversations that wait for the answer of a colleague who goes away, or may answer no more, go back to
their team or to unassigned, where round robin or another colleague takes them.

    away, and the client says: keep ──► nothing; ask ──► the colleague (or a manager) decides; give_back ──► at once

What waits for nobody's answer stays with the colleague. A conversation that they took over waits on without them: the
assistant stays silent, and the wait goes on from when it began, so that nobody is told of it twice. Each conversation
is one transaction that looks again under the lock; what is no longer theirs, or no longer waits, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from conversations.models import Client, Conversation, DeskState, Membership, WhenAway
from conversations.services.core.cluster import for_each_with
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.core.locking import editing_if_there
from conversations.services.core.sql import column, row
from conversations.services.desk import inbox, round_robin, states
from conversations.services.tenants.promises import WAITS_SINCE
from conversations.services.transitions import takeover

AT_ONCE = 500  # conversations of a client

_THEIRS = f"""
    FROM conversations s LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
    WHERE s.client_id = $1 AND s.status IN ('active', 'stale') AND {inbox.WAITS} AND {inbox.IS_MINE}"""
_COUNT = f"SELECT count(*) {_THEIRS}"
_WAITING = f"SELECT s.id {_THEIRS} ORDER BY {WAITS_SINCE}, s.id LIMIT {AT_ONCE}"
# Of client $1, whoever is waited for and may answer no more: let in no more, or no agent or manager any more.
_ABSENT = f"""
    SELECT DISTINCT u.id
    FROM conversations s LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
    JOIN auth_user u ON u.id = COALESCE(s.taken_over_by_id, CASE WHEN s.taken_over_name = '' THEN d.assignee_id END)
    WHERE s.client_id = $1 AND s.status IN ('active', 'stale') AND {inbox.WAITS}
      AND NOT (u.is_active AND u.is_staff AND (u.is_superuser OR EXISTS (
        SELECT FROM memberships b
        WHERE b.client_id = $1 AND b.user_id = u.id AND b.role IN ('agent', 'manager'))))"""
_GIVING_BACK = f"SELECT id FROM clients WHERE is_active AND when_away = '{WhenAway.GIVE_BACK}'"


@dataclass(frozen=True, slots=True)
class Left:
    """The number of conversations that went back when a colleague went away, and the number that one is asked about."""

    given: int
    asked: int


def clients_of(user_id: int) -> list[UUID]:
    """Return the ids of the clients in which the user has a role."""
    return list(Membership.objects.filter(user=user_id).values_list("client", flat=True))


def waiting_for(client_id: UUID, user_id: int) -> int:
    """Return how many of the client's conversations wait for an answer of the user's."""
    found = row(_COUNT, client_id, user_id)
    return int(found[0]) if found else 0


def leave(client_ids: Iterable[UUID], user_id: int, *, actor: Actor, now: datetime, can_ask: bool = True) -> Left:
    """Do what each of the clients chose for the conversations of a colleague who went away or may answer no more.

    can_ask: False where nobody can be asked later; then they go back where the client would have somebody asked
    """
    given = asked = 0
    chosen = Client.objects.filter(pk__in=list(client_ids)).exclude(when_away=WhenAway.KEEP)
    for client in chosen.order_by("pk"):
        if client.when_away == WhenAway.ASK and can_ask:
            asked += waiting_for(client.pk, user_id)
        else:
            given += give_back(client.pk, user_id, actor=actor, now=now)
    return Left(given, asked)


def give_back_asked(client_ids: Iterable[UUID], user_id: int, *, actor: Actor, now: datetime) -> int:
    """Give back what waits for the user in those of the clients that let one choose, and return how much it was."""
    chosen = Client.objects.filter(pk__in=list(client_ids), when_away=WhenAway.ASK).order_by("pk")
    return sum(give_back(each.pk, user_id, actor=actor, now=now) for each in chosen)


def send_away(client_id: UUID, user_id: int, *, actor: Actor, now: datetime) -> int:
    """Let a colleague be away at the client and give back what waits for them there; return how much it was."""
    Membership.objects.filter(client=client_id, user=user_id, is_available=True).update(is_available=False)
    return give_back(client_id, user_id, actor=actor, now=now)


def give_back_of_absent() -> int:
    """Give back what waits for users who may answer no more, at clients that chose so; return how much it was."""
    return sum(for_each_with(_GIVING_BACK, (), _give_back_of_absent))


def give_back(client_id: UUID, user_id: int, *, actor: Actor, now: datetime) -> int:
    """Give back all that waits for an answer of the user's at the client, and return how many conversations it was.

    Call it after it is committed that the user is away: what is being handed out to them meanwhile is waited for.
    """
    round_robin.wait_for_hand_outs(client_id)
    waiting: Sequence[UUID] = column(_WAITING, client_id, user_id)
    return sum(_give_back(client_id, pk, user_id, actor, now) for pk in waiting)


def _give_back_of_absent(client_id: UUID) -> int:
    now = timezone.now()
    absent = column(_ABSENT, client_id)
    return sum(give_back(client_id, user_id, actor=SYSTEM, now=now) for user_id in absent)


def _give_back(client_id: UUID, conversation_id: UUID, user_id: int, actor: Actor, now: datetime) -> bool:
    """Give the conversation back, if it still waits for the user, and return whether it did."""
    with transaction.atomic(), editing_if_there(conversation_id, client_id) as conversation:
        if conversation is None or not (conversation.is_open and conversation.waits_for_staff_since):
            return False
        state = DeskState.objects.select_related("team").filter(client=client_id, conversation=conversation).first()
        is_assigned = state is not None and state.assignee_id == user_id
        if not _is_theirs(conversation, user_id, is_assigned=is_assigned):
            return False
        if conversation.taken_over_by_id == user_id:
            takeover.leave_to_anybody(conversation, actor, now)
        if state and is_assigned:
            states.put(conversation, None, "", state.team, actor)
    return True


def _is_theirs(conversation: Conversation, user_id: int, *, is_assigned: bool) -> bool:
    """Return whether the user has the conversation, or is responsible for it and nobody has it."""
    return conversation.taken_over_by_id == user_id or (is_assigned and not conversation.taken_over_name)
