"""The reading of answers, and the choice of a connection. Real sockets throughout."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from channels_out import http
from channels_out.errors import SendError
from tests.channels_out.wire import OK, Echo, failure, outcome, post, read_request, socket_server
from tests.fakes.server import Fault
from tests.races.threads import eventually


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture(autouse=True)
def fresh_session() -> None:
    http._thread.sessions = {}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 7\r\n", b'{"a":1}'),
        (b"Transfer-Encoding: chunked\r\n", b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'),
        (b"Connection: close\r\n", b'{"a":1}'),
        (
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(gzip.compress(b'{"a":1}', mtime=0)),
            gzip.compress(b'{"a":1}', mtime=0),
        ),
    ],
)
def test_an_answer_is_read_however_it_is_framed(headers: bytes, body: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 201 Created\r\nX-Word: Yes\r\n" + headers + b"\r\n" + body)
        connection.close()

    with socket_server(serve) as address:
        answer = post(f"http://{address}/")
    assert (answer.status, answer.ok, answer.json(), answer.headers["x-word"]) == (201, True, {"a": 1}, "Yes")


def test_a_compressed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 200_000_000, 1, mtime=0)

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
        with suppress(OSError):
            connection.sendall(bomb)

    with socket_server(serve) as address:
        assert outcome(failure(f"http://{address}/")) == ("bad_answer", False, True)


def test_a_redirect_is_an_answer(server: Echo) -> None:
    server.fail_next(Fault(302, b"x" * 100, {"Location": "http://[nonsense"}))
    assert post(server.url).status == 302
    assert len(server.requests) == 1


def test_nothing_of_one_account_reaches_another(server: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.fail_next(Fault(200, headers={"Set-Cookie": "session=1; Path=/"}))
    post(server.url)
    post(server.url)
    assert server.requests[1].headers["authorization"] == "Bearer token"
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("999999999999", http.MAX_RETRY_AFTER),
        ("9" * 5000, http.MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("Wed, 21 Oct 9999 07:00:00 GMT", http.MAX_RETRY_AFTER),
        *[(nonsense, None) for nonsense in ("", "-1", "1.5", "soon", "٣", "inf", "Wed, 99 Oct 2026", "\ud83d")],
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert http.parse_retry_after(value, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


# --- connections


def test_a_thread_uses_its_connection_again(server: Echo) -> None:
    for number in range(5):
        assert post(server.url, {"n": number}).json() == {"got": {"n": number}}
    assert server.connections == 1


def test_an_error_answer_leaves_the_connection_usable(server: Echo) -> None:
    server.fail_next(Fault(500, b"x" * 1000))
    assert post(server.url).status == 500
    assert post(server.url).ok
    assert server.connections == 1


def test_threads_share_no_connection(server: Echo) -> None:
    threads = [threading.Thread(target=post, args=(server.url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == server.connections == 4


def test_an_idle_connection_is_not_used_again(server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_IDLE", 0.0)
    post(server.url)
    post(server.url)
    assert server.connections == 2


@pytest.mark.parametrize("goodbye", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_that_the_server_closed_while_idle_is_noticed(goodbye: bytes) -> None:
    served = []

    def serve_one(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)
        connection.sendall(goodbye)
        connection.close()
        served.append(connection)

    with socket_server(serve_one) as address:
        for number in range(3):
            assert post(f"http://{address}/").status == 200
            eventually(lambda n=number: len(served) > n, f"request {number} is served")
            time.sleep(0.01)
    assert len(served) == 3


def test_a_used_connection_that_breaks_under_the_request_is_ambiguous() -> None:
    def serve_one(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)
        connection.recv(65536)
        connection.close()

    with socket_server(serve_one) as address:
        assert post(f"http://{address}/").status == 200
        assert outcome(failure(f"http://{address}/")) == ("connection_lost", False, True)


def test_what_left_earlier_says_nothing_of_the_next_call(server: Echo) -> None:
    post(server.url)
    error = failure("nonsense")
    assert outcome(error) == ("invalid_request", False, False)
    with pytest.raises(SendError) as caught:
        http.post_json(server.url, {}, headers={"Authorization": "tök€n"})
    assert caught.value.code == "invalid_request"
    assert len(server.requests) == 1
