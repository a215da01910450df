"""Downloads of files that people sent: bounded in size and time, and to addresses that were checked.

A link may be anybody's: it is in a payload, or a server's redirect names it. So all hosts must have public addresses
(public_addresses.py), but for the host of the account's own API.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import IO
from urllib.parse import urljoin, urlsplit

from channels_out import http
from channels_out.errors import SendError
from channels_out.public_addresses import EVERYWHERE, Networks
from channels_out.shapes import clean_text

MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({401, 403, 404, 410})  # also what links answer that have run out
_BLOCK = 64 * 1024


def download(
    url: str,
    into: IO[bytes],
    *,
    headers: Mapping[str, str],
    own_host: str,
    most_bytes: int,
    timeout: tuple[float, float],
    seconds: float,
    private: Networks = (),
) -> int:
    """Write what the URL answers to the file and return its size in bytes.

    Arguments:
        headers: sent to the URL's host alone, and not to where it redirects.
        own_host: "host:port" of the account's API, whatever address it has.
        timeout: seconds to connect, and of silence.
        seconds: the time for all of it.
        private: further networks that may be reached although they are not public.

    Raises SendError: `too_large`, `gone` and `private_address` (not retryable), `http_503` and the like, `connect`,
    `timeout`, `connection_lost` (retryable).
    """
    deadline, sent = monotonic() + seconds, dict(headers)
    for _ in range(MOST_REDIRECTS + 1):
        host = urlsplit(url).netloc.lower()
        allowed = EVERYWHERE if host and host == own_host.lower() else private
        answer = _begin(url, sent, timeout, allowed)
        try:
            if answer.status_code not in _REDIRECTS:
                return _read(answer, into, most_bytes, deadline)
            url = urljoin(url, clean_text(answer.headers.get("Location", "")))
        finally:
            answer.close()
        if urlsplit(url).netloc.lower() != host:
            sent = {}
    raise SendError("The link redirects too often.", code="gone")


def _begin(url: str, headers: Mapping[str, str], timeout: tuple[float, float], allowed: Networks) -> http.Answer:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise SendError("The link is not valid.", code="gone")
    try:
        return http.begin("GET", url, None, headers={"Accept": "*/*", **headers}, timeout=timeout, private=allowed)
    except SendError as error:
        raise _again(error) from None


def _read(answer: http.Answer, into: IO[bytes], most_bytes: int, deadline: float) -> int:
    if answer.status_code in _GONE:
        raise SendError("The provider does not have the file any more.", code="gone")
    if not answer.ok:
        code, wait = f"http_{answer.status_code}", http.parse_retry_after(answer.headers.get("Retry-After", ""))
        raise SendError(f"The file was not given. ({code})", code=code, retryable=True, retry_after=wait)
    announced = answer.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and len(announced) < 20 and int(announced) > most_bytes:
        raise too_large()
    size = 0
    try:
        while block := answer.raw.read1(_BLOCK, decode_content=True):
            size += len(block)
            if size > most_bytes:
                raise too_large()
            if monotonic() > deadline:
                raise SendError("The file took too long.", code="timeout", retryable=True)
            into.write(block)
    except http.READING_ERRORS as error:
        raise _again(http.transport_error(error)) from None
    if announced.isascii() and announced.isdigit() and len(announced) < 20 and size < int(announced):
        raise SendError("The connection broke before the end of the file.", code="connection_lost", retryable=True)
    return size


def too_large() -> SendError:
    """Return the error for a file that is larger than allowed."""
    return SendError("The file is larger than allowed.", code="too_large")


def _again(error: SendError) -> SendError:
    """Return the error of a download, which may be repeated whatever became of the request."""
    refused = error.code in ("private_address", "invalid_request")
    return SendError(str(error), code=error.code, retryable=not refused)
