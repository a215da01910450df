"""A real MCP server, by the official SDK over streamable HTTP, on a loopback port: a shop's CRM.

    with FakeMcp(token="t0ken") as server:
        server.url, server.calls == [("find_order", {"order": "4711"}, "<idempotency key>")]

`legacy`: it knows no version of the protocol after the one with sessions. Requests without the token get a 401.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any, Self

import uvicorn
from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel


class Part(BaseModel):
    """A part of an order, with parts of its own: a schema that refers to itself."""

    name: str
    parts: list[Part] = []


class FakeMcp:
    """The server.

    slow    seconds that each call takes
    broken  the status, or the error, that answers each call
    shown   the content that the tool `show` answers with, by name
    """

    def __init__(self, token: str = "", *, legacy: bool = False) -> None:
        self.token, self.legacy, self.slow = token, legacy, 0.0
        self.broken: int | dict[str, Any] | None = None
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        self.shown: dict[str, list[Any]] = {}
        self._mcp = self._tools()
        self._app = self._mcp.streamable_http_app()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        config = uvicorn.Config(self._serve, log_level="critical", lifespan="on", interface="asgi3")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="mcp", daemon=True
        )

    @property
    def url(self) -> str:
        """The address of its endpoint."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"

    def unlist(self, name: str) -> None:
        """Have one tool less from now on."""
        self._mcp.remove_tool(name)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the MCP server ended"
            assert time.monotonic() < deadline, "the MCP server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(5)

    def _tools(self) -> MCPServer:
        mcp = MCPServer("crm")

        def note(name: str, arguments: dict[str, Any], context: Context) -> None:
            request = context.request_context.request
            self.calls.append((name, arguments, request.headers.get("idempotency-key", "")))
            time.sleep(self.slow)

        @mcp.tool(annotations=types.ToolAnnotations(read_only_hint=True))
        def find_order(order: str, context: Context) -> str:
            """Find an order by its number."""
            note("find_order", {"order": order}, context)
            return f"Order {order} is on its way."

        @mcp.tool(annotations=types.ToolAnnotations(read_only_hint=False, idempotent_hint=True))
        def cancel_order(order: str, context: Context) -> str:
            """Cancel an order."""
            note("cancel_order", {"order": order}, context)
            if order == "gone":
                raise ValueError("no such order")
            return "Cancelled."

        @mcp.tool(structured_output=False)
        def show(what: str, context: Context) -> Any:
            """Show something: the answer is the content that `shown` has by this name."""
            note("show", {"what": what}, context)
            return self.shown[what]

        @mcp.tool()
        def add_step(text: str) -> str:
            """Share a name with a built-in tool."""
            return text

        @mcp.tool()
        def build(part: Part) -> str:
            """Take arguments whose schema refers to itself."""
            return part.name

        return mcp

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            await _answer(send, 401, {"error": "who are you?"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if self.legacy and b'"server/discover"' in body:
            error = {"code": -32601, "message": "Method not found"}
            await _answer(send, 200, {"jsonrpc": "2.0", "id": json.loads(body)["id"], "error": error})
            return
        if self.broken and b'"tools/call"' in body:
            asked = json.loads(body)
            self.calls.append((asked["params"]["name"], asked["params"]["arguments"], headers["idempotency-key"]))
            if isinstance(self.broken, int):
                await _answer(send, self.broken, {"error": "broken"})
            else:
                await _answer(send, 200, {"jsonrpc": "2.0", "id": asked["id"], "error": self.broken})
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return given.pop() if given else await receive()

        await self._app(scope, again, send)


async def _answer(send: Any, status: int, content: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
