"""`/metrics` on the web port, for callers with METRICS_KEY as a bearer token. Without the setting it is a 404."""

from __future__ import annotations

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

from conversations.http import envelope
from conversations.services.jobs.exposition import CONTENT_TYPE, exposition


@envelope.get_only
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in Prometheus' text format."""
    key = settings.METRICS_KEY
    if not key:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(token.strip(), key):
        challenge = {"WWW-Authenticate": envelope.CHALLENGE}
        sentence = "METRICS_KEY is needed, as a bearer token."
        return envelope.failure(401, "not_authenticated", sentence, headers=challenge)
    try:
        return HttpResponse(exposition(), content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
    except (OperationalError, InterfaceError):
        return envelope.database_away()
