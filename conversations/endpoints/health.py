"""Health checks: `/healthz` for the process, `/readyz` for the database and the workers."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from conversations.http import envelope
from conversations.services.jobs import overdue


@envelope.get_only
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the process lives."""
    return envelope.success({"status": "ok"})


@envelope.get_only
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the database answers and no due work is overdue, else 503 with the reason."""
    try:
        report = overdue.oldest_overdue()
    except (OperationalError, InterfaceError):
        return envelope.failure(503, "database_away", "The database does not answer: does DATABASE_URL name it?")
    if report.late:
        return envelope.failure(503, "workers_late", report.late, {"waiting": report.as_dict()})
    return envelope.success(report.as_dict())
