"""Strangers who open connections and do not go on: health checks and webhooks are answered all the while.

`make test-long ARGS="tests/crash/test_held_open.py -n 0 -s"` opens as many as an attacker would, and prints how long
the answers took.
"""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from conversations.models import Chunk
from tests.crash.stage import Convo, Process, eventually
from tests.sizes import times

VARIABLES = {"WEB_WORKERS": "1", "WEB_BODY_SECONDS": "3", "WEB_IDLE_SECONDS": "4"}

HALF_SENT = times(40, 200)
LARGE = times(12, 60)
SLOW = times(40, 200)
IDLE = times(300, 3_000)
MOST_MEMORY = 250_000_000  # bytes
HEAD = (
    "POST /webhooks/sms/inbound HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
)


@pytest.fixture(autouse=True)
def many_files() -> None:
    """Let this process open as many sockets as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def opened(convo: Convo, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that have sent this much and no more."""
    sockets = []
    try:
        for _ in range(count):
            each = socket.create_connection(("127.0.0.1", convo.port), timeout=60)
            sockets.append(each)
            each.sendall(sent)
        yield sockets
    finally:
        for each in sockets:
            each.close()


def answered(each: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    got = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while piece := each.recv(65_536):
            got += piece
    return got


class Visitor:
    """Somebody who asks for the health and posts messages, until the block ends. Notes how long each answer took."""

    def __init__(self, convo: Convo, name: str) -> None:
        self.convo, self.name, self.wrong = convo, name, list[str]()
        self.health, self.webhooks = list[float](), list[float]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._visits, daemon=True)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _visits(self) -> None:
        while not self._over.is_set():
            self._note(self.health, lambda: requests.get(f"{self.convo.base_url}/healthz", timeout=20))
            self._note(self.webhooks, self._writes)

    def _writes(self) -> requests.Response:
        number = len(self.webhooks)
        return self.convo.post_own(user_id=self.name, message=f"{number}", message_id=f"{self.name} {number}")

    def _note(self, taken: list[float], ask) -> None:
        began = time.perf_counter()
        try:
            answer = ask()
            if answer.status_code != 200:
                self.wrong.append(answer.text)
        except requests.RequestException as error:
            self.wrong.append(str(error))
        taken.append(time.perf_counter() - began)

    def is_served(self) -> None:
        """Return once it was answered a few times more."""
        wanted = len(self.webhooks) + 5
        eventually(lambda: len(self.webhooks) >= wanted or self.wrong, "health and webhooks are answered")

    def assert_served(self) -> None:
        assert self.wrong == []
        assert Chunk.objects.filter(conversation__contact__user_id=self.name, role="user").count() == len(self.webhooks)
        health, webhooks = max(self.health) * 1000, max(self.webhooks) * 1000
        print(f"\n{self.name}: at most {health:.0f} ms for /healthz, {webhooks:.0f} ms for webhooks")  # noqa: T201


@pytest.mark.long
@pytest.mark.timeout(600)
def test_requests_that_never_end_hold_nobody_up(convo: Convo, web: Process) -> None:
    small = (HEAD.format(3_000) + "\r\n{").encode()
    large = (HEAD.format(3_000_000) + "\r\n" + "x" * 100_000).encode()
    head = b"POST /webhooks/sms/inbound HTTP/1.1\r\nHost: 127"
    with (
        Visitor(convo, "while bodies are half sent") as visitor,
        opened(convo, HALF_SENT, small) as half,
        opened(convo, LARGE, large) as heavy,
        opened(convo, HALF_SENT, head) as unfinished,
    ):
        visitor.is_served()
        answers = {answered(each).partition(b"\r\n")[0] for each in half}
        assert answers == {b"HTTP/1.1 408 Request Timeout"}
        assert {answered(each).partition(b"\r\n")[0] for each in heavy} <= {
            b"HTTP/1.1 408 Request Timeout",
            b"HTTP/1.1 503 Service Unavailable",  # there were too many at once
            b"",  # and the rest of the body was not read
        }
        for each in unfinished:
            answered(each)
        visitor.is_served()
    visitor.assert_served()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_connections_that_send_a_byte_a_second_are_closed(convo: Convo, web: Process) -> None:
    with (
        Visitor(convo, "while bytes trickle") as visitor,
        opened(convo, SLOW, (HEAD.format(3_000) + "\r\n").encode()) as bodies,
        opened(convo, SLOW, b"POST /webhooks/sms/inbound HTTP/1.1\r\nX-Long: ") as heads,
    ):
        over = threading.Event()

        def trickle() -> None:
            while not over.wait(1):
                for each in (*bodies, *heads):
                    with suppress(OSError):
                        each.sendall(b"x")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert {answered(each).partition(b"\r\n")[0] for each in bodies} == {b"HTTP/1.1 408 Request Timeout"}
        for each in heads:
            answered(each)
        over.set()
        thread.join()
        visitor.is_served()
    visitor.assert_served()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_idle_connections_cost_nobody_their_turn_and_end(convo: Convo, web: Process) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with (
        Visitor(convo, "beside idle connections") as visitor,
        opened(convo, IDLE // 2, b"") as silent,
        opened(convo, IDLE // 2, ask) as kept,
    ):
        visitor.is_served()
        assert {answered(each).partition(b"\r\n")[0] for each in kept} == {b"HTTP/1.1 200 OK"}
        assert {answered(each).partition(b"\r\n")[0] for each in silent} <= {b"", b"HTTP/1.1 408 Request Timeout"}
    visitor.assert_served()


@pytest.mark.parametrize("path", ["/webhooks/whatsapp/inbound", "/webhooks/sms/inbound"])
def test_large_bodies_of_strangers_take_little_memory(convo: Convo, web: Process, path: str) -> None:
    """3.4 MB of JSON in JSON, twelve at once, unsigned: read as a whole they would be a gigabyte of objects."""
    body = b'{"entry":[' + b"[]," * 1_130_000 + b"[]]}"
    headers = {"X-Hub-Signature-256": "sha256=" + "0" * 64, "Content-Type": "application/json"}
    if "sms" in path:
        headers = {"X-Service-API-Key": "convo_unknown", "Content-Type": "application/json"}

    def post(_: int) -> int:
        return requests.post(convo.base_url + path, data=body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(12) as pool:
        answers = set(pool.map(post, range(12)))
    assert answers <= {401 if "sms" in path else 403, 503}, "refused, or too many at once"
    assert max(peak_memory(pid) for pid in (web.pid, *web.children())) < MOST_MEMORY


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


def test_a_body_that_is_cut_off_changes_nothing(convo: Convo, web: Process) -> None:
    body = f'{{"client_id": "{convo.client_id}", "user_id": "cut off", "message": "Hello"}}'.encode()
    head = (HEAD.format(len(body) + 5) + f"X-Service-API-Key: {convo.key}\r\n\r\n").encode()
    with opened(convo, 1, head + body) as [each]:
        each.shutdown(socket.SHUT_WR)
        answered(each)
    assert convo.post_own(user_id="whole", message="Hello").status_code == 200
    assert not Chunk.objects.filter(conversation__contact__user_id="cut off").exists()


@pytest.mark.parametrize("length", [3_500_001, None])
def test_a_body_that_is_too_long_is_refused_before_it_is_there(convo: Convo, web: Process, length: int | None) -> None:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    head = f"POST /webhooks/sms/inbound HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n".encode()
    with opened(convo, 1, head) as [each]:
        with suppress(OSError):
            for _ in range(0 if length else 60):
                each.sendall(chunk)
        assert answered(each).startswith(b"HTTP/1.1 413 Payload Too Large") or not length
    assert convo.post_own(user_id="after", message="Hello").status_code == 200
