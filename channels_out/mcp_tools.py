"""Tools of MCP servers: listed and called by the official SDK, over our own guarded HTTP.

The SDK is an extra (`mcp`): it is imported when it is needed. Its requests go through `channels_out/http.py`, which
refuses addresses that are not public, bounds answers, and knows whether a request has left. Streams that a server would
send on its own are not opened: each call is a session of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import orjson

from channels_out import http, mcp_files
from channels_out.errors import SendError
from channels_out.tools import (
    CONNECT_SECONDS,
    MOST_ANSWER_BYTES,
    Outcome,
    ToolRequest,
    ToolResult,
    bounded,
    is_unclear,
    transport_failure,
)

MOST_TOOLS = 200
NOT_INSTALLED = "MCP's package is not installed. Install it beside Convo: python -m pip install 'mcp>=2.0'."
_CALL = "tools/call"
_NOT_BEGUN = {-32700, -32600, -32601, -32602}  # of JSON-RPC 2.0, section 5.1: the request was refused as it is
_HOP_HEADERS = {"connection", "content-length", "content-encoding", "transfer-encoding", "host", "accept-encoding"}

T = TypeVar("T")


class McpError(Exception):
    """A server could not be asked for its tools. The sentence is ours and quotes nothing of the server's."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server lists it. The hints are the server's own claims: None where it makes none."""

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool | None = None
    idempotent: bool | None = None


@dataclass(slots=True)
class _Watch:
    """The state of one session's requests, from which the outcome of its call is told.

    failure     of the last request that got no whole answer
    called      the request that calls the tool has been answered
    calling     it has been posted, or was about to be
    """

    request: ToolRequest
    deadline: float = 0.0
    failure: SendError | None = None
    calling: bool = False
    called: bool = False
    status: int = field(default=0)

    def __post_init__(self) -> None:
        self.deadline = monotonic() + self.request.seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left for the session."""
        return self.deadline - monotonic()


def list_tools(request: ToolRequest) -> list[ListedTool]:
    """Return the server's tools, at most MOST_TOOLS. Raises McpError."""

    async def work(session: Any) -> list[ListedTool]:
        found: list[ListedTool] = []
        cursor = None
        while len(found) < MOST_TOOLS:
            page = await session.list_tools(cursor=cursor)
            found += [_listed(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                break
        return found[:MOST_TOOLS]

    watch = _Watch(request)
    try:
        return _run(watch, work)
    except McpError:
        raise
    except Exception as error:
        if watch.failure is not None:
            raise McpError(f"The server could not be asked. ({watch.failure.code})") from None
        status = f" It answered with status {watch.status}." if watch.status >= 300 else ""
        raise McpError(f"The server did not list its tools ({type(error).__name__}).{status}") from None


def call(request: ToolRequest) -> ToolResult:
    """Call the server's tool and return what became of it. Never raises."""

    async def work(session: Any) -> Any:
        meta = {"idempotency_key": request.key}
        return await session.call_tool(request.name, dict(request.arguments), meta=meta)

    watch = _Watch(request)
    try:
        result = _run(watch, work)
    except McpError as error:
        return ToolResult(Outcome.NOT_SENT, f"The tool could not be reached. {error}", "not_installed")
    except Exception as error:
        return _failure(watch, error)
    if result.is_error:
        text = bounded(_text(result))
        return ToolResult(Outcome.FAILED, f"The tool failed. It said: {text}" if text else "The tool failed.", "error")
    files, refused = mcp_files.files_of(result.content) if request.may_give else ((), ())
    return ToolResult(Outcome.ANSWERED, bounded(_text(result, are_taken=bool(files))), files=files, refused=refused)


def _failure(watch: _Watch, error: Exception) -> ToolResult:
    """Return the result of a session that ended in an error."""
    if not watch.calling:
        code = watch.failure.code if watch.failure else f"http_{watch.status}" if watch.status >= 300 else "mcp_error"
        return ToolResult(Outcome.NOT_SENT, "The tool could not be reached. Nothing was done.", code[:40])
    if watch.failure is not None and not watch.called:
        return transport_failure(watch.failure)
    if not watch.called:
        return ToolResult(Outcome.UNKNOWN, code="no_answer")
    if is_unclear(watch.status):
        return ToolResult(Outcome.UNKNOWN, code=f"http_{watch.status}")
    number = _number_of(error)
    code = f"mcp_{number}" if number is not None else "mcp_error"
    if watch.status >= 300 or number in _NOT_BEGUN:
        return ToolResult(Outcome.FAILED, "The tool failed.", code)
    return ToolResult(Outcome.UNKNOWN, code=code)


def _number_of(error: BaseException) -> int | None:
    """Return the number of JSON-RPC's error, which the SDK's task groups wrap; None if the server sent none."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    number: Any = getattr(error, "code", None)
    return number if type(number) is int else None


def _listed(tool: Any) -> ListedTool:
    hints = tool.annotations
    return ListedTool(
        name=tool.name,
        description=bounded(tool.description or tool.title or ""),
        parameters=dict(tool.input_schema),
        read_only=hints.read_only_hint if hints else None,
        idempotent=hints.idempotent_hint if hints else None,
    )


def _text(result: Any, *, are_taken: bool = False) -> str:
    """Return the texts of the answer; else its structured content as JSON. are_taken: its files are for the person."""
    if texts := mcp_files.texts_of(result.content):
        return "\n".join(texts)
    if result.structured_content is not None:
        return orjson.dumps(result.structured_content, default=str).decode()
    return "The tool answered with something that is no text." if result.content and not are_taken else ""


def _run(watch: _Watch, work: Callable[[Any], Awaitable[T]]) -> T:
    """Return the result of the work on a session with the server, on this thread, within the request's time."""
    try:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        raise McpError(NOT_INSTALLED) from None

    class Guarded(httpx2.AsyncBaseTransport):
        """Sends the SDK's requests by our own guarded HTTP; the loop is this call's alone, so it may block."""

        async def handle_async_request(self, request: Any) -> Any:
            body = await request.aread()
            if request.method == "GET":
                return httpx2.Response(405, request=request)  # no stream of the server's own
            answer = _exchange(watch, request.method, str(request.url), body, request.headers)
            kept = {name: value for name, value in answer.headers.items() if name not in _HOP_HEADERS}
            return httpx2.Response(answer.status, headers=kept, content=answer.body, request=request)

    async def session() -> T:
        async with (
            httpx2.AsyncClient(transport=Guarded(), headers=dict(watch.request.headers)) as client,
            asyncio.timeout(watch.request.seconds + CONNECT_SECONDS),
            Client(streamable_http_client(watch.request.url, http_client=client), cache=None) as connected,
        ):
            return await work(connected)

    return asyncio.run(session())


def _exchange(watch: _Watch, method: str, url: str, body: bytes, headers: Any) -> http.HttpAnswer:
    """Send one request of the session and note what became of it. Raises SendError."""
    is_call = method == "POST" and _method_of(body) == _CALL
    sent = {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}
    if is_call:
        if watch.left < watch.request.seconds / 2:  # cut short, the call would be of unknown outcome
            watch.failure = SendError("The server took too long before the call.", code="timeout", retryable=True)
            raise watch.failure
        sent["Idempotency-Key"] = watch.request.key
        watch.calling = True
    seconds = max(watch.left, 0.1)
    try:
        answer = http.exchange(
            method,
            url,
            body,
            headers=sent,
            timeout=(min(CONNECT_SECONDS, seconds), seconds),
            private=watch.request.private,
            most_bytes=MOST_ANSWER_BYTES,
        )
    except SendError as error:
        if not watch.called:
            watch.failure = error
        raise
    if not watch.called:
        watch.status = answer.status
    watch.called = watch.called or is_call
    return answer


def _method_of(body: bytes) -> str:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(message.get("method", "")) if isinstance(message, dict) else ""
