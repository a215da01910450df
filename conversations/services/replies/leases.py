"""Claims: a turn is the claim on a conversation's next reply, for as long as its lease lasts.

    owed        the conversation owes a reply; claiming it makes the turn
    streamed    a signed-in user asked for a reply, which made the turn; claiming it is an attempt at it

Every write names the attempt, so that a process that was away too long writes nothing into another's attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from conversations.models import Turn
from conversations.services.core.cluster import for_each_with, is_cluster, of_each, rows_over_all
from conversations.services.core.rotation import Waiting, by_client
from conversations.services.core.slots import Lane, Slots, as_slots, claim_in_turn
from conversations.services.core.sql import column, rows, unlocked
from conversations.services.history.recall import RECALLS

SUSPECT_AFTER_CRASHES = 2  # the conversation may have been there by chance once


@dataclass(frozen=True, slots=True)
class ClaimedTurn:
    """An attempt at a turn of a client's that is ours while its lease lasts.

    recalls     earlier conversations are to be looked up before (history/recall.py)
    calls       tools are to be called before (tool_calls.begin_waiting)
    """

    client_id: UUID
    turn_id: UUID
    conversation_id: UUID
    attempt: int
    recalls: bool
    calls: bool


@dataclass(frozen=True, slots=True)
class OwedTurn(ClaimedTurn):
    """The claim on an owed reply on the conversation's channel. `exhausted`: it was tried often enough, and fails now.
    `suspect`: its conversation was there more than once when a process died, and perhaps is the reason."""

    exhausted: bool
    suspect: bool
    channel: str


@dataclass(frozen=True, slots=True)
class StreamedTurn(ClaimedTurn):
    """An attempt at a reply that somebody reads along. `stopped`: it is not to be written any more."""

    login_id: int | None
    stopped: bool


def lease() -> timedelta:
    """Return for how long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


# Calls that a colleague approved, or that a process was making when it died.
CALLS = """EXISTS (
        SELECT FROM tool_calls u
        WHERE u.client_id = {client} AND u.conversation_id = s.id AND u.is_open
          AND u.status IN ('approved', 'calling'))"""


# --- owed replies -----------------------------------------------------------------------------------------------------
# OFFSET 0 keeps the planner from joining: where it does not know how much is due, it would read all for each.
_IS_DUE = """s.reply_owed AND s.reply_due_at <= $1 AND s.taken_over_at IS NULL AND NOT EXISTS (
        SELECT FROM conversation_turns t
        WHERE t.client_id = {client} AND t.conversation_id = s.id AND t.status = 'running' OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM attachments w
        WHERE w.client_id = {client} AND w.conversation_id = s.id AND w.reply_waits_until > $1 OFFSET 0)"""

# LIMIT, so that a client's backlog is read no further than to the first that is due.
_LANES = Waiting(
    *("conversations", "client_id", "reply_owed"),
    f"""
    SELECT c.id, c.weight, c.replies_at_once, EXISTS (
        SELECT FROM conversations s WHERE s.client_id = {{client}} AND s.reply_attempts = 0 AND {_IS_DUE} OFFSET 0)
    FROM {{each}} (
        SELECT id, weight, replies_at_once FROM clients WHERE id = {{id}} AND id <> ALL ($2::uuid[]) OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT s.id FROM conversations s WHERE s.client_id = {{client}} AND {_IS_DUE} LIMIT 1) AS due""",
)

_DUE = f"""
    SELECT s.id, s.channel, s.reply_attempts, s.reply_crashes, s.inbound_sequence, s.login_id,
        {RECALLS.format(client="$7")} AS recalls, {CALLS.format(client="$7")} AS calls
    FROM conversations s
    WHERE s.client_id = $7 AND s.reply_crashes {{crashes}} AND {_IS_DUE.format(client="$7")}
    ORDER BY s.reply_due_at
    LIMIT {{limit}}
    FOR NO KEY UPDATE OF s SKIP LOCKED"""

_CLAIM = f"""
    WITH usual AS ({_DUE.format(crashes="< $4", limit="$2")}),
    suspect AS ({_DUE.format(crashes=">= $4", limit="$5")}),
    due AS (SELECT * FROM usual UNION ALL SELECT * FROM suspect),
    begun AS (
        INSERT INTO conversation_turns
            (client_id, id, conversation_id, status, attempt, inbound_sequence, lease_until, started_at, engine, model,
             draft, finish_reason, tokens_in, tokens_out, code, reason, login_id)
        SELECT $7, gen_random_uuid(), id, 'running', reply_attempts + 1, inbound_sequence, $3, $1, '', '', '',
               '', 0, 0, '', '', login_id
        FROM due
        ON CONFLICT (client_id, conversation_id) WHERE status = 'running' DO NOTHING
        RETURNING id, conversation_id, attempt
    ), counted AS (
        UPDATE conversations s SET reply_attempts = begun.attempt FROM begun
        WHERE s.client_id = $7 AND s.id = begun.conversation_id
    )
    SELECT $7, begun.id, begun.conversation_id, begun.attempt, due.recalls, due.calls,
        begun.attempt > $6 OR due.reply_crashes >= $6, due.reply_crashes >= $4, due.channel
    FROM begun JOIN due ON due.id = begun.conversation_id"""


def claim(now: datetime, slots: Slots | int, suspects: int = 1) -> list[OwedTurn]:
    """Claim replies that are due while slots are free, and up to `suspects` of suspect conversations beside them.

    Clients take turns, by their weight; of one client the reply that is due longest comes first.

    The attempt is counted before it begins, so that a turn that takes its process down cannot do so for ever. A process
    that holds no more than one suspect turn finds out which one it is: when it dies, only that one is counted. Where
    two dispatchers see the same conversation, the constraint on running turns lets one in.

    slots: those of this process, which the turns take; or how many turns, without bounds for each client
    """
    room = as_slots(slots)

    def of_client(lane: Lane, number: int) -> list[OwedTurn]:
        nonlocal suspects
        claimed = _claim(now, lane.id, number, suspects)
        suspects -= sum(turn.suspect for turn in claimed)
        for turn in claimed:
            room.take(turn.turn_id, lane)
        return claimed

    found = _LANES.rows(now, room.full_lanes())
    lanes = [Lane(pk, pk, weight, is_new, most=most) for pk, weight, most, is_new in found]
    return claim_in_turn(room, lanes, of_client)


# The parts of _CLAIM for a cluster, where an INSERT of what a CTE found needs every server.
_DUE_ALONE = _DUE.replace("$7", "$3")
_BEGIN = """
    INSERT INTO conversation_turns
        (client_id, id, conversation_id, status, attempt, inbound_sequence, lease_until, started_at, engine, model,
         draft, finish_reason, tokens_in, tokens_out, code, reason, login_id)
    VALUES ($1, $2, $3, 'running', $4, $5, $6, $7, '', '', '', '', 0, 0, '', '', $8)
    ON CONFLICT (client_id, conversation_id) WHERE status = 'running' DO NOTHING
    RETURNING id"""
_COUNT = "UPDATE conversations SET reply_attempts = $3 WHERE client_id = $1 AND id = $2 RETURNING id"


def _claim_in_cluster(now: datetime, client_id: UUID, limit: int, suspects: int) -> list[OwedTurn]:
    claimed = []
    with transaction.atomic():
        for which, most in (("< $4", limit), (">= $4", suspects)):
            due = _DUE_ALONE.format(crashes=which, limit="$2")
            for pk, channel, attempts, crashes, sequence, login, recalls, calls in rows(
                due, now, most, client_id, SUSPECT_AFTER_CRASHES
            ):
                turn_id, attempt = uuid4(), attempts + 1
                if not rows(_BEGIN, client_id, turn_id, pk, attempt, sequence, now + lease(), now, login):
                    continue
                rows(_COUNT, client_id, pk, attempt)
                is_exhausted = max(attempt - 1, crashes) >= settings.REPLY_ATTEMPTS
                suspect = crashes >= SUSPECT_AFTER_CRASHES
                whole = (client_id, turn_id, pk, attempt, recalls, calls, is_exhausted, suspect, channel)
                claimed.append(OwedTurn(*whole))
    return claimed


def _claim(now: datetime, client_id: UUID, limit: int, suspects: int) -> list[OwedTurn]:
    """Claim up to `limit` replies of the client, and up to `suspects` of suspect conversations beside them."""
    if is_cluster():
        return _claim_in_cluster(now, client_id, limit, suspects)
    claimed = rows(
        _CLAIM,
        now,
        limit,
        now + lease(),
        SUSPECT_AFTER_CRASHES,
        suspects,
        settings.REPLY_ATTEMPTS,
        client_id,
    )
    return [OwedTurn(*found) for found in claimed]


def renew(turns: Mapping[UUID, UUID], now: datetime) -> None:
    """Extend the leases of turns that are still being worked on; one that is just being ended is left alone.

    turns: the ids of the turns, each with its client's
    """

    def renew_of(client_id: UUID, turn_ids: Sequence[UUID]) -> None:
        with transaction.atomic():
            running = Turn.objects.filter(status=Turn.Status.RUNNING, waiting_until=None)
            unlocked(running.filter(client_id=client_id, pk__in=turn_ids), client_id).update(lease_until=now + lease())

    list(of_each(by_client(turns).items(), renew_of))


# A turn that went down with its process is no attempt of its conversation's, which may have been there by chance: it is
# counted as a crash. A turn that was given back is neither. One that waits for a callback has no process. The
# conversation's row is locked first (core/locking.py).
_ABANDON = """
    WITH lost AS (
        SELECT t.id, t.conversation_id
        FROM conversation_turns t JOIN conversations s ON s.client_id = t.client_id AND s.id = t.conversation_id
        WHERE t.client_id = $2 AND t.status = 'running' AND t.waiting_until IS NULL AND {which}
        FOR NO KEY UPDATE OF s, t SKIP LOCKED
    ), ended AS (
        UPDATE conversation_turns t SET status = 'abandoned', ended_at = $1, code = '{code}'
        FROM lost WHERE t.client_id = $2 AND t.id = lost.id
    )
    UPDATE conversations s
    SET reply_attempts = GREATEST(s.reply_attempts - 1, 0), reply_crashes = s.reply_crashes + {crashes}
    FROM lost WHERE s.client_id = $2 AND s.id = lost.conversation_id
    RETURNING s.id"""

_IS_LOST = "NOT t.streamed AND t.lease_until < $1"
_CLIENTS_WITH_LOST = f"""
    SELECT DISTINCT t.client_id FROM conversation_turns t
    WHERE t.status = 'running' AND t.waiting_until IS NULL AND {_IS_LOST}"""
_RECOVER = _ABANDON.format(which=_IS_LOST, code="lease_over", crashes=1)
_GIVE_BACK = _ABANDON.format(which="t.id = ANY($3)", code="stopped", crashes=0)


def recover(now: datetime) -> int:
    """Abandon the turns of dead dispatchers and return how many there were; their conversations still owe the reply."""
    return sum(for_each_with(_CLIENTS_WITH_LOST, [now], lambda client_id: len(rows(_RECOVER, now, client_id))))


def give_back(turns: Mapping[UUID, UUID], now: datetime) -> int:
    """Abandon turns of ours as if they had not begun, and return how many of them were still running.

    turns: the ids of the turns, each with its client's
    """
    given_back = of_each(by_client(turns).items(), lambda client_id, ids: rows(_GIVE_BACK, now, client_id, ids))
    return sum(map(len, given_back))


# --- streamed replies -------------------------------------------------------------------------------------------------
_OURS = """unnest($1::uuid[], $2::int[]) AS mine (id, attempt)
    WHERE t.client_id = $3 AND t.id = mine.id AND t.attempt = mine.attempt AND t.status = 'running'"""


_IS_FREE = "t.status = 'running' AND t.streamed AND t.waiting_until IS NULL AND t.lease_until <= $1"
_STREAM_LANES = f"""
    SELECT c.id, c.weight
    FROM (SELECT DISTINCT t.client_id AS id FROM conversation_turns t WHERE {{only:t}} AND {_IS_FREE}) w
    JOIN clients c ON c.id = w.id AND c.id <> ALL ($2::uuid[])"""

_CLAIM_STREAMED = f"""
    WITH free AS (
        SELECT t.id FROM conversation_turns t
        WHERE t.client_id = $4 AND {_IS_FREE}
        ORDER BY t.lease_until
        LIMIT $2
        FOR NO KEY UPDATE OF t SKIP LOCKED
    ), ours AS (
        UPDATE conversation_turns t SET attempt = t.attempt + 1, lease_until = $3 FROM free
        WHERE t.client_id = $4 AND t.id = free.id
        RETURNING t.id, t.attempt, t.conversation_id, t.stop_asked_at
    ), gone AS (
        DELETE FROM copilot_deltas d USING free WHERE d.client_id = $4 AND d.turn_id = free.id
    )
    SELECT s.client_id, o.id, o.conversation_id, o.attempt,
           {RECALLS.format(client="$4")}, {CALLS.format(client="$4")}, s.login_id,
           o.stop_asked_at IS NOT NULL OR s.taken_over_at IS NOT NULL
    FROM ours o
    JOIN conversations s ON s.client_id = $4 AND s.id = o.conversation_id"""


def claim_streamed(now: datetime, slots: Slots | int) -> list[StreamedTurn]:
    """Claim streamed turns that nobody writes, while slots are free, and delete their deltas.

    Each is claimed for a further attempt. Clients take turns, by their weight; of one client the turn that is free
    longest comes first.

    slots: those of this process, which the turns take; or how many turns, without bounds for each client
    """
    room = as_slots(slots)

    def of_client(lane: Lane, number: int) -> list[StreamedTurn]:
        claimed = [StreamedTurn(*found) for found in rows(_CLAIM_STREAMED, now, number, now + lease(), lane.id)]
        for turn in claimed:
            room.take(turn.turn_id, lane)
        return claimed

    lanes = [Lane(pk, pk, weight) for pk, weight in rows_over_all(_STREAM_LANES, now, room.full_lanes())]
    return claim_in_turn(room, lanes, of_client)


# Asked ten times a second. A join would read all of the client's conversations.
_STOPS = f"""
    SELECT t.id, t.stop_asked_at IS NOT NULL OR (
        SELECT s.taken_over_at IS NOT NULL OR s.status NOT IN ('active', 'stale')
        FROM conversations s WHERE s.client_id = $3 AND s.id = t.conversation_id)
    FROM conversation_turns t, {_OURS}"""


def renew_streamed(turns: Sequence[ClaimedTurn], now: datetime) -> None:
    """Extend the leases of streamed turns that are still being written, as far as they are ours."""
    free_streamed(turns, now + lease())


def free_streamed(turns: Sequence[ClaimedTurn], at: datetime) -> None:
    """Let the leases of streamed turns of ours run out at this time, when anybody may take them."""

    def free(client_id: UUID, ours: list[ClaimedTurn]) -> None:
        column(
            f"UPDATE conversation_turns t SET lease_until = $4 FROM {_OURS} RETURNING t.id",
            *(*attempts_of(ours), client_id, at),
        )

    list(of_each(_of_their_clients(turns).items(), free))


def stopped_or_lost(turns: Sequence[ClaimedTurn]) -> tuple[set[UUID], set[UUID]]:
    """Return the ids of the turns that are to stop where they are, and of those that are not ours any more.

    A turn stops where the user asked for it, a colleague has the conversation, or it has ended. In a cluster, nothing
    is said of those whose server is away.
    """
    stopped: set[UUID] = set()
    lost: set[UUID] = set()

    def ask(client_id: UUID, ours: list[ClaimedTurn]) -> None:
        found = dict(rows(_STOPS, *attempts_of(ours), client_id))
        stopped.update(pk for pk, stops in found.items() if stops)
        lost.update({each.turn_id for each in ours} - set(found))

    list(of_each(_of_their_clients(turns).items(), ask))
    return stopped, lost


def _of_their_clients(turns: Sequence[ClaimedTurn]) -> dict[UUID, list[ClaimedTurn]]:
    found: dict[UUID, list[ClaimedTurn]] = {}
    for turn in turns:
        found.setdefault(turn.client_id, []).append(turn)
    return found


def attempts_of(turns: Sequence[ClaimedTurn]) -> tuple[list[UUID], list[int]]:
    """Return the ids and the attempts of the turns, as two lists for `unnest`."""
    return [each.turn_id for each in turns], [each.attempt for each in turns]
