"""`/metrics`: the counts of all processes that share the folder of counts, and what waits, read from rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.utils import timezone
from prometheus_client import REGISTRY as OF_THIS_PROCESS
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from conversations.services.core.cluster import is_cluster, of_each, rows_over_all
from conversations.services.core.sql import rows
from conversations.services.jobs import backlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_CIRCUITS = """
    SELECT a.provider, count(*)
    FROM send_circuits o JOIN channel_accounts a ON a.client_id = o.client_id AND a.id = o.channel_account_id
    WHERE {only:o} AND o.opened_at IS NOT NULL GROUP BY a.provider"""
_ENDPOINTS = """
    SELECT c.sub_domain, count(*) FILTER (WHERE e.paused_at IS NOT NULL),
           count(*) FILTER (WHERE e.paused_at IS NULL AND e.failing_since IS NOT NULL)
    FROM event_endpoints e JOIN clients c ON c.id = e.client_id GROUP BY c.sub_domain"""
# Of each client that has endpoints at most so many are counted.
_POSTS = f"""
    SELECT c.sub_domain, count(p.created_at), min(p.created_at)
    FROM clients c CROSS JOIN LATERAL (
        SELECT d.created_at FROM event_endpoints e CROSS JOIN LATERAL (
            SELECT d.created_at FROM event_deliveries d
            WHERE d.client_id = e.client_id AND d.endpoint_id = e.id AND d.status = 'pending'
            ORDER BY d.position LIMIT {backlog.MOST_READ}) d
        WHERE e.client_id = c.id) p
    GROUP BY c.sub_domain"""

# The same in a cluster, for the clients of one endpoint after the other.
_POSTS_OF_ENDPOINT = f"""
    SELECT c.sub_domain, count(p.created_at), min(p.created_at)
    FROM clients c, (
        SELECT d.created_at FROM event_deliveries d
        WHERE d.client_id = $1 AND d.endpoint_id = $2 AND d.status = 'pending'
        ORDER BY d.position LIMIT {backlog.MOST_READ}) p
    WHERE c.id = $1 GROUP BY c.sub_domain"""


def _posts() -> list[tuple[str, int, datetime]]:
    if not is_cluster():
        return rows(_POSTS)
    names = rows("SELECT client_id, id FROM event_endpoints")
    found: dict[str, tuple[int, datetime]] = {}
    each = of_each(names, lambda client_id, pk: rows(_POSTS_OF_ENDPOINT, client_id, pk))
    for client, count, since in (one for posts in each for one in posts):
        before = found.get(client, (0, since))
        found[client] = (before[0] + count, min(before[1], since))
    return [(client, count, since) for client, (count, since) in found.items()]


def _open_circuits() -> Counter[str]:
    """Return how many accounts of each provider cannot be reached."""
    found: Counter[str] = Counter()
    for provider, count in rows_over_all(_CIRCUITS):
        found[provider] += count
    return found


def exposition() -> bytes:
    """Return the metrics as Prometheus reads them."""
    return counted() + generate_latest(_registry(_Rows(timezone.now())))


def counted() -> bytes:
    """Return the counts alone, for which no database is needed."""
    if os.environ.get(FOLDER):
        return generate_latest(_registry(MultiProcessCollector(None)))  # type: ignore[no-untyped-call]
    return generate_latest(OF_THIS_PROCESS)


def _registry(collector: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class _Rows:
    """A collector of what waits."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def describe(self) -> list[Any]:
        """Return nothing: the registry need not know the names beforehand."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        waiting = GaugeMetricFamily("convo_waiting", "What is due and not done.", labels=["client", "kind"])
        oldest = GaugeMetricFamily(
            "convo_waiting_oldest_seconds", "For how long the oldest has been waiting.", labels=["client", "kind"]
        )
        for client, kind, count, since in self._waiting():
            waiting.add_metric([client, kind], count)
            oldest.add_metric([client, kind], max((self._now - since).total_seconds(), 0) if since else 0)
        yield waiting
        yield oldest
        circuits = GaugeMetricFamily(
            "convo_circuits_open", "Accounts whose provider cannot be reached.", labels=["provider"]
        )
        for provider, count in _open_circuits().items():
            circuits.add_metric([provider], count)
        yield circuits
        troubled = GaugeMetricFamily(
            "convo_event_endpoints_in_trouble", "Endpoints of events.", labels=["client", "state"]
        )
        for client, paused, failing in rows(_ENDPOINTS):
            troubled.add_metric([client, "paused"], paused)
            troubled.add_metric([client, "failing"], failing)
        yield troubled

    def _waiting(self) -> Iterator[tuple[str, str, int, datetime | None]]:
        for each in backlog.backlog(None, self._now).clients:
            for kind, waiting in each.waiting.items():
                yield each.sub_domain, kind, waiting.count, waiting.since
        for client, count, since in _posts():
            yield client, "events_out", count, since
