"""Retention runs: delete what is older than its rule allows, rule by rule, in short transactions.

Every run leaves a report for each client of which it deleted something. It may be interrupted anywhere and repeated:
what is not deleted yet is still due. Rows that another transaction has locked are left for the next run. Rows that a
legal hold keeps are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from conversations.models import Client, RetentionReport
from conversations.models import RetentionRule as R
from conversations.services.core.cluster import can_ask_others, rows_over_all
from conversations.services.core.deadlines import KEPT, retention_due
from conversations.services.core.sql import column, exclusively, row, rows
from conversations.services.events import deliveries
from conversations.services.inbound import unprocessed
from conversations.services.retention import mentions
from conversations.services.retention.deletions import AWAY, DELETE, Progress, RetentionRun, is_on
from memory import services as memory

log = logging.getLogger(__name__)

REPORTS_KEPT = timedelta(days=400)
LOST_VECTORS_SECONDS = 120.0
LONGEST_BY = 150


@dataclass(slots=True)
class CleanupReport:
    """The numbers of rows that a clean-up deleted by each rule; `skipped` if another run was under way."""

    guest_sessions: int = 0
    web_sessions: int = 0
    sessions: int = 0
    memories: int = 0
    turns: int = 0
    sends: int = 0
    inbound_events: int = 0
    held_back: int = 0
    skipped: bool = False


# --- running ----------------------------------------------------------------------------------------------------------
def clean_up(now: datetime, by: str = "clean_up") -> CleanupReport:
    """Run all rules at `now` and return how many rows each deleted; `skipped` if another run is under way."""
    done = run(now, by=by)
    return CleanupReport(
        guest_sessions=done.deleted(R.GUESTS),
        web_sessions=done.deleted(R.WEB),
        sessions=done.deleted(R.SESSIONS),
        memories=done.deleted(R.MEMORY),
        turns=done.deleted(R.TURNS),
        sends=done.deleted(R.SENDS),
        inbound_events=done.deleted(R.EVENTS),
        held_back=sum(line.held_back for line in done.lines.values()),
        skipped=done.skipped,
    )


def run(
    now: datetime, *, by: str, rules: Sequence[str] = R.values, progress: Progress = lambda _what, _count: None
) -> RetentionRun:
    """Delete what is due at `now` by the rules, leave reports, and return the results.

    A rule that fails is in the report with its error, and the others go on.

    by: the job, command or person, for the report
    progress: called after each batch with the rule's name and the number so far
    """
    done, begun = RetentionRun(), timezone.now()
    with exclusively("convo.clean_up") as only_one:
        if not only_one:
            done.skipped = True
            return done
        for rule in rules:
            _attempt(rule, now, done, progress)
        unprocessed.delete_old_refused(now)
        deliveries.delete_old(now, settings.EVENT_DAYS)
        _clear_vectors(done)
        RetentionReport.objects.filter(started_at__lt=now - REPORTS_KEPT).delete()
        _report(done, by, begun)
    return done


_ANY_GUEST = "SELECT 1 FROM conversations s WHERE {only:s} AND s.status = 'expired' AND s.is_guest LIMIT 1"


def purge_guests(now: datetime, progress: Progress = lambda _what, _count: None, by: str = "sweep") -> int:
    """Delete expired conversations of guests with everything below them, and guests without conversations.

    Returns how many conversations there were. The ids of their messages stay as tombstones for 8 days. It leaves a
    report only if there were any, because it runs every few minutes.
    """
    if not rows_over_all(_ANY_GUEST):
        return 0  # nearly always, at a tenth of the cost of the full search
    done, begun = RetentionRun(), timezone.now()
    _attempt(R.GUESTS, now, done, lambda _rule, count: progress("purged", count), count_held=False)
    if any(line.deleted or line.error not in ("", AWAY) for line in done.lines.values()):
        _report(done, by, begun)
    return done.deleted(R.GUESTS)


def count_guests_due(now: datetime, examples: int = 3) -> tuple[int, list[str]]:
    """Return how many conversations a purge would delete at `now`, and at most `examples` of their ids."""
    due = guests_due_sql()
    counted = row(f"SELECT count(*) {due}", now)
    found = column(f"SELECT s.id {due} LIMIT $2", now, examples)
    return (int(counted[0]) if counted else 0), [str(pk) for pk in found]


def guests_due_sql() -> str:
    """Return the SQL "FROM … WHERE …" of the guests' conversations that a purge at $1 deletes."""
    return f"{retention_due(R.GUESTS)} AND {KEPT[R.GUESTS].free}"


def preview(now: datetime, client: Client | None = None, rules: Sequence[str] = R.values) -> RetentionRun:
    """Return what a run at `now` would delete, of this client alone if one is given. Changes nothing."""
    found = RetentionRun()
    for rule in rules:
        _count(rule, now, found, client)
    return found


def _attempt(rule: str, now: datetime, done: RetentionRun, progress: Progress, *, count_held: bool = True) -> None:
    try:
        DELETE[R(rule)](R(rule), now, done, progress)
        if count_held:
            _count_held(rule, now, done)
    except (OperationalError, InterfaceError):
        if not can_ask_others():
            raise
        log.warning("retention failed: a server of the database is away: rule=%s", rule)
        done.line(None, rule).error = AWAY
    except Exception as error:
        log.exception("retention failed: rule=%s", rule)
        done.line(None, rule).error = type(error).__name__


# --- counting ---------------------------------------------------------------------------------------------------------
def _grouped(rule: str, condition: str, now: datetime, client: Client | None = None) -> list[tuple[Any, ...]]:
    """Return (client id, number of rows, when the age of the oldest began) of what is due and fulfils the condition."""
    kept = KEPT[R(rule)]
    values: list[Any] = [now, *(mentions.patterns_of_held_contacts() if rule == R.EVENTS else ())]
    if client:
        values.append(client.pk)
        condition += f" AND {kept.client} = ${len(values)}"
    return rows(
        f"SELECT {kept.client}, count(*), min({kept.since}) {retention_due(rule)} AND {condition} GROUP BY 1", *values
    )


def _count_held(rule: str, now: datetime, done: RetentionRun, client: Client | None = None) -> None:
    if not is_on(rule):
        return
    held = f"NOT ({KEPT[R(rule)].free})"
    for client_id, count, _ in _grouped(rule, held, now, client):
        done.line(client_id, rule).held_back = count


def _count(rule: str, now: datetime, found: RetentionRun, client: Client | None) -> None:
    """Count what is due. Of turns and sends it counts the conversations that have any."""
    if not is_on(rule):
        return
    for client_id, count, oldest in _grouped(rule, KEPT[R(rule)].free, now, client):
        found.line(client_id, rule).add(oldest, count)
    _count_held(rule, now, found, client)


# --- afterwards -------------------------------------------------------------------------------------------------------
def _clear_vectors(done: RetentionRun) -> None:
    """Delete the vectors that memory no longer knows. If that fails, the report has the error, and the next run tries
    again.
    """
    try:
        memory.delete_orphaned_vectors(LOST_VECTORS_SECONDS)
    except memory.StoreError as error:
        log.warning("vectors not cleared yet: code=%s", error.code)
        done.line(None, R.MEMORY).error = error.code
    except OperationalError:
        if not can_ask_others():
            raise
        done.line(None, R.MEMORY).error = AWAY


def _report(done: RetentionRun, by: str, begun: datetime) -> None:
    by_client: dict[UUID | None, list[dict[str, object]]] = {}
    for (client_id, _), line in done.lines.items():
        said = asdict(line) | {"oldest": line.oldest.isoformat() if line.oldest else None}
        by_client.setdefault(client_id, []).append(said)
    run_id, ended = uuid4(), timezone.now()
    there = set(Client.objects.filter(pk__in=[pk for pk in by_client if pk]).values_list("pk", flat=True))
    RetentionReport.objects.bulk_create(
        RetentionReport(run=run_id, client_id=pk, by=by[:LONGEST_BY], started_at=begun, ended_at=ended, lines=lines)
        for pk, lines in (by_client or {None: []}).items()
        if pk is None or pk in there
    )
