"""Sends requests to model providers through their SDKs, and reads answers and streams.

`openai`, `anthropic` and their connections are imported inside the functions: they take half a second and 40 MB that
the web process, which imports this module on its way to the models, never needs. The typed layers of the SDKs are not
used: they take 2.6 ms of CPU for twenty messages, the rest of a call takes 0.7 ms, and they drop what a server adds.
`memory/event_loop.py` keeps each call to its deadline.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from memory import event_loop
from memory.language_models import errors
from memory.language_models.contract import Kind, LLMError, ModelAccess

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

    from memory.language_models.connections import Connections

    Client = AsyncOpenAI | AsyncAnthropic

OWN_ADDRESS = {
    Kind.OPENAI: "https://api.openai.com/v1",
    Kind.COMPATIBLE: "https://api.openai.com/v1",
    Kind.ANTHROPIC: "https://api.anthropic.com",
}
_NO_ANSWER = {
    "bad_request": "The request cannot be sent as it is.",
    "connect": "No connection to the model provider.",
    "cut_off": "The connection to the model provider broke off.",
    "timeout": "The model gave no answer in time.",
}
CLOSE_SECONDS = 1.0
NO_KEY = "none"  # the SDKs refuse an empty one; the header is left out instead


def warm_up(access: ModelAccess) -> None:
    """Load the provider's SDK, which takes seconds, so that no call's time runs meanwhile, and no other call waits."""
    if not is_warm(access):
        _client_and_options(access)


def is_warm(access: ModelAccess) -> bool:
    """Return whether the provider's SDK is loaded."""
    return _clients.has(access.kind)


def post(
    access: ModelAccess,
    path: str,
    body: Mapping[str, Any],
    seconds: float,
    *,
    files: Mapping[str, tuple[str, bytes]] | None = None,
) -> bytes:
    """Return the body of the server's answer of status 2xx, within `seconds`. Raises LLMError.

    files: by field, as name and content; then `body` is sent as the fields of a form beside them
    """

    async def call() -> bytes:
        client, options = _client_and_options(access)
        more: dict[str, Any] = {}
        if files:
            options = {"headers": {**options.get("headers", {}), "Content-Type": "multipart/form-data"}}
            more = {"files": [(field, file) for field, file in files.items()]}
        answer: bytes = await client.post(path, body=body, cast_to=bytes, options=options, **more)
        return answer

    try:
        return event_loop.run(call(), seconds)
    except TimeoutError:
        failure = LLMError(f"The model gave no answer within {seconds:g} s.", code="timeout", retryable=True)
    except ValueError:
        failure = _cannot_be_encoded()
    except LLMError:
        raise
    except Exception as error:
        failure = _as_llm_error(error, body, access)
    # Raised here and not in the handler, so that no traceback shows the SDK's error: that quotes the server, which may
    # quote the request or the key.
    raise failure


class Stream:
    """An answer that is read while it is written. Iterate over `next` and close it at the end."""

    def __init__(self, access: ModelAccess, path: str, body: Mapping[str, Any]) -> None:
        self._access, self._path, self._body = access, path, body
        self._opened: Any = None

    async def open(self) -> None:
        """Send the request and read the answer's head. Raises LLMError."""
        if self._access.kind is Kind.ANTHROPIC:
            from anthropic import AsyncStream
        else:
            from openai import AsyncStream  # type: ignore[assignment]
        try:
            client, options = _client_and_options(self._access)
            self._opened = await client.post(
                self._path,
                body=self._body,
                cast_to=object,
                options=options,
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except ValueError:
            failure = _cannot_be_encoded()
        except Exception as error:
            failure = _as_llm_error(error, self._body, self._access)
        else:
            return
        raise failure  # here, so that no traceback shows the SDK's error, which quotes the server

    async def next(self) -> object | None:
        """Return the next event; None after the last. Raises LLMError."""
        try:
            return await anext(self._opened, None)
        except (ValueError, LookupError, TypeError, RecursionError):
            failure = LLMError("The stream is not one of a model's answer.", code="bad_answer", retryable=True)
        except Exception as error:
            failure = _broken_stream(error)
        raise failure

    async def close(self) -> None:
        """Close the connection, or give it back if all was read."""
        close = getattr(self._opened, "aclose", None) or getattr(self._opened, "close", None)
        if close is not None:
            await close()


def _broken_stream(error: Exception) -> LLMError:
    """Return the error for what an SDK raised in mid-stream: the provider's own, or the end of the connection."""
    body = getattr(error, "body", None)
    if _is_of_sdk(error) and body:
        return errors.in_answer(body)
    if _is_of_sdk(error) or _is_of_connections(error):
        return LLMError("The model's stream broke off.", code="cut_off", retryable=True)
    raise error


def _is_of_sdk(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("openai", "anthropic")


def _is_of_connections(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("httpx2", "aiohttp")


def _cannot_be_encoded() -> LLMError:
    return LLMError("The request holds what cannot be encoded.", code="bad_request", retryable=False)


def _as_llm_error(error: Exception, sent: Mapping[str, Any], access: ModelAccess) -> LLMError:
    """Return the LLMError that stands for the SDK's error. Both SDKs name their errors alike."""
    from memory.language_models.connections import code_of

    if not _is_of_sdk(error) and not _is_of_connections(error):
        raise error
    response = getattr(error, "response", None)
    if response is not None and any(each.__name__ == "APIStatusError" for each in type(error).__mro__):
        return errors.of_status(response.status_code, _body_of(error), response.headers, sent, access)
    code = code_of(error)
    return LLMError(_NO_ANSWER[code], code=code, retryable=code != "bad_request")


def _body_of(error: Exception) -> object:
    """Return the JSON of a refused request's answer; the SDK gives OpenAI's error object, or the text."""
    body = getattr(error, "body", None)
    if body is not None:
        return body
    response = getattr(error, "response", None)
    try:
        return response.text if response is not None else ""
    except Exception:  # the body was not read
        return ""


# --- the SDKs' clients -----------------------------------------------------------------------------------------------
def _client_and_options(access: ModelAccess) -> tuple[Any, Any]:
    """Return the SDK's client for the provider, and the options for each of its requests."""
    if access.key:
        return _clients.client(access), {}
    from openai import Omit

    if access.kind is Kind.ANTHROPIC:
        from anthropic import Omit  # type: ignore[assignment]
    given = {name.lower() for name in access.headers}
    omitted = [name for name in ("Authorization", "X-Api-Key") if name.lower() not in given]
    return _clients.client(access), {"headers": {name: Omit() for name in omitted}}


def address_and_query(access: ModelAccess) -> tuple[str, dict[str, str]]:
    """Return the provider's address without a query, and the query parameters of every request to it."""
    parts = urlsplit(access.base_url or OWN_ADDRESS[access.kind])
    path = parts.path.rstrip("/")
    if access.kind is Kind.ANTHROPIC:
        path = path.removesuffix("/v1")  # the SDK adds it
    address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return address, {**dict(parse_qsl(parts.query, keep_blank_values=True)), **access.query}


class _ClientCache:
    """One client for each key, address and set of headers. It keeps a few: a provider's key changes rarely."""

    MOST = 200

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[Any, ...], Client] = {}
        self._connections: Connections | None = None

    def has(self, kind: Kind) -> bool:
        """Return whether there is a client for the kind of providers, so that its SDK is loaded."""
        with self._lock:
            return any(key[0] is kind for key in self._clients)

    def client(self, access: ModelAccess) -> Client:
        """Return the client, with its pool of connections. It never retries: our rows hold the retry policy."""
        address, query = address_and_query(access)
        headers = dict(access.headers)
        key = (access.kind, access.key, address, access.seconds, *query.items(), "", *headers.items())
        with self._lock:
            if key not in self._clients:
                while len(self._clients) >= self.MOST:
                    del self._clients[next(iter(self._clients))]
                self._connections = self._connections or _new_connections()
                self._clients[key] = _new_client(access, address, query, headers, self._connections)
            return self._clients[key]

    def close(self) -> None:
        """Close all connections."""
        if self._connections:
            with suppress(Exception):
                event_loop.run(self._connections.aclose(), CLOSE_SECONDS)


def _new_connections() -> Connections:
    from memory.language_models.connections import Connections

    return Connections()


def _new_client(
    access: ModelAccess, address: str, query: dict[str, str], headers: dict[str, str], connections: Connections
) -> Client:
    given: dict[str, Any] = {
        "api_key": access.key or NO_KEY,
        "base_url": address,
        "timeout": access.seconds,
        "max_retries": 0,
        "default_query": dict(query),
        "default_headers": headers,
    }
    if access.kind is Kind.ANTHROPIC:
        from anthropic import AsyncAnthropic
        from anthropic import DefaultAsyncHttpxClient as AnthropicsHttp

        return AsyncAnthropic(**given, http_client=AnthropicsHttp(transport=connections))
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    return AsyncOpenAI(**given, http_client=DefaultAsyncHttpxClient(transport=connections))


_clients = _ClientCache()
_of_parents: list[_ClientCache] = []  # kept: closed here, a connection would be lost to the parent's event loop as well


def _reset() -> None:
    global _clients
    _of_parents.append(_clients)
    _clients = _ClientCache()


def _close() -> None:
    _clients.close()


event_loop.after_fork(_reset)
atexit.register(_close)  # aiohttp complains of connections that nobody closed
