"""POSTs whose answer is read while it comes: to checked addresses only, and an error says what happened."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from channels_out.errors import SendError
from channels_out.streamed_posts import post
from tests.fakes.server import FakeServer, Fault, Received, Reply

LOOPBACK = ("127.0.0.0/8",)


class Echo(FakeServer):
    def handle(self, request: Received) -> Reply:
        return Reply(200, {"path": request.path, "host": request.headers["host"], "body": request.body.decode()})


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


def call(url: str, private: tuple[str, ...] = LOOPBACK, seconds: float = 5.0) -> tuple[int, bytes]:
    async def run() -> tuple[int, bytes]:
        async with asyncio.timeout(seconds), post(url, b"{}", headers={"X-Own": "1"}, private=private) as answer:
            return answer.status, b"".join([piece async for piece in answer.pieces])

    return asyncio.run(run())


def error(url: str, private: tuple[str, ...] = LOOPBACK) -> SendError:
    with pytest.raises(SendError) as caught:
        call(url, private)
    assert caught.value.__cause__ is None
    return caught.value


def test_the_body_arrives_unchanged_and_the_answer_whole(echo: Echo) -> None:
    status, body = call(f"{echo.url}/a b/ü?x=1&y=%20")
    assert status == 200
    assert b'"path": "/a%20b/%C3%BC?x=1&y=%20"' in body
    assert b'"body": "{}"' in body
    [request] = echo.requests
    assert (request.headers["x-own"], request.headers["user-agent"]) == ("1", "Convo")
    assert request.headers["host"] == echo.url.removeprefix("http://")


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """A name leads to these addresses. Returns the names that are looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "agent.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_name_is_looked_up_once_and_the_checked_address_called(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, "127.0.0.1")
    port = echo.url.rpartition(":")[2]
    assert call(f"http://agent.example:{port}/")[0] == 200
    assert asked == ["agent.example"]
    assert echo.requests[0].headers["host"] == f"agent.example:{port}"


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("93.184.216.34", "127.0.0.1"), ("10.1.2.3",), ("169.254.169.254",)]
)
def test_a_name_with_any_address_that_is_not_public_is_not_called(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    names(monkeypatch, *addresses)
    refused = error(f"http://agent.example:{echo.url.rpartition(':')[2]}/", ())
    assert (refused.code, refused.retryable) == ("private_address", False)
    assert echo.connections == 0


def test_a_proxy_of_the_environment_is_not_used(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert call(echo.url)[0] == 200


def test_a_redirect_is_an_answer_like_others(echo: Echo) -> None:
    echo.fail_next(Fault(status=302, headers={"Location": echo.url}))
    assert call(echo.url)[0] == 302
    assert len(echo.requests) == 1


def test_what_broke_is_told_apart_from_what_never_left(echo: Echo) -> None:
    for fault in (Fault(cut="before"), Fault(cut="after", reset=True), Fault(cut="body")):
        echo.fail_next(fault)
        broken = error(echo.url)
        assert (broken.code, broken.ambiguous) == ("connection_lost", True)
    url = echo.url
    echo.close()
    assert (error(url).code, error(url).retryable) == ("connect", True)
    assert error("http://nobody.invalid/").code == "connect"


@pytest.mark.parametrize(
    "url", ["", "agent", "ftp://a.example/", "http://", "http://[::1", "http://a:99999/", "http://a..b/"]
)
def test_a_url_that_is_none_is_said_to_be_so(url: str) -> None:
    assert error(url).code in ("invalid_request", "connect")


def test_a_deadline_of_the_caller_ends_it(echo: Echo) -> None:
    echo.fail_next(Fault(hang=20))
    with pytest.raises(TimeoutError):
        call(echo.url, seconds=0.2)


def test_a_certificate_that_nobody_vouches_for_is_not_trusted() -> None:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        threading.Thread(target=lambda: plain.accept()[0].sendall(b"HTTP/1.1 200 OK\r\n\r\n"), daemon=True).start()
        assert error(f"https://127.0.0.1:{plain.getsockname()[1]}/").code in ("connect", "connection_lost")
