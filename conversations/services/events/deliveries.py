"""Deliveries: what is due at which endpoint, and what became of each attempt.

Within a conversation an event is posted after the one before was accepted, or given up. Any number of processes share
the work: a delivery is claimed by a lease.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from conversations.models import Event, EventDelivery, EventEndpoint
from conversations.services.core.cluster import all_clients, is_cluster, of_each, rows_over_all
from conversations.services.core.sql import column, rows
from conversations.services.events import endpoints
from conversations.services.events.bodies import as_bytes, bodies, event_id

AT_ONCE = 16  # requests to one endpoint
LEASE = timedelta(seconds=60)  # longer than a request may take
GIVE_UP_AFTER = timedelta(days=3)
# Waits before the next attempt, in seconds; the last one is repeated until the event is given up.
WAITS = (2, 5, 15, 60, 300, 900, 1_800, 3_600, 7_200)
FAILING_AFTER = 5  # failures in a row, after which an endpoint gets one request at a time
# Between the tries at an endpoint that fails: half the time for which it has failed, within these.
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=2), timedelta(hours=1)
LOOKED_AT = 5_000  # deliveries of an endpoint, the oldest, among which those that are due are looked for
GONE = "gone"

S = EventDelivery.Status


@dataclass(frozen=True, slots=True)
class Post:
    """An event to be posted: all that the network needs to know."""

    delivery_id: int
    client_id: UUID
    endpoint_id: UUID
    url: str
    secrets: tuple[str, ...]
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request. `code` is '' for a success."""

    delivery_id: int
    endpoint_id: UUID
    http_status: int | None
    code: str


_DUE_ENDPOINTS = """
    SELECT e.id FROM event_endpoints e
    WHERE e.paused_at IS NULL AND (e.next_try_at IS NULL OR e.next_try_at <= $1) AND EXISTS (
        SELECT FROM event_deliveries d
        WHERE d.client_id = e.client_id AND d.endpoint_id = e.id AND d.status = 'pending')
    ORDER BY e.next_try_at NULLS FIRST, e.id"""

# The same in a cluster, where none that all servers have is asked for beside rows of clients.
_READY_ENDPOINTS = """
    SELECT e.id FROM event_endpoints e
    WHERE e.paused_at IS NULL AND (e.next_try_at IS NULL OR e.next_try_at <= $1)
    ORDER BY e.next_try_at NULLS FIRST, e.id"""
_WAITED_FOR = "SELECT DISTINCT d.endpoint_id FROM event_deliveries d WHERE {only:d} AND d.status = 'pending'"

# The first of each conversation that still waits; events of no conversation wait for nothing.
_CLAIM = f"""
    WITH waiting AS (
        SELECT d.id, d.position, d.conversation_id, d.due_at, d.lease_until FROM event_deliveries d
        WHERE d.client_id = $1 AND d.endpoint_id = $2 AND d.status = 'pending' ORDER BY d.position LIMIT {LOOKED_AT}),
    heads AS (
        SELECT DISTINCT ON (COALESCE(conversation_id::text, id::text)) * FROM waiting
        ORDER BY COALESCE(conversation_id::text, id::text), position),
    due AS (
        SELECT d.id FROM event_deliveries d JOIN heads h ON h.id = d.id
        WHERE d.client_id = $1 AND d.status = 'pending' AND h.due_at <= $3
          AND (d.lease_until IS NULL OR d.lease_until < $3)
        ORDER BY h.position LIMIT $4 FOR UPDATE OF d SKIP LOCKED)
    UPDATE event_deliveries d SET lease_until = $5, last_attempt_at = $3, attempts = d.attempts + 1
    FROM due WHERE d.id = due.id AND d.client_id = $1
    RETURNING d.id, d.position"""


def claim(now: datetime, in_flight: Mapping[UUID, int], most: int) -> list[Post]:
    """Claim what is due and return it, endpoint by endpoint in turns. in_flight: requests by endpoint; most: in all."""
    posts: list[Post] = []
    due = _due_endpoints(now)
    for endpoint in EventEndpoint.objects.filter(pk__in=due):
        allowed = 1 if endpoint.failures >= FAILING_AFTER else AT_ONCE
        free = min(allowed - in_flight.get(endpoint.pk, 0), most - len(posts))
        if free > 0:
            posts += next(of_each([(endpoint, now, free)], _claim_of), [])
    return posts


def _due_endpoints(now: datetime) -> list[UUID]:
    if not is_cluster():
        return list(column(_DUE_ENDPOINTS, now))
    waited_for = {pk for (pk,) in rows_over_all(_WAITED_FOR)}
    return [pk for pk in column(_READY_ENDPOINTS, now) if pk in waited_for]


def _claim_of(endpoint: EventEndpoint, now: datetime, most: int) -> list[Post]:
    claimed = rows(_CLAIM, endpoint.client_id, endpoint.pk, now, most, now + LEASE)
    at = {position: pk for pk, position in claimed}
    events = list(
        Event.objects.filter(client_id=endpoint.client_id, position__in=list(at)).order_by("position") if at else []
    )
    if lost := set(at) - {each.position for each in events}:  # erased, or older than EVENT_DAYS
        EventDelivery.objects.filter(client_id=endpoint.client_id, pk__in=[at[each] for each in lost]).delete()
    secrets = tuple(endpoints.signing_secrets(endpoint, now))
    return [
        Post(
            delivery_id=at[each.position],
            client_id=endpoint.client_id,
            endpoint_id=endpoint.pk,
            url=endpoint.url,
            secrets=secrets,
            event_id=event_id(endpoint.client_id, each.position),
            body=as_bytes(body),
        )
        for each, body in zip(events, bodies(endpoint.client_id, events), strict=True)
    ]


def record(outcomes: Sequence[Outcome], now: datetime) -> None:
    """Store what became of requests."""
    by_endpoint: dict[UUID, list[Outcome]] = {}
    for each in outcomes:
        by_endpoint.setdefault(each.endpoint_id, []).append(each)
    for endpoint_id, theirs in sorted(by_endpoint.items()):
        if is_cluster():
            _record_apart(endpoint_id, theirs, now)
            continue
        with transaction.atomic():
            endpoint = EventEndpoint.objects.select_for_update().filter(pk=endpoint_id).first()
            if endpoint:
                _settle(endpoint, theirs, now)
                _note(endpoint, theirs, now)


def _record_apart(endpoint_id: UUID, outcomes: Sequence[Outcome], now: datetime) -> None:
    """Store the same in two transactions: in a cluster every server has the endpoint, which waits for one that is away.

    The deliveries do not, or they would be posted again.
    """

    def settle() -> None:
        endpoint = EventEndpoint.objects.filter(pk=endpoint_id).first()
        if endpoint:
            _settle(endpoint, outcomes, now)

    def note() -> None:
        endpoint = EventEndpoint.objects.select_for_update().filter(pk=endpoint_id).first()
        if endpoint:
            _note(endpoint, outcomes, now)

    def done(part: Callable[[], None]) -> None:
        with transaction.atomic():
            part()

    for _ in of_each([(settle,), (note,)], done):
        pass


def _settle(endpoint: EventEndpoint, outcomes: Sequence[Outcome], now: datetime) -> None:
    theirs = EventDelivery.objects.filter(client_id=endpoint.client_id, endpoint=endpoint)
    for each in outcomes:
        if not each.code:
            theirs.filter(pk=each.delivery_id).update(
                status=S.DELIVERED, http_status=each.http_status, code="", lease_until=None
            )
        elif delivery := theirs.filter(pk=each.delivery_id).first():
            _fail(delivery, each, now)


def _note(endpoint: EventEndpoint, outcomes: Sequence[Outcome], now: datetime) -> None:
    failed = [each for each in outcomes if each.code]
    if len(failed) < len(outcomes):
        _note_success(endpoint, now)
    elif failed:
        _note_failure(endpoint, failed, now)


def _fail(delivery: EventDelivery, outcome: Outcome, now: datetime) -> None:
    """Queue the delivery again, or give it up after GIVE_UP_AFTER."""
    if now - delivery.created_at >= GIVE_UP_AFTER:
        delivery.status = S.FAILED
    delivery.due_at = now + _wait(delivery.attempts)
    delivery.http_status, delivery.code, delivery.lease_until = outcome.http_status, outcome.code[:40], None
    delivery.save(update_fields=["status", "due_at", "http_status", "code", "lease_until"])


def _wait(attempts: int) -> timedelta:
    seconds = WAITS[min(max(attempts, 1), len(WAITS)) - 1]
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing


def _note_success(endpoint: EventEndpoint, now: datetime) -> None:
    was_failing = endpoint.failures >= FAILING_AFTER
    endpoint.failures, endpoint.failing_since, endpoint.next_try_at = 0, None, None
    endpoint.succeeded_at = now
    endpoint.save(update_fields=["failures", "failing_since", "next_try_at", "succeeded_at"])
    if was_failing:  # what waits need not wait for its own time
        EventDelivery.objects.filter(
            client_id=endpoint.client_id, endpoint=endpoint, status=S.PENDING, due_at__gt=now
        ).update(due_at=now)


def _note_failure(endpoint: EventEndpoint, failed: Sequence[Outcome], now: datetime) -> None:
    endpoint.failures += len(failed)
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.last_code = failed[-1].code[:40]
    if endpoint.failures >= FAILING_AFTER:
        endpoint.next_try_at = now + min(max((now - endpoint.failing_since) / 2, SHORTEST_WAIT), LONGEST_WAIT)
    if any(each.code == GONE for each in failed):
        endpoint.paused_at, endpoint.pause_reason = now, GONE
    elif now - endpoint.failing_since >= GIVE_UP_AFTER:
        endpoint.paused_at, endpoint.pause_reason = now, "failing"
    endpoint.save(update_fields=["failures", "failing_since", "last_code", "next_try_at", "paused_at", "pause_reason"])


def delete_old(now: datetime, days: int) -> int:
    """Delete events, their notes and their deliveries that are older than so many days, and return how many events."""
    before = now - timedelta(days=days)
    return sum(of_each([(client_id, before) for client_id in all_clients()], _delete_old_of))


def _delete_old_of(client_id: UUID, before: datetime) -> int:
    EventDelivery.objects.filter(client=client_id, created_at__lt=before).delete()
    total = 0
    while gone := rows(_DELETE_EVENTS, client_id, before):
        total += len(gone)
    while rows(_DELETE_NOTES, client_id, before):
        pass
    return total


_DELETE = """
    DELETE FROM {table} WHERE client_id = $1 AND id IN (
        SELECT oldest.id FROM (
            SELECT e.id, e.created_at FROM {table} e WHERE e.client_id = $1 ORDER BY e.id LIMIT 5000) oldest
        WHERE oldest.created_at < $2)
    RETURNING id"""
_DELETE_EVENTS, _DELETE_NOTES = _DELETE.format(table="events"), _DELETE.format(table="event_notes")


def forget(client_id: UUID, conversation_ids: Sequence[UUID]) -> None:
    """Delete the events of the client's conversations, and what is on its way of them."""
    for model in (EventDelivery, Event):
        model._default_manager.filter(client_id=client_id, conversation_id__in=conversation_ids).delete()
    rows(
        "DELETE FROM event_notes WHERE client_id = $1 AND conversation_id = ANY ($2::uuid[]) RETURNING id",
        client_id,
        list(conversation_ids),
    )
