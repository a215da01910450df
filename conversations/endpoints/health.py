"""Whether the process lives, and whether the work gets done."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from conversations.http import envelope
from conversations.services.jobs import overdue


@envelope.get_only
def healthz(request: HttpRequest) -> HttpResponse:
    """The process lives."""
    return envelope.success({"status": "ok"})


@envelope.get_only
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and nothing that is due waits longer than it should."""
    try:
        report = overdue.oldest_overdue()
    except (OperationalError, InterfaceError):
        return envelope.failure(503, "database_away", "The database does not answer: does DATABASE_URL name it?")
    if report.late:
        return envelope.failure(503, "workers_late", report.late, {"waiting": report.as_dict()})
    return envelope.success(report.as_dict())
