"""A row for each conversation that began in a period, as CSV for spreadsheets: times in the period's time zone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils import timezone

from conversations.services.core.sql import rows
from conversations.services.export.transcripts import BYTE_ORDER_MARK, without_formula
from conversations.services.figures.counting import default_assistant
from conversations.services.figures.reading import Narrowed, Period
from conversations.services.tenants import promises

BATCH = 500
COLUMNS = (
    *("id", "channel", "status", "user_id", "name", "assistant", "colleague", "team", "labels", "topic"),
    *("started_at", "ended_at", "ended_by", "messages_in", "messages_out"),
    *("first_response_seconds", "duration_seconds", "handed_over", "late"),
    *("rating", "rated_at", "comment", "tokens", "cost_usd"),
)
_TIMES = {"started_at", "ended_at", "rated_at"}

# A page of the client's conversations by their beginning: $2 and $3 the last of the page before, $4 the end.
_PAGE = """
    WITH page AS (
        SELECT s.* FROM conversations s
        WHERE s.client_id = $1 AND (s.started_at, s.id) > ($2, $3::uuid) AND s.started_at < $4
          AND ($5::text = '' OR s.channel = $5)
          AND ($6::uuid IS NULL OR COALESCE(s.assistant_id, $9::uuid) = $6)
          AND ($7::bigint IS NULL OR EXISTS (
            SELECT FROM conversation_chunks k
            WHERE k.client_id = $1 AND k.conversation_id = s.id AND k.author_id = $7))
          AND ($8::bigint IS NULL OR EXISTS (
            SELECT FROM desk_conversation_labels l
            WHERE l.client_id = $1 AND l.conversation_id = s.id AND l.label_id = $8))
          AND ($11::bigint IS NULL OR EXISTS (
            SELECT FROM desk_states d
            WHERE d.client_id = $1 AND d.conversation_id = s.id AND d.team_id = $11))
        ORDER BY s.started_at, s.id LIMIT $10)
    SELECT s.id, s.channel, s.status, p.user_id, p.name, a.name, u.username, g.name, labels.names, s.topic,
        s.started_at, s.ended_at, s.ended_by, said.messages_in, said.messages_out,
        round(extract(epoch FROM first.replied_at - said.first_at)::numeric, 1),
        round(extract(epoch FROM s.ended_at - s.started_at)::numeric), taken.over, NULL,
        r.score, r.rated_at, r.comment, turns.tokens, turns.cost
    FROM page s
    JOIN contacts p ON p.client_id = $1 AND p.id = s.contact_id
    LEFT JOIN assistants a ON a.id = COALESCE(s.assistant_id, $9::uuid)
    LEFT JOIN desk_states d ON d.client_id = $1 AND d.conversation_id = s.id
    LEFT JOIN desk_teams g ON g.client_id = $1 AND g.id = d.team_id
    LEFT JOIN ratings r ON r.client_id = $1 AND r.conversation_id = s.id
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE k.role IN ('user', 'voice')) AS messages_in,
            count(*) FILTER (WHERE k.role = 'ai') AS messages_out,
            min(k.position) FILTER (WHERE k.role IN ('user', 'voice')) AS first_position,
            min(k.created_at) FILTER (WHERE k.role IN ('user', 'voice')) AS first_at,
            (array_agg(k.author_id ORDER BY k.position DESC) FILTER (WHERE k.author_id IS NOT NULL))[1] AS colleague
        FROM conversation_chunks k WHERE k.client_id = $1 AND k.conversation_id = s.id) said
    LEFT JOIN auth_user u ON u.id = said.colleague
    LEFT JOIN LATERAL (
        SELECT k.created_at AS replied_at FROM conversation_chunks k
        WHERE k.client_id = $1 AND k.conversation_id = s.id AND k.position > said.first_position AND k.role = 'ai'
        ORDER BY k.position LIMIT 1) first ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN EXISTS (
            SELECT FROM conversation_events e
            WHERE e.client_id = $1 AND e.conversation_id = s.id AND e.kind = 'taken_over') THEN 'yes' END AS over) taken
    CROSS JOIN LATERAL (
        SELECT string_agg(n.name, ', ' ORDER BY n.name) AS names
        FROM desk_conversation_labels l JOIN desk_labels n ON n.id = l.label_id
        WHERE l.client_id = $1 AND l.conversation_id = s.id) labels
    CROSS JOIN LATERAL (
        SELECT sum(t.tokens_in + t.tokens_out) AS tokens, sum(t.cost) AS cost
        FROM conversation_turns t WHERE t.client_id = $1 AND t.conversation_id = s.id) turns
    ORDER BY s.started_at, s.id"""


def as_csv(client_id: UUID, period: Period, narrowed: Narrowed) -> Iterator[bytes]:
    """Yield the rows as CSV in UTF-8 with a byte order mark, without formulas. Rows are read in batches.

    An archived conversation has no messages any more: their numbers are 0, the time of the first response is empty, and
    it is late only where its end was. An open one is late where a promise about it is.
    """
    yield (BYTE_ORDER_MARK + _lines([COLUMNS])).encode()
    more = (narrowed.channel, narrowed.assistant_id, narrowed.colleague_id, narrowed.label_id)
    after: tuple[datetime, UUID] = (period.since, UUID(int=0))
    started = COLUMNS.index("started_at")
    rest = (default_assistant(client_id), BATCH, narrowed.team_id)
    while page := rows(_PAGE, client_id, *after, period.until, *more, *rest):
        promised, now = promises.promises(client_id, [row[0] for row in page]), timezone.now()
        late = {pk for pk, each in promised.items() if each.was_late(now)}
        yield _lines([_cells(row, period.zone, is_late=row[0] in late) for row in page]).encode()
        after = (page[-1][started], page[-1][0])


def table_as_csv(titles: list[str], table: list[list[Any]]) -> Iterator[bytes]:
    """Yield a table as CSV in UTF-8 with a byte order mark, without formulas."""
    lines = [[_text(cell) for cell in row] for row in table]
    yield (BYTE_ORDER_MARK + _lines([[without_formula(title) for title in titles], *lines])).encode()


def _cells(row: tuple[Any, ...], zone: ZoneInfo, *, is_late: bool) -> list[str]:
    values = dict(zip(COLUMNS, row, strict=True)) | {"late": "yes" if is_late else None}
    return [
        value.astimezone(zone).isoformat(timespec="seconds") if name in _TIMES and value else _text(value)
        for name, value in values.items()
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return without_formula(value) if isinstance(value, str) else str(value)


def _lines(table: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    return out.getvalue()
