"""Metrics for the dashboard: open conversations, queues of work, and the messages of the last 24 hours.

Each query reads what is open, due or recent through an index that holds only that, never a whole table, so that a
million ended conversations cost nothing. Each docstring names its index. OFFSET 0 keeps a plan from beginning with all
the conversations of a client instead. `client_ids` None means every client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import OperationalError

from conversations.services.core.cluster import can_ask_others, clients_that_answer
from conversations.services.core.sql import rows

HOURS = 24

ClientIds = Sequence[UUID] | None


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """The number of open conversations of a channel and status, and how many of these are guests'."""

    channel: str
    status: str
    count: int
    guests: int


@dataclass(frozen=True, slots=True)
class HourCounts:
    """The number of messages from and to people in an hour of the clock. The last hour is not over yet."""

    start: datetime
    messages: int
    replies: int


@dataclass(frozen=True, slots=True)
class DayMetrics:
    """The last 24 hours of the clock.

    Reply times are in seconds from a person's message to the assistant's reply that follows it; None without replies.
    """

    hours: list[HourCounts]
    median_seconds: float | None
    slow_seconds: float | None  # 95 of 100 were faster


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """Work that waits: how much, and since when its oldest."""

    count: int
    since: datetime | None
    first: UUID | None  # the conversation of the oldest


def open_sessions(client_ids: ClientIds) -> list[OpenSessions]:
    """Return the numbers of open conversations by channel and status.

    Index: open_conversations_of_client, or conversations_by_status for every client.
    """
    found = _rows(
        """
        SELECT s.channel, s.status, count(*), count(*) FILTER (WHERE s.is_guest)
        FROM conversations s WHERE s.status IN ('active', 'stale') {of_clients}
        GROUP BY s.channel, s.status ORDER BY s.channel, s.status
        """,
        client_ids,
    )
    return [OpenSessions(*row) for row in found]


def last_day(client_ids: ClientIds, now: datetime) -> DayMetrics:
    """Return the messages and the reply times of the last 24 hours. Index: said_of_late."""
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    found = _rows(
        """
        SELECT date_trunc('hour', said_at, 'UTC') AS hour,
            count(*) FILTER (WHERE role IN ('user', 'voice')),
            count(*) FILTER (WHERE role = 'ai'),
            percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM said_at - asked_at)::float)
                FILTER (WHERE role = 'ai' AND NOT by_staff AND asked_by IN ('user', 'voice'))
        FROM (
            SELECT c.role, c.by_staff, c.created_at AS said_at, lag(c.created_at) OVER w AS asked_at,
                lag(c.role) OVER w AS asked_by
            FROM (
                SELECT conversation_id, position, role, created_at,
                    author_id IS NOT NULL OR role = 'ai' AND metadata ? 'colleague' AS by_staff
                FROM conversation_chunks s
                WHERE created_at >= $1 AND role IN ('user', 'voice', 'ai') {of_clients} OFFSET 0
            ) AS c
            WINDOW w AS (PARTITION BY c.conversation_id ORDER BY c.position)
        ) AS said
        GROUP BY GROUPING SETS ((hour), ())
        """,
        client_ids,
        first,
    )
    median, slow = next((row[3] for row in found if row[0] is None and row[3]), (None, None))
    counts = {row[0]: row[1:3] for row in found}
    starts = [first + timedelta(hours=number) for number in range(HOURS)]
    return DayMetrics([HourCounts(start, *counts.get(start, (0, 0))) for start in starts], median, slow)


def waiting_for_staff(client_ids: ClientIds) -> WorkQueue:
    """Return the conversations that wait for a person, or whose colleague owes an answer.

    Indexes: needs_staff and reply_owed.
    """
    return _queue(
        """
        SELECT count(*), min(s.since), (array_agg(s.id ORDER BY s.since))[1]
        FROM (
            SELECT id, needs_staff_since AS since FROM conversations s
            WHERE needs_staff_since IS NOT NULL {of_clients}
            UNION ALL
            SELECT id, burst_began_at FROM conversations s
            WHERE reply_owed AND taken_over_at IS NOT NULL AND needs_staff_since IS NULL {of_clients}
        ) AS s
        """,
        client_ids,
    )


def unclear_messages(client_ids: ClientIds) -> WorkQueue:
    """Return the messages of which it is unknown whether they arrived. Index: messages_unsettled."""
    return _messages("status = 'unknown'", "created_at", client_ids)


def failed_messages(client_ids: ClientIds, now: datetime) -> WorkQueue:
    """Return the messages that failed in the last 24 hours. Index: messages_failed."""
    since = now - timedelta(hours=HOURS)
    return _messages("status = 'failed' AND failed_at >= $1", "failed_at", client_ids, since)


def failed_replies(client_ids: ClientIds, now: datetime) -> WorkQueue:
    """Return the attempts at replies that failed in the last 24 hours. Index: turns_failed."""
    return _queue(
        """
        SELECT count(*), min(ended_at), (array_agg(conversation_id ORDER BY ended_at))[1]
        FROM conversation_turns s WHERE status = 'failed' AND ended_at >= $1 {of_clients}
        """,
        client_ids,
        now - timedelta(hours=HOURS),
    )


def unclear_tool_calls(client_ids: ClientIds) -> int:
    """Return the tool calls of which it is unknown whether they were carried out. Index: tool_calls_unsettled."""
    return _queue(
        "SELECT count(*), NULL, NULL FROM tool_calls s WHERE s.status = 'unknown' {of_clients}", client_ids
    ).count


def broken_and_noted_accounts(client_ids: ClientIds, since: datetime) -> tuple[int, int]:
    """Return how many active accounts their providers refuse, and of how many they told something since then.

    The table is small and needs no index.
    """
    [(broken, noted)] = _rows(
        """
        SELECT count(*) FILTER (WHERE s.health = 'broken'), count(*) FILTER (WHERE s.notice_at >= $1)
        FROM channel_accounts s WHERE s.is_active {of_clients}
        """,
        client_ids,
        since,
    )
    return broken, noted


def failing_endpoints(client_ids: ClientIds) -> int:
    """Return the number of endpoints that fail or are paused. The table is small and needs no index."""
    return _queue(
        "SELECT count(*), NULL, NULL FROM event_endpoints s"
        " WHERE (s.failing_since IS NOT NULL OR s.paused_at IS NOT NULL) {of_clients}",
        client_ids,
    ).count


def unreached_accounts(client_ids: ClientIds) -> int:
    """Return the number of accounts whose provider cannot be reached. The table is small and needs no index."""
    return _queue(
        "SELECT count(*), NULL, NULL FROM send_circuits s WHERE s.opened_at IS NOT NULL {of_clients}", client_ids
    ).count


def _messages(which: str, since: str, client_ids: ClientIds, *values: Any) -> WorkQueue:
    return _queue(
        f"""
        SELECT count(*), min({since}), (array_agg(conversation_id ORDER BY {since}))[1]
        FROM conversation_messages s WHERE {which} {{of_clients}}
        """,
        client_ids,
        *values,
    )


def _queue(statement: str, client_ids: ClientIds, *values: Any) -> WorkQueue:
    return WorkQueue(*_rows(statement, client_ids, *values)[0])


def _rows(statement: str, client_ids: ClientIds, *values: Any, join: str = "") -> list[tuple[Any, ...]]:
    """Run the statement and return its rows; {of_clients} in it limits `s` to the clients, whose ids come last.

    While a server of a cluster is away, they are those of the clients whose server answers.
    """
    try:
        return _rows_of(statement, client_ids, *values, join=join)
    except OperationalError:
        if not can_ask_others():
            raise
        return _rows_of(statement, clients_that_answer(client_ids), *values, join=join)


def _rows_of(statement: str, client_ids: ClientIds, *values: Any, join: str) -> list[tuple[Any, ...]]:
    if client_ids is None:
        return rows(statement.format(of_clients="", join=join), *values)
    of_clients = f"AND s.client_id = ANY(${len(values) + 1}::uuid[])"
    return rows(statement.format(of_clients=of_clients, join=join), *values, list(client_ids))
