"""The sweep: ages conversations, deletes expired guests, and frees what dead processes held.

It works in batches that skip locked rows, so that no sweep delays a message. Ended conversations are not read: every
statement starts from the index of the open conversations, or of the expired guests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import RetentionRule
from conversations.queue import delete_old_failures
from conversations.services.contacts import duplicates
from conversations.services.core import counters, idempotency
from conversations.services.core.cluster import is_cluster, of_each, rows_of_each_client
from conversations.services.core.deadlines import (
    AGE_SINCE,
    FREE,
    SWEEP_DUE,
    SWEEP_DUE_OF_CLIENT,
    SWEPT,
    kept_until,
    sweep_due,
)
from conversations.services.core.dedupe import trim_tombstones
from conversations.services.core.ledger import events_sql, write_line
from conversations.services.core.sql import column, exclusively, row, rows
from conversations.services.core.tool_requests import EXPIRE_SQL
from conversations.services.delivery import recovery, throttles
from conversations.services.inbound import replay
from conversations.services.replies import leases, tool_calls
from conversations.services.retention.retention import guests_due_sql, purge_guests
from conversations.services.tenants import api_keys, sign_in_limits
from conversations.services.transitions import takeover

BATCH = 2_000
Progress = Callable[[str, int], None]


def _by_sweep(status: str, rule: str, before: str) -> str:
    """Return the SQL that writes ledger events for conversations that a rule has aged: its name, length and start."""
    return events_sql(
        status,
        "moved",
        from_status=before,
        to_status=f"'{status}'",
        cause=f"'no message within {rule}'",
        actor="'system'",
        actor_name="'sweep'",
        data=_data(rule),
    )


def _data(rule: str) -> str:
    return f"jsonb_build_object('rule', '{rule}', 'seconds', extract(epoch from span), 'since', since)"


# One query finds what is due; each batch checks its own conversations again.
_BY_KIND = "SELECT due, client_id, array_agg(id) FROM ({}) swept WHERE due IS NOT NULL GROUP BY 1, 2"
DUE_BY_KIND = _BY_KIND.format(SWEEP_DUE)
DUE_OF_CLIENT_BY_KIND = _BY_KIND.format(SWEEP_DUE_OF_CLIENT)

_MARK_STALE = f"""
    WITH due AS (
        SELECT s.id, c.stale_after AS span, {AGE_SINCE} AS since {sweep_due("stale")}
            AND s.client_id = $3 AND s.id = ANY($2)
        FOR NO KEY UPDATE OF s SKIP LOCKED),
    moved AS (
        UPDATE conversations s SET status = 'stale' FROM due WHERE s.client_id = $3 AND s.id = due.id
        RETURNING s.client_id, s.id, due.span, due.since)
    {_by_sweep("stale", "stale_after", "'active'")}
    RETURNING conversation_id"""

_EXPIRE = f"""
    WITH due AS (
        SELECT s.id, s.status AS before, c.expire_after AS span, {AGE_SINCE} AS since {sweep_due("expired")}
            AND s.client_id = $3 AND s.id = ANY($2)
        FOR NO KEY UPDATE OF s SKIP LOCKED),
    moved AS (
        UPDATE conversations s
        SET status = 'expired', ended_at = $1, ended_by = 'timeout', end_reason = 'no message within expire_after',
            reply_owed = false, needs_staff_since = NULL,
            remember_due_at = CASE WHEN s.is_guest THEN NULL ELSE $1::timestamptz END
        FROM due WHERE s.client_id = $3 AND s.id = due.id
        RETURNING s.client_id, s.id, due.before, due.span, due.since),
    unsent AS (
        UPDATE conversation_messages m
        SET status = 'cancelled', code = 'expired', lease_until = NULL, lease_token = NULL
        FROM moved WHERE m.client_id = $3 AND m.conversation_id = moved.id AND m.status IN ('queued', 'claimed')),
    unmade AS ({EXPIRE_SQL})
    {_by_sweep("expired", "expire_after", "before")}
    RETURNING conversation_id"""


# What follows in a cluster, where an INSERT of what a CTE found needs every server: the line of each by a statement.
_AGED = {_MARK_STALE: ("stale", "stale_after", "'active'"), _EXPIRE: ("expired", "expire_after", "before")}


def _age(statement: str, now: datetime, ids: Sequence[UUID], client_id: UUID) -> list[tuple[Any, ...]]:
    """Age those of the client's conversations that are due, and return a row for each."""
    if not is_cluster():
        return rows(statement, now, ids, client_id)
    status, rule, before = _AGED[statement]
    first = statement.partition(_by_sweep(status, rule, before))[0]
    with transaction.atomic():
        aged = rows(f"{first} SELECT id, {before}::text, {_data(rule)}::text FROM moved", now, ids, client_id)
        for pk, was, data in aged:
            why = {"cause": f"no message within {rule}", "from_status": was, "to_status": status, "data": data}
            write_line(client_id, pk, status, actor="system", actor_name="sweep", at=now, **why)
    return aged


@dataclass(slots=True)
class SweepReport:
    """The counts of what a sweep did, or would do; `examples` has some conversation ids by count in a preview."""

    stale: int = 0
    expired: int = 0
    purged: int = 0
    recovered: int = 0
    tombstones: int = 0
    handed_back: int = 0
    replayed: int = 0
    skipped: bool = False
    examples: dict[str, list[str]] = field(default_factory=dict)


def sweep(now: datetime, progress: Progress = lambda _what, _count: None) -> SweepReport:
    """Age conversations as of `now`, delete expired guests, free what dead processes held, and retry failed events.

    progress: called with the name of a count and its value after each batch

    Returns the counts; `skipped` is True if another sweep is running, and nothing was done. It is harmless to repeat
    and to interrupt a sweep: each batch is a statement of its own.
    """
    report, began = SweepReport(), perf_counter()
    with exclusively("convo.sweep") as only_one:
        if not only_one:
            report.skipped = True
            return report
        due: dict[str, dict[UUID, list[UUID]]] = {}
        for what, client_id, ids in _due(now):
            due.setdefault(what, {})[client_id] = ids
        back = due.get("handed_back", {})
        abandoned = [(client_id, ids, now) for client_id, ids in back.items()]
        report.handed_back = sum(of_each(abandoned, takeover.hand_back_abandoned))
        report.expired = _in_batches(_EXPIRE, due.get("expired", {}), now, partial(progress, "expired"))
        report.stale = _in_batches(_MARK_STALE, due.get("stale", {}), now, partial(progress, "stale"))
        report.purged = sum(of_each([(now, progress)], purge_guests))
        duplicates.note_recent(now)
        api_keys.take_over_uses(now)
        report.recovered = leases.recover(now) + recovery.recover(now) + tool_calls.recover(now)
        idempotency.delete_expired(now)
        throttles.delete_expired(now)
        sign_in_limits.delete_expired(now)
        delete_old_failures(now)
        report.tombstones = trim_tombstones(now)
        report.replayed = sum(of_each([(now,)], replay.retry_failed))
    counters.SWEEPS.inc()
    counters.SWEEP_SECONDS.observe(perf_counter() - began)
    for what, count in asdict(report).items():
        if count and isinstance(count, int):
            counters.SWEPT.labels(what).inc(count)
    return report


def _due(now: datetime) -> list[tuple[Any, ...]]:
    """Return rows of what is due, the client, and the ids of its conversations."""
    return rows_of_each_client(DUE_OF_CLIENT_BY_KIND, now) if is_cluster() else rows(DUE_BY_KIND, now)


def preview(now: datetime, examples: int = 3) -> SweepReport:
    """Return the counts of what a sweep at `now` would do, with examples. Nothing changes.

    Guests that would expire are also counted as purged, unless the purge would leave them for later.
    """
    report = SweepReport()
    gone_at = kept_until(RetentionRule.GUESTS, since="$1")
    free = f"EXISTS (SELECT FROM contacts p WHERE p.client_id = s.client_id AND p.id = s.contact_id AND {FREE})"
    expiring_guests = f"{sweep_due('expired')} AND s.is_guest AND {gone_at} <= $1 AND {free}"
    for name, due in [
        *((what, sweep_due(what)) for what in SWEPT),
        ("purged", guests_due_sql()),
        ("purged", expiring_guests),
    ]:
        setattr(report, name, getattr(report, name) + _count(due, now))
        found = report.examples.setdefault(name, [])
        found += [str(pk) for pk in column(f"SELECT s.id {due} LIMIT $2", now, examples - len(found))]
    return report


def _in_batches(
    statement: str, due: Mapping[UUID, Sequence[UUID]], now: datetime, progress: Callable[[int], None]
) -> int:
    total = 0
    for client_id, ids in due.items():
        for start in range(0, len(ids), BATCH):
            done = of_each([(statement, now, ids[start : start + BATCH], client_id)], _age)
            total += sum(len(found) for found in done)
            progress(total)
    return total


def _count(due: str, now: datetime) -> int:
    found = row(f"SELECT count(*) {due}", now)
    return int(found[0]) if found else 0
