"""The simulated providers' end of the line: what a simulated account's sends reach instead of the provider.

It answers for simulated accounts alone, to whoever has the account's own credentials, and calls nobody.
"""

from __future__ import annotations

import time
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from channels_out.contract import InboundRequest
from conversations.http import envelope
from conversations.services.core.sql import release_connection
from conversations.services.simulator import simulator
from conversations.services.tenants.channel_accounts import SIMULATED_PATIENCE

LONGEST_BODY = 100_000  # bytes; no message of ours comes near


@csrf_exempt
def provider_end(request: HttpRequest, pk: UUID, rest: str = "") -> HttpResponse:
    """Answer as the account's provider would. What is no simulated account answers as a route that does not exist."""
    body = request.body
    if len(body) > LONGEST_BODY:
        return envelope.too_large(LONGEST_BODY)
    arrived = InboundRequest(
        method=request.method or "",
        url=request.get_full_path().partition(str(pk))[2],
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.GET.dict(),
        body=body,
    )
    answer = simulator.answer_request(pk, arrived, timezone.now())
    if answer is None:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
    if answer.silent:
        release_connection()
        time.sleep(min(settings.PROVIDER_TIMEOUT_SECONDS, SIMULATED_PATIENCE) + 1)  # longer than the sender waits
        return HttpResponse(status=504)
    return HttpResponse(
        answer.body, status=answer.status, content_type=answer.content_type, headers=dict(answer.headers)
    )
