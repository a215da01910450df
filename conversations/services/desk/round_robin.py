"""Round robin: conversations that need a person go to a team, and there to available members in turn.

    needs a person, nobody has it ──► the client's default team ──► the member who was given one longest ago,
                                                                    of those who are available and below their limit

The rows say what is to be done: what *Unassigned* shows, and what of it a team hands out. So it is harmless to repeat,
and what nobody can take is looked at again. Each conversation is one transaction. It locks the client's teams first, so
that one conversation of a client is handed out at a time, and whoever counts what a member has sees what was given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from uuid import UUID

from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.models import Q

from conversations.models import Conversation, DeskState, Team, TeamMember
from conversations.services.core.cluster import for_each_with
from conversations.services.core.ledger import Actor, Kind
from conversations.services.core.sql import row, rows
from conversations.services.desk import inbox, states
from conversations.services.tenants.promises import WAITS_SINCE

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
_CLOCK = "SELECT clock_timestamp()"  # one clock for all processes; read by itself, as Citus takes none in an UPDATE
AT_ONCE = 200  # conversations of a client in one pass
ROUND_ROBIN = Actor(Kind.SYSTEM, "round robin")

_STATE = "LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id"
_CLIENTS = "SELECT DISTINCT client_id FROM desk_teams WHERE is_default OR hands_out"

# Of client $1, what is unassigned and in a team that hands out, or for the default team; the longest wait first.
_WAITING = f"""
    SELECT s.id, d.team_id FROM conversations s {_STATE}
    WHERE s.client_id = $1 AND {inbox.UNASSIGNED} AND EXISTS (
        SELECT 1 FROM desk_teams t WHERE t.client_id = $1
          AND (t.id = d.team_id AND t.hands_out OR d.team_id IS NULL AND t.is_default))
    ORDER BY {WAITS_SINCE}, s.id LIMIT {AT_ONCE}"""

# The member of team $2 of client $1 whose turn it is. Open conversations count for whoever has them, or else is
# responsible for them.
_NEXT = f"""
    WITH held AS (
        SELECT COALESCE(s.taken_over_by_id, CASE WHEN s.taken_over_name = '' THEN d.assignee_id END) AS user_id,
            count(*) AS number
        FROM conversations s {_STATE} WHERE s.client_id = $1 AND s.status IN ('active', 'stale') GROUP BY 1)
    SELECT m.id, u.id, u.username
    FROM desk_team_members m
    JOIN desk_teams t ON t.client_id = m.client_id AND t.id = m.team_id
    JOIN memberships b ON b.client_id = m.client_id AND b.id = m.membership_id AND b.role IN ('agent', 'manager')
    JOIN auth_user u ON u.id = b.user_id AND u.is_active AND u.is_staff
    LEFT JOIN held h ON h.user_id = u.id
    WHERE m.client_id = $1 AND m.team_id = $2 AND b.is_available
      AND COALESCE(h.number, 0) < COALESCE(m.most_open, t.most_open)
    ORDER BY m.last_given_at NULLS FIRST, m.id LIMIT 1"""


def hand_out() -> int:
    """Hand out what waits, of all clients, and return how many conversations got a member of a team."""
    return sum(for_each_with(_CLIENTS, (), hand_out_of))


def hand_out_of(client_id: UUID) -> int:
    """Hand out what waits of the client, the longest wait first, and return how many got a member of a team."""
    full: set[int] = set()
    given = 0
    for conversation_id, team_id in rows(_WAITING, client_id):
        if team_id in full:
            continue
        team, was_given = _hand_out(client_id, conversation_id)
        given += was_given
        if team and team.hands_out and not was_given:
            full.add(team.pk)
    return given


def _hand_out(client_id: UUID, conversation_id: UUID) -> tuple[Team | None, bool]:
    """Return the team that the conversation is in, and whether a member was given it.

    None where it waits for nobody any more, or somebody else has it locked.
    """
    with transaction.atomic():
        teams = _lock_teams(client_id)
        conversation = _lock_waiting(client_id, conversation_id)
        if conversation is None:
            return None, False
        state = DeskState.objects.filter(client=client_id, conversation=conversation).first()
        of_state = state.team_id if state else None
        team = next((each for each in teams if (each.pk == of_state if of_state else each.is_default)), None)
        if team is None or (state and state.assignee_id):
            return None, False
        member = row(_NEXT, client_id, team.pk) if team.hands_out else None
        member_id, user_id, name = member or (None, None, "")
        states.put(conversation, user_id, name, team, ROUND_ROBIN)
        if member_id:
            [(given_at,)] = rows(_CLOCK)
            TeamMember.objects.filter(client=client_id, pk=member_id).update(last_given_at=given_at)
        return team, member is not None


def wait_for_hand_outs(client_id: UUID) -> None:
    """Return once what is being handed out at the client is committed. What is handed out later sees who is away."""
    with transaction.atomic():
        _lock_teams(client_id)


def _lock_teams(client_id: UUID) -> Sequence[Team]:
    """Return the client's teams that get or hand out conversations, locked: one conversation is handed out at a time.

    Assigning one to a team goes on meanwhile.
    """
    found = Team.objects.filter(client=client_id).filter(Q(is_default=True) | Q(hands_out=True))
    return list(found.order_by("pk").select_for_update(no_key=True))


def _lock_waiting(client_id: UUID, conversation_id: UUID) -> Conversation | None:
    """Return the conversation, locked, if it waits for a person and nobody has it; None if somebody has it locked."""
    found = Conversation.objects.of(client_id).open().filter(pk=conversation_id, taken_over_name="")
    conversation = found.select_for_update(no_key=True, skip_locked=True).first()
    return conversation if conversation and conversation.waits_for_staff_since else None


class RoundRobin:
    """Hand out conversations on one thread of this process, every second."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="round-robin", daemon=True)

    def start(self) -> None:
        """Start handing out."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after this pass; a conversation whose hand-out is cut off is handed out later."""
        self._stopping.set()

    def join(self, seconds: float = 10.0) -> None:
        """Wait until the thread has ended."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                close_old_connections()
                hand_out()
            except (OperationalError, InterfaceError):
                connection.close()
            except Exception:
                log.exception("round robin failed; it tries again")
                connection.close()
        connection.close()
