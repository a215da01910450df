"""The backlog: what is due and not done, by client and kind, with the age of the oldest.

One statement reads it all. It goes from client to client in the indexes that hold only what waits and begin with the
client (core/rotation.py), and reads at most MOST_READ rows of each client and kind: a flood at one client costs no more
than that, and hides no other's. The answer says where not all was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.services.core.cluster import is_cluster, rows_of_each_client
from conversations.services.core.deadlines import FREE, IS_REMEMBERED
from conversations.services.core.rotation import distinct_sql
from conversations.services.core.sql import rows

MOST_READ = 10_000  # rows of a kind and a client (sends: an account; summaries: of all together)
MOST_COUNTED = 1_000  # of a client; more are "1,000+"

_QUEUED = """
        SELECT m.client_id, m.due_at AS since FROM conversation_messages m
        WHERE m.status = 'queued' AND m.due_at <= $1 AND m.channel_account_id {account}"""
_EVENTS = """
        SELECT s.client_id, s.received_at AS since FROM inbound_events s
        WHERE s.reason = 'processing_failed' AND s.settled_at IS NULL AND s.client_id {client}"""


def _of_each(waiting: str, which: str) -> str:
    """Return the statement of the rows of `which` for each of those that wait: `w.id` is one of them."""
    return f"{waiting} SELECT each.* FROM waiting w CROSS JOIN LATERAL ({which} LIMIT {{most}}) AS each"


# The statements of each kind: the client of each row that waits, and since when it does. A comment names the index.
KINDS = {
    # Replies that are due and not written. Index: reply_owed.
    "replies": [
        _of_each(
            distinct_sql("conversations", "client_id", "reply_owed"),
            """
        SELECT s.client_id, s.reply_due_at AS since FROM conversations s
        WHERE s.client_id = w.id AND s.reply_owed AND s.taken_over_at IS NULL AND s.reply_due_at <= $1""",
        )
    ],
    # Messages that are due and not sent. Index: messages_queued.
    "sends": [
        _of_each(
            distinct_sql("conversation_messages", "channel_account_id", "status = 'queued'"),
            _QUEUED.format(account="= w.id"),
        ),
        _QUEUED.format(account="IS NULL") + " LIMIT {most}",
    ],
    # Rolling summaries that are due. Index: to_be_summarised.
    "summaries": [
        """
        SELECT r.client_id, r.due_at AS since FROM conversation_summaries r
        WHERE r.due_at <= $1 ORDER BY r.due_at LIMIT {most}"""
    ],
    # Ended conversations that are not in memory yet. Index: to_be_remembered.
    "remembering": [
        _of_each(
            distinct_sql("conversations", "client_id", "remember_due_at IS NOT NULL"),
            """
        SELECT s.client_id, s.remember_due_at AS since FROM conversations s
        WHERE s.client_id = w.id AND s.remember_due_at <= $1 ORDER BY s.remember_due_at""",
        )
    ],
    # Remembered conversations whose archiving is due. Those that are read and are not due have no time. Index:
    # to_be_archived.
    "archiving": [
        _of_each(
            distinct_sql("conversations", "client_id", "remembered_at IS NOT NULL AND archived_at IS NULL"),
            f"""
        SELECT s.client_id, CASE WHEN {FREE} THEN s.ended_at + c.archive_after END AS since
        FROM conversations s JOIN clients c ON c.id = s.client_id
        JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
        WHERE s.client_id = w.id AND {IS_REMEMBERED}
          AND s.ended_at <= $1 - (SELECT archive_after FROM clients WHERE id = w.id)
        ORDER BY s.ended_at""",
        )
    ],
    # Provider events that could not be processed, also those of nobody. Index: events_to_retry.
    "events": [
        _of_each(
            distinct_sql("inbound_events", "client_id", "reason = 'processing_failed' AND settled_at IS NULL"),
            _EVENTS.format(client="= w.id") + " ORDER BY s.retry_at",
        ),
        _EVENTS.format(client="IS NULL") + " ORDER BY s.retry_at LIMIT {most}",
    ],
}
EVENTS = {"events": KINDS["events"]}


def _of_client(statement: str) -> str:
    """Return the statement for client $2 alone."""
    _, lateral, which = statement.partition("CROSS JOIN LATERAL (")
    if not lateral:
        return statement.replace("r.due_at <= $1", "r.due_at <= $1 AND r.client_id = $2")
    which = which.removesuffix(") AS each").replace("m.channel_account_id = w.id", "m.client_id = $2")
    return which.replace("w.id", "$2")


# The first statement of each kind is that of the clients. That of messages reads those without an account, too. In a
# cluster all events are on the coordinator.
OF_CLIENT = {kind: [_of_client(statements[0])] for kind, statements in KINDS.items() if kind not in EVENTS}


@dataclass(frozen=True, slots=True)
class Waiting:
    """The waiting work of one kind: its number, at most MOST_COUNTED; whether there is more; the oldest's time."""

    count: int = 0
    more: bool = False
    since: datetime | None = None


NOTHING = Waiting()


@dataclass(frozen=True, slots=True)
class ClientBacklog:
    """The waiting work of one client, by kind. client_id is None for events of accounts that nobody has."""

    client_id: UUID | None
    sub_domain: str
    waiting: Mapping[str, Waiting]


@dataclass(frozen=True, slots=True)
class Backlog:
    """The waiting work: of all clients together and of each that has something.

    complete: False if more rows wait than were read: then counts and ages are the least that they can be
    """

    total: Mapping[str, Waiting]
    clients: Sequence[ClientBacklog] = field(default_factory=list)
    complete: bool = True


def _read(now: datetime) -> list[tuple[Any, ...]]:
    """The rows of the statement. In a cluster each client's are read by one of its own, and all events by another."""
    if not is_cluster():
        return rows(_statement(), now)
    return rows_of_each_client(_statement(OF_CLIENT), now) + rows(_statement(EVENTS), now)


def backlog(client_ids: Sequence[UUID] | None, now: datetime) -> Backlog:
    """Return what waits at `now`.

    client_ids: of these clients; None for all
    """
    complete, summaries = True, 0
    counted: dict[str, list[tuple[int, datetime]]] = {}
    clients: dict[UUID | None, ClientBacklog] = {}
    for kind, client_id, sub_domain, rows_read, count, since in _read(now):
        summaries += rows_read if kind == "summaries" else 0
        if client_ids is not None and client_id not in client_ids:
            continue
        complete = complete and rows_read < MOST_READ
        if not since:
            continue
        counted.setdefault(kind, []).append((count, since))
        found = clients.setdefault(client_id, ClientBacklog(client_id, sub_domain or "", dict.fromkeys(KINDS, NOTHING)))
        clients[client_id] = ClientBacklog(client_id, found.sub_domain, {**found.waiting, kind: _waiting(count, since)})
    total = {kind: _together(counted.get(kind, [])) for kind in KINDS}
    by_name = sorted(clients.values(), key=lambda each: (each.sub_domain, str(each.client_id)))
    return Backlog(total, by_name, complete=complete and summaries < MOST_READ)


def _statement(kinds_read: Mapping[str, Sequence[str]] = KINDS) -> str:
    kinds = (
        f"(SELECT '{kind}' AS kind, client_id, count(*) AS read, count(since) AS count, min(since) AS since"
        f" FROM ({' UNION ALL '.join(f'({each.format(most=MOST_READ)})' for each in statements)}) AS {kind}"
        " GROUP BY client_id)"
        for kind, statements in kinds_read.items()
    )
    return f"""
        SELECT w.kind, w.client_id, c.sub_domain, w.read, w.count, w.since
        FROM ({" UNION ALL ".join(kinds)}) w LEFT JOIN clients c ON c.id = w.client_id"""


def _together(found: Sequence[tuple[int, datetime]]) -> Waiting:
    if not found:
        return NOTHING
    return _waiting(sum(count for count, _ in found), min(since for _, since in found))


def _waiting(count: int, since: datetime) -> Waiting:
    return Waiting(min(count, MOST_COUNTED), count > MOST_COUNTED, since)
