"""The connections of this process to model providers, under the SDKs, and the meaning of their failures.

The SDKs' own connections cost a third of a reply's CPU: 1.3 ms a call and 0.11 ms for each piece of a stream. aiohttp,
whose parser is written in C and which both SDKs offer as an extra, takes 0.7 and 0.04 ms.
"""

from __future__ import annotations

import aiohttp
import httpx2
from httpx_aiohttp.httpx2 import AiohttpTransport


class Connections(AiohttpTransport):
    """The connections of all of the SDKs' clients; as many as there are calls. Cookies are kept by each client."""

    def get_client(self) -> aiohttp.ClientSession:
        """Return the session that holds the connections."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.ssl_context, limit=0), cookie_jar=aiohttp.DummyCookieJar()
        )


def code_of(error: Exception) -> str:
    """Return the LLMError's code for a call without an answer: `timeout`, `connect`, `bad_request` or `cut_off`.

    error: aiohttp's error, or one of which it is the cause
    """
    if isinstance(error, httpx2.InvalidURL):
        return "bad_request"
    cause: BaseException | None = error
    while cause and not isinstance(cause, aiohttp.ClientError):
        cause = cause.__cause__
    if isinstance(cause, aiohttp.ServerTimeoutError):
        return "timeout"
    if isinstance(cause, aiohttp.ClientConnectorError):
        return "connect"
    return "bad_request" if isinstance(cause, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError) else "cut_off"
