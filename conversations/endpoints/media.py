"""The files of messages, for whoever has a link that has not run out: `/media/<token>`.

What people send is theirs and not ours: it is never a page of this host. A browser shows pictures and plays recordings
in place, and saves all else. It may guess no other type, and runs nothing in it.
"""

from __future__ import annotations

import re

from django.core.signing import BadSignature, SignatureExpired
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from conversations.http import envelope
from conversations.http.downloads import Download
from conversations.services.core import files
from conversations.services.media import content, shown

MOST_OF_RANGE = 8_000_000  # bytes of one answer; a player asks for the next ones
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Accept-Ranges": "bytes",
}


@require_safe
def media_file(request: HttpRequest, token: str) -> HttpResponseBase:
    """Return the file, or the part of it that is asked for. A link that has run out is a 410."""
    try:
        linked = files.read_link(token)
    except SignatureExpired:
        return _refused(410, "link_over", "This link has run out. Ask for the message again to get a new one.")
    except (BadSignature, ValueError, TypeError):
        return _refused(404, "not_found", envelope.NOT_FOUND)
    row = shown.find(linked.client_id, linked.attachment_id)
    name = (row.thumbnail if linked.small else row.file) if row else ""
    if row is None or not name:
        return _refused(404, "not_found", envelope.NOT_FOUND)
    if linked.small:
        return _answer(request, name, "thumbnail.webp", "image/webp", None)
    return _answer(request, name, shown.safe_name(row), row.content_type, row.size)


def _answer(request: HttpRequest, name: str, shown_as: str, content_type: str, size: int | None) -> HttpResponseBase:
    known = content_type in content.SHOWN
    start, length, more, status = 0, None, dict(HEADERS), 200
    part = _part(request.headers.get("Range", ""), size)
    if part is not None and size:
        start, length = part
        if length <= 0:
            answer = _refused(416, "bad_range", "There is no such part of the file.")
            answer["Content-Range"] = f"bytes */{size}"
            return answer
        more["Content-Range"], status = f"bytes {start}-{start + length - 1}/{size}", 206
    try:
        return Download(
            files.blocks(name, start, length),
            name=shown_as,
            content_type=content_type if known else content.UNKNOWN,
            shown=known,
            status=status,
            more=more,
        )
    except FileNotFoundError:
        return _refused(404, "not_found", envelope.NOT_FOUND)


def _part(asked: str, size: int | None) -> tuple[int, int] | None:
    """Return the start and length of the part that a Range header asks for (RFC 9110, 14.2); None: the whole file.

    A length of 0 or less: there is no such part.
    """
    found = _RANGE.fullmatch(asked.strip())
    if found is None or size is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(size - int(found[2]), 0), size - 1
        return (start, min(end - start + 1, MOST_OF_RANGE)) if int(found[2]) else (0, 0)
    start, end = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
    return start, min(end - start + 1, MOST_OF_RANGE)


def _refused(status: int, code: str, sentence: str) -> HttpResponse:
    answer = envelope.failure(status, code, sentence)
    for name in ("Cache-Control", "Referrer-Policy", "X-Robots-Tag"):
        answer[name] = HEADERS[name]
    return answer
