"""What clients promise of their conversations, computed from what is there: no row is kept of it.

    first response   from the person's first message to the first answer: the assistant's or a colleague's. What is no
                     answer does not count: sentences about a hand-over, a failure, an opt-out or a quota.
    answer           from when a conversation waits for a person of the staff, until it waits no more
    resolution       from the opening of the conversation to its end, however it ends; not in the copilot, whose
                     sessions do not end

The time is that of the client's business hours, or the clock's, as the client chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from conversations.services.core import hours
from conversations.services.core.sql import rows
from conversations.services.tenants import client_hours
from conversations.services.tenants.client_hours import Terms

LOOKED_BACK = timedelta(days=35)  # what began earlier is sorted by the clock
LOOKED_AHEAD = timedelta(days=65)


class Kind(StrEnum):
    """The kinds of promises."""

    FIRST_RESPONSE = "first_response"
    ANSWER = "answer"
    RESOLUTION = "resolution"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise about one conversation.

    due_at  when it has to be kept
    met_at  when it was; None if it is not yet
    """

    kind: Kind
    due_at: datetime
    met_at: datetime | None = None

    def is_late(self, now: datetime) -> bool:
        """Return whether it was kept too late, or is not kept although its time is over."""
        return (self.met_at or now) > self.due_at


@dataclass(frozen=True, slots=True)
class Promises:
    """The promises about one conversation, those that are kept included."""

    made: tuple[Promise, ...] = ()

    def of(self, kind: Kind) -> Promise | None:
        """Return the promise of the kind, or None if none is made or there is nothing to keep."""
        return next((each for each in self.made if each.kind == kind), None)

    def was_late(self, now: datetime) -> bool:
        """Return whether any of them was or is late."""
        return any(each.is_late(now) for each in self.made)

    @property
    def next(self) -> Promise | None:
        """Return the promise that is to be kept next; None if nothing is."""
        return min((each for each in self.made if each.met_at is None), key=lambda each: each.due_at, default=None)


# Since when conversation s waits for staff: as Conversation.waits_for_staff_since.
WAITS_SINCE = """COALESCE(s.needs_staff_since, CASE WHEN s.taken_over_at IS NOT NULL AND s.reply_owed
    THEN COALESCE(s.burst_began_at, s.reply_due_at) END)"""
# The person's first message in conversation s, and the first answer behind it. Both are read from the beginning of the
# transcript, so that they cost as much as there are messages before the answer.
_ASKED = """
    SELECT q.created_at, q.position FROM conversation_chunks q
    WHERE q.client_id = s.client_id AND q.conversation_id = s.id AND q.role IN ('user', 'voice')
    ORDER BY q.position LIMIT 1"""
_ANSWERED = """
    SELECT a.created_at FROM conversation_chunks a
    WHERE a.client_id = s.client_id AND a.conversation_id = s.id AND a.role = 'ai' AND a.position > q.position
      AND NOT a.metadata ?| ARRAY['said_at', 'notice']
    ORDER BY a.position LIMIT 1"""
# The same for lists: when the open conversation s, which somebody should answer, was asked; NULL if it was answered.
UNANSWERED_SINCE = f"""CASE WHEN s.ended_at IS NULL AND (
    s.reply_owed OR s.needs_staff_since IS NOT NULL OR s.taken_over_at IS NOT NULL) THEN (
    SELECT q.created_at FROM ({_ASKED}) q WHERE NOT EXISTS ({_ANSWERED})) END"""
_FACTS = f"""
    SELECT s.id, s.channel, s.started_at, s.ended_at, {WAITS_SINCE}, q.created_at, a.created_at
    FROM conversations s LEFT JOIN LATERAL ({_ASKED}) q ON true LEFT JOIN LATERAL ({_ANSWERED}) a ON true
    WHERE s.client_id = $1 AND s.id = ANY ($2::uuid[])""".replace(
    "= s.client_id", "= $1"
)  # a cluster finds it by value


def promises(client_id: UUID, conversation_ids: Iterable[UUID]) -> dict[UUID, Promises]:
    """Return the promises about each of the client's conversations, ended ones included; two statements.

    Of an archived conversation the first response is not known any more.
    """
    terms, found = client_hours.terms(client_id), rows(_FACTS, client_id, list(conversation_ids))
    return {
        pk: made(terms, channel, started, ended, waits_since=waits, asked_at=asked, answered_at=answered)
        for pk, channel, started, ended, waits, asked, answered in found
    }


def made(
    terms: Terms,
    channel: str,
    started_at: datetime,
    ended_at: datetime | None = None,
    *,
    waits_since: datetime | None = None,
    asked_at: datetime | None = None,
    answered_at: datetime | None = None,
) -> Promises:
    """Return the promises about a conversation of which this is known."""
    resolves = started_at if channel != "web" else None
    wanted = (
        (Kind.FIRST_RESPONSE, asked_at, terms.first_response_within, answered_at),
        (Kind.ANSWER, None if ended_at else waits_since, terms.answer_within, None),
        (Kind.RESOLUTION, resolves, terms.resolve_within, ended_at),
    )
    found = [
        Promise(kind, due_at, met_at)
        for kind, since, within, met_at in wanted
        if since and within and (due_at := hours.after_business_time(terms.promise_hours, since, within))
        # Who closed a conversation without an answer owes none any more.
        if kind != Kind.FIRST_RESPONSE or met_at or not ended_at
    ]
    return Promises(tuple(found))


# --- sorting ----------------------------------------------------------------------------------------------------------
# The clients' promises as a table o, from the values that `sort_values` returns: those from $11 on.
SCALES = """
    SELECT u.client_id, u.first::interval AS first, u.answer::interval AS answer, u.resolve::interval AS resolve,
        u.opens::float8[] AS opens, u.closes::float8[] AS closes, u.passed::float8[] AS passed,
        u.shift::float8[] AS shift
    FROM unnest($11::uuid[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[])
        AS u(client_id, first, answer, resolve, opens, closes, passed, shift)"""
# When the next promise about the open conversation s is due; NULL if there is none. o: its client's row of SCALES.
_PROMISED = [
    (f"CASE WHEN o.first IS NOT NULL THEN ({UNANSWERED_SINCE}) END", "o.first"),
    (f"({WAITS_SINCE})", "o.answer"),
    ("CASE WHEN s.channel <> 'web' AND s.ended_at IS NULL THEN s.started_at END", "o.resolve"),
]
DUE_AT = hours.soonest_due_sql(_PROMISED, "o")


def sort_values(client_ids: Sequence[UUID], now: datetime) -> list[Any]:
    """Return the values of SCALES for the clients, in one statement. They are the same for a whole day."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    of_each = client_hours.terms_of(client_ids)
    columns: list[list[Any]] = [list(of_each), *([] for _ in range(7))]
    for terms in of_each.values():
        scale = hours.scale(terms.promise_hours, midnight - LOOKED_BACK, midnight + LOOKED_AHEAD)
        within = (terms.first_response_within, terms.answer_within, terms.resolve_within)
        written = [f"{each.total_seconds()} seconds" if each else None for each in within]
        written += [
            "{" + ",".join(map(repr, each)) + "}" for each in (scale.opens, scale.closes, scale.passed, scale.shift)
        ]
        for column, value in zip(columns[1:], written, strict=True):
            column.append(value)
    return columns
