"""Health checks: `/healthz` says that the process lives, `/readyz` that it can serve; `/health/backlog` is in `api`.

The event loop answers `/readyz` itself, within READY_SECONDS, so that neither busy threads nor a frozen database keep a
load balancer waiting.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

from django.db import InterfaceError, OperationalError, ProgrammingError
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse

from conversations import earlier
from conversations.http import envelope
from conversations.services.core.statements import THIS_THREAD, BusyError, Statements, UnclearError, finish

READY_SECONDS = 2.0  # a server that answers later than that serves nobody
AGAIN = {"Retry-After": "1"}

_MISSING = """
    SELECT 1 FROM unnest($1::text[], $2::text[]) AS wanted (app, name)
    WHERE NOT EXISTS (SELECT FROM django_migrations m WHERE m.app = wanted.app AND m.name = wanted.name) LIMIT 1"""
_EARLIER = earlier.FIND.format("$1")


@envelope.get_only
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the process lives."""
    return envelope.success({"status": "ok"})


@envelope.get_only
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the database answers and is migrated, else 503 with the reason."""
    return finish(readiness(THIS_THREAD))


async def readiness_in_time(statements: Statements, *, stopping: bool) -> HttpResponse:
    """Return what `/readyz` answers, within READY_SECONDS.

    stopping: whether the process was asked to stop
    """
    if stopping:
        return envelope.failure(503, "stopping", "This process is about to stop.", headers=AGAIN)
    try:
        async with asyncio.timeout(READY_SECONDS):
            return await readiness(statements)
    except TimeoutError:
        return _away()


async def readiness(statements: Statements) -> HttpResponse:
    """Return 200 if the database answers and every migration of this version is applied, else 503 with the reason."""
    try:
        missing = await statements.read(_MISSING, *await statements.in_thread(_migrations))
        if missing and await statements.read(_EARLIER, earlier.MIGRATIONS):
            return envelope.failure(503, "earlier_version", earlier.REFUSAL, headers=AGAIN)
    except ProgrammingError:  # there is no table of migrations yet
        missing = (1,)
    except (OperationalError, InterfaceError, BusyError, UnclearError):
        return _away()
    if missing:
        return envelope.failure(
            503, "not_migrated", "The database lacks migrations of this version: run manage.py migrate.", headers=AGAIN
        )
    return envelope.success({"status": "ready"})


@lru_cache(maxsize=1)
def _migrations() -> tuple[list[str], list[str]]:
    """Return the apps and the names of all migrations of this version."""
    nodes = sorted(MigrationLoader(None).graph.nodes)
    return [app for app, _ in nodes], [name for _, name in nodes]


def _away() -> HttpResponse:
    sentence = "The database does not answer: does DATABASE_URL name it?"
    return envelope.failure(503, "database_away", sentence, headers=AGAIN)
