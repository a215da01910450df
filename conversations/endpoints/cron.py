"""Scheduled work over HTTP, for hosts that run no queue: `/cron/sweep` and `/cron/cleanup`.

Callers send `Authorization: Bearer <CRON_SECRET>`. Where no secret is set the routes are 404.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt

from conversations.http import envelope
from conversations.services.desk import giving_back, mails
from conversations.services.figures import keeping as figures
from conversations.services.history import archive, remember
from conversations.services.jobs.sweep import sweep as run_sweep
from conversations.services.media import removals
from conversations.services.replies import chat_endings
from conversations.services.retention import erasure, retention
from conversations.services.transitions import handovers, rating_questions

METHODS = ("GET", "POST")
REMOVE_FILES_SECONDS = 60.0
TELL_SECONDS = 30.0


@csrf_exempt
def sweep(request: HttpRequest) -> HttpResponse:
    """Run the sweep, and the work of other schedules: hand-overs at an opening, e-mails to staff, remembering,
    archiving, ending chats, continuing erasures, asking about satisfaction, keeping figures."""

    def swept() -> dict[str, Any]:
        now = timezone.now()
        report = asdict(run_sweep(now))
        report.pop("examples")
        return {
            **report,
            "handed_over": handovers.make_due(now),
            "given_back": giving_back.give_back_of_absent(),
            "mails_sent": mails.tell(now, time.monotonic() + TELL_SECONDS),
            "remembered": remember.remember_ended() if remember.count_pending() else 0,
            "archived": archive.archive(now),
            "chats_settled": chat_endings.settle_due() if chat_endings.is_pending() else 0,
            "files_removed": removals.remove_due(now, time.monotonic() + REMOVE_FILES_SECONDS),
            "erased": erasure.continue_erasures(now) if erasure.pending() else 0,
            "asked": rating_questions.ask_due(now) if rating_questions.is_pending() else 0,
            "figures": figures.keep(now) if figures.is_pending(now) else 0,
        }

    return _answer_cron(request, swept)


@csrf_exempt
def cleanup(request: HttpRequest) -> HttpResponse:
    """Delete what the retention policies no longer keep."""

    def cleaned_up() -> dict[str, Any]:
        report = asdict(retention.clean_up(timezone.now(), by="/cron/cleanup"))
        mails.delete_old(timezone.now())
        return {"receipts" if name == "sends" else name: value for name, value in report.items()}  # the route's word

    return _answer_cron(request, cleaned_up)


def _answer_cron(request: HttpRequest, work: Callable[[], dict[str, Any]]) -> HttpResponse:
    secret = settings.CRON_SECRET
    if not secret:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
    if not constant_time_compare(_bearer_token(request), secret):
        challenge = {"WWW-Authenticate": envelope.CHALLENGE}
        return envelope.failure(
            401, "not_authenticated", "CRON_SECRET is needed, as a bearer token.", headers=challenge
        )
    if request.method not in METHODS:
        return envelope.wrong_method(request.method, *METHODS)
    try:
        return envelope.success(work())
    except (OperationalError, InterfaceError):
        return envelope.database_away()


def _bearer_token(request: HttpRequest) -> str:
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return str(token).strip() if scheme.lower() == "bearer" else ""
