"""The simulated providers' end of the line: what a simulated account's sends reach instead of the provider.

It answers for simulated accounts alone, to whoever has the account's own credentials, and calls nobody. A file has a
link besides, as at Messenger: whoever has it gets the file.
"""

from __future__ import annotations

import time
from io import SEEK_END
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from channels_out.contract import InboundRequest
from conversations.endpoints.media import HEADERS
from conversations.http import envelope
from conversations.http.downloads import Download
from conversations.services.core import files
from conversations.services.core.sql import release_connection
from conversations.services.simulator import phone_files, provider
from conversations.services.simulator.phone_files import ChosenFile, StoredFile
from conversations.services.tenants.channel_accounts import SIMULATED_PATIENCE

LONGEST_BODY = 100_000  # bytes; no message of ours comes near
LONGEST_UPLOAD = 3_500_000  # bytes of a file
LINKS = "files/"  # the beginning of the paths of files, before their token


@csrf_exempt
def provider_end(request: HttpRequest, pk: UUID, rest: str = "") -> HttpResponseBase:
    """Answer as the account's provider would. What is no simulated account answers as a route that does not exist."""
    if rest.startswith(LINKS) and request.method == "GET":
        return _file(phone_files.behind_link(pk, rest.removeprefix(LINKS)))
    body, is_upload = request.body, rest.endswith("media")
    longest = LONGEST_UPLOAD if is_upload else LONGEST_BODY
    if len(body) > longest:
        return envelope.too_large(longest)
    arrived = InboundRequest(
        method=request.method or "",
        url=request.get_full_path().partition(str(pk))[2],
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.GET.dict(),
        body=body,
    )
    upload = _uploaded(request) if is_upload else None
    answer = provider.answer_request(pk, arrived, timezone.now(), upload=upload)
    if answer is None:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
    if answer.file:
        return _file(answer.file)
    response = answer.response
    if response.silent:
        release_connection()
        time.sleep(min(settings.PROVIDER_TIMEOUT_SECONDS, SIMULATED_PATIENCE) + 1)  # longer than the sender waits
        return HttpResponse(status=504)
    return HttpResponse(
        response.body, status=response.status, content_type=response.content_type, headers=dict(response.headers)
    )


def _uploaded(request: HttpRequest) -> ChosenFile | None:
    """Return the file of a form; None if there is none."""
    try:
        found = request.FILES.get("file")
    except MultiPartParserError:
        return None
    if found is None or found.file is None:
        return None
    return ChosenFile(found.name or "file", found.file, found.file.seek(0, SEEK_END), found.content_type or "")


def _file(found: StoredFile | None) -> HttpResponseBase:
    """Return the file: a browser shows pictures in place, and saves all else."""
    if found is None:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
    try:
        return Download(
            files.blocks(found.stored_as),
            name=found.name,
            content_type=found.content_type,
            shown=found.content_type in phone_files.PICTURES,
            more={name: value for name, value in HEADERS.items() if name != "Accept-Ranges"},
        )
    except FileNotFoundError:
        return envelope.failure(404, "not_found", envelope.NOT_FOUND)
