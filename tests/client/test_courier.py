"""Delivery from the outbox when the server refuses, fails, or is gone: once, in order, and no faster than is polite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conversations.client import Settings, courier
from conversations.client.courier import (
    NOT_ALLOWED_PAUSE,
    Courier,
    Receipt,
)
from conversations.client.errors import (
    ConflictError,
    InvalidError,
    OutboxFullError,
)
from conversations.client.loops import wait_for
from conversations.client.outbox import Outbox
from tests.crash.stage import eventually
from tests.fakes.server import FakeServer, Fault, Received, Reply

TIME = "2026-11-29T12:00:00Z"
LANE = "shop/51999999999/whatsapp"


def refusal(status: int, code: str, **headers: str) -> Fault:
    """An answer that refuses."""
    return Fault(status=status, content={"success": False, "error": "No.", "code": code}, headers=headers)


class StateServer(FakeServer):
    """A server of the state-sync protocol, which opens sessions s1, s2 … and keeps what it accepted."""

    def __init__(self) -> None:
        self.opened = 0
        self.accepted: list[tuple[str, str, str]] = []  # path, idempotency key, content
        super().__init__()

    def handle(self, request: Received) -> Reply:
        path = request.path.removeprefix("/api/v1")
        with self.lock:
            if path == "/conversations":
                self.opened += 1
            session = f"s{self.opened}" if path == "/conversations" else path.split("/")[2]
            key = request.headers.get("idempotency-key", "")
            self.accepted.append((path, key, str((request.json() or {}).get("content", ""))))
        state = {"sessionId": session, "userId": "51999999999", "subDomain": "shop"}
        times = dict.fromkeys(("lastActivity", "createdAt", "updatedAt", "expiresAt"), TIME)
        return Reply(200, {"success": True, "data": {**state, **times}})

    @property
    def said(self) -> list[str]:
        """The messages that it accepted, in order."""
        return [content for _, _, content in self.accepted if content]

    def bodies(self, ending: str) -> list[Any]:
        """The bodies of the requests to paths that end like this."""
        return [json.loads(request.body) for request in self.requests if request.path.endswith(ending)]


@pytest.fixture
def server() -> Iterator[StateServer]:
    """The server that agents speak to."""
    with StateServer() as server:
        yield server


CourierOf = Callable[..., Courier]


@pytest.fixture
def courier_of(server: StateServer, tmp_path: Path) -> Iterator[CourierOf]:
    """Makes couriers of one outbox, each as in a process of its own, which end with the test."""
    made: list[Courier] = []

    def make(url: str = "", **more: Any) -> Courier:
        more = {"timeout": 30.0, "outbox_path": tmp_path / "box" / "outbox.sqlite3", **more}
        made.append(Courier(Settings(api_url=url or server.url, api_key="key", **more)))
        return made[-1]

    yield make
    for each in made:
        wait_for(ended(each))


async def ended(courier: Courier) -> None:
    """End what the courier does in the background."""
    tasks = [*courier._lanes.values(), *([courier._poller] if courier._poller else [])]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await courier.service.close()
    if courier._box is not None:
        courier._box.close()


def start(courier: Courier) -> Receipt:
    """Open the person's conversation, known as "pending"."""
    body = {"userId": "51999999999", "subDomain": "shop"}
    return asyncio.run(courier.deliver("pending", "start", body, lane=LANE))


def say(courier: Courier, text: str, handle: str = "pending", **more: Any) -> Receipt:
    """Deliver a message of the person."""
    return asyncio.run(courier.deliver(handle, "message", {"content": text, **more}))


def waiting(courier: Courier) -> int:
    return courier.status().waiting


def delivered(courier: Courier) -> None:
    """Return when nothing waits."""
    eventually(lambda: waiting(courier) == 0, "the outbox is empty")


# --- once -------------------------------------------------------------------------------------------------------------
def test_a_message_has_an_id_of_its_own_which_outlives_the_idempotency_key(
    server: StateServer, courier_of: CourierOf
) -> None:
    """The server remembers a key for 24 hours and a message's id for as long as the message."""
    agent = courier_of()
    start(agent)
    server.fail_next(Fault(cut="after"))
    assert say(agent, "Hello").accepted
    delivered(agent)
    first, again = server.bodies("/messages")
    assert first["messageId"]
    assert first == again
    keys = [each.headers["idempotency-key"] for each in server.requests if each.path.endswith("/messages")]
    assert keys == [first["messageId"]] * 2
    say(agent, "Hello")
    assert server.bodies("/messages")[-1]["messageId"] != first["messageId"], "the same words again are another message"


def test_the_agent_s_own_message_id_is_kept(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    say(agent, "Hello", messageId="wamid.1")
    say(agent, "Hello", messageId=None)
    own, made = [body["messageId"] for body in server.bodies("/messages")]
    assert own == "wamid.1"
    assert made
    assert server.requests[-2].headers["idempotency-key"] != "wamid.1"


def test_only_messages_carry_an_id(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    asyncio.run(agent.deliver("pending", "order", {"orderId": "o1"}))
    asyncio.run(agent.deliver("pending", "sync", {"intent": "menu"}))
    assert [json.loads(request.body) for request in server.requests[1:]] == [{"orderId": "o1"}, {"intent": "menu"}]


def test_the_next_process_sends_with_the_same_key_and_id(
    server: StateServer, courier_of: CourierOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = courier_of()
    start(first)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "done", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O error")))
        assert say(first, "Hello").accepted, "the server has it, and the outbox still has it too"
        wait_for(ended(first))
    first._box = None
    second = courier_of()
    wait_for(second.look(lambda box: box._db.execute("UPDATE lanes SET lease_until = 0, due_at = 0")))
    delivered(second)
    bodies = server.bodies("/messages")
    assert len(bodies) > 1
    assert [body for body in bodies if body != bodies[0]] == []
    assert len({key for path, key, _ in server.accepted if path.endswith("/messages")}) == 1


# --- in order ---------------------------------------------------------------------------------------------------------
def test_nothing_passes_a_message_that_fails(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(refusal(500, "server_error"), times=6)
    for text in ("1", "2", "3"):
        assert say(agent, text).accepted
    assert server.said == []
    delivered(agent)
    assert server.said == ["1", "2", "3"]
    tried = [body["content"] for body in server.bodies("/messages")]
    assert tried == ["1"] * 7 + ["2", "3"]


def test_what_the_server_refuses_for_good_is_set_aside_and_told(
    server: StateServer, courier_of: CourierOf, caplog: pytest.LogCaptureFixture
) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(refusal(400, "invalid"))
    receipt = say(agent, "Secret words")
    assert (receipt.accepted, receipt.state) == (False, None)
    assert isinstance(receipt.error, InvalidError)
    assert say(agent, "Next").accepted
    assert server.said == ["Next"]
    [(kind, body, reason)] = agent.refused()
    assert (kind, body["content"], reason) == ("message", "Secret words", "invalid: HTTP 400: No.")
    assert "the server refused a message: invalid" in caplog.text
    assert "Secret" not in caplog.text
    assert (agent.drop_refused(), agent.refused()) == (1, [])


@pytest.mark.parametrize("status", [401, 403])
def test_with_a_wrong_key_all_waits_and_nothing_is_refused(
    server: StateServer, courier_of: CourierOf, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(refusal(status, "no_key"))
    assert say(agent, "1") == courier.QUEUED
    assert f"does not let us in ({status})" in caplog.text
    assert (waiting(agent), agent.refused()) == (1, [])
    [(due_at,)] = wait_for(agent.look(lambda box: box._db.execute("SELECT due_at FROM lanes").fetchall()))
    assert due_at > time.time() + NOT_ALLOWED_PAUSE / 2
    assert say(agent, "2").accepted, "an agent that goes on tries at once"
    assert server.said == ["1", "2"]


def test_a_garbled_answer_holds_up_its_own_lane_alone(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(Fault(status=200, content=b"<html>"), times=2)
    assert say(agent, "1").error is None
    asked = len(server.requests)
    assert say(agent, "other", handle="s9").state is not None
    assert server.requests[asked].path.endswith("/s9/messages")


@pytest.mark.parametrize(
    "fault",
    [Fault(cut="before"), refusal(503, "unavailable"), refusal(429, "rate_limited")],
    ids=["unreachable", "503", "429"],
)
def test_while_the_server_is_down_nobody_asks_it(server: StateServer, courier_of: CourierOf, fault: Fault) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(fault, times=2)
    assert say(agent, "1").state is None
    agent._down_until = time.monotonic() + 3_600
    asked = len(server.requests)
    for number in range(3):
        assert say(agent, str(number), handle=f"s{number}") == courier.QUEUED
    assert len(server.requests) == asked
    agent._down_until = 0.0
    delivered(agent)
    assert sorted(server.said) == ["0", "1", "1", "2"]


# --- sessions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gone", [refusal(409, "ended"), refusal(404, "not_found")], ids=["ended", "gone"])
def test_a_conversation_that_ended_meanwhile_is_opened_again_under_keys_that_do_not_change(
    server: StateServer, courier_of: CourierOf, gone: Fault
) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(gone)
    receipt = say(agent, "Hello")
    assert receipt.state is not None
    assert receipt.state.session_id == "s2"
    refused, opening, said = server.requests[-3:]
    key = refused.headers["idempotency-key"]
    assert (opening.path, opening.headers["idempotency-key"]) == ("/api/v1/conversations", f"{key}.s1.start")
    assert (said.path, said.headers["idempotency-key"]) == ("/api/v1/conversations/s2/messages", f"{key}.s1")
    assert json.loads(said.body) == json.loads(refused.body)
    say(agent, "Next")
    assert server.requests[-1].path == "/api/v1/conversations/s2/messages"


def test_another_conflict_opens_nothing(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(refusal(409, "version_conflict"))
    assert isinstance(say(agent, "Hello").error, ConflictError)
    assert (server.opened, len(agent.refused())) == (1, 1)


def test_an_end_and_a_session_known_by_its_id_alone_open_nothing(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    start(agent)
    server.fail_next(refusal(409, "ended"))
    assert not asyncio.run(agent.deliver("pending", "end", {})).accepted
    server.fail_next(refusal(404, "not_found"))
    assert not say(agent, "Hello", handle="s9").accepted
    assert server.opened == 1


def test_a_refused_opening_is_tried_again_by_the_next_message(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    server.fail_next(refusal(400, "invalid"))
    assert not start(agent).accepted
    assert say(agent, "Hello").accepted
    opening, said = server.accepted
    assert (opening[0], said[0]) == ("/conversations", "/conversations/s1/messages")
    assert opening[1] == f"{said[1]}.start"


# --- the outbox is out of order ---------------------------------------------------------------------------------------
def test_a_full_disk_is_told_and_the_agent_goes_on(
    server: StateServer, courier_of: CourierOf, caplog: pytest.LogCaptureFixture
) -> None:
    agent = courier_of()
    start(agent)
    [(pages,)] = wait_for(agent.look(lambda box: box._db.execute("PRAGMA page_count").fetchall()))
    wait_for(agent.look(lambda box: box._db.execute(f"PRAGMA max_page_count = {pages}").fetchall()))
    receipt = say(agent, "x" * 100_000)
    assert (receipt.accepted, str(receipt.error)) == (False, "database or disk is full")
    assert "not recorded, the outbox is out of order: database or disk is full" in caplog.text
    wait_for(agent.look(lambda box: box._db.execute("PRAGMA max_page_count = 1000000").fetchall()))
    assert say(agent, "Hello").accepted
    assert server.said == ["Hello"]


def test_a_full_outbox_is_told(courier_of: CourierOf, caplog: pytest.LogCaptureFixture) -> None:
    agent = courier_of(outbox_limit=1)
    agent._down_until = time.monotonic() + 3_600
    assert start(agent).accepted
    receipt = say(agent, "Hello")
    assert not receipt.accepted
    assert isinstance(receipt.error, OutboxFullError)
    assert "not recorded: The outbox holds 1 entries" in caplog.text


def test_a_call_that_takes_too_long_tells_whether_the_change_is_safe(
    server: StateServer, courier_of: CourierOf
) -> None:
    server.fail_next(Fault(hang=60.0))
    agent = courier_of(timeout=0.3)
    receipt = start(agent)
    assert receipt.accepted
    assert receipt.state is None
    assert (waiting(agent), agent.refused()) == (1, [])


# --- several processes ------------------------------------------------------------------------------------------------
def test_two_processes_deliver_one_outbox_in_order_and_once(server: StateServer, courier_of: CourierOf) -> None:
    first, second = courier_of(), courier_of()
    start(first)
    for number in range(10):
        assert say(second if number % 2 else first, str(number)).accepted
    delivered(first)
    assert server.said == [str(number) for number in range(10)]
    assert len({key for path, key, _ in server.accepted if path.endswith("/messages")}) == 10


def test_the_next_process_delivers_what_a_dead_one_left(server: StateServer, courier_of: CourierOf) -> None:
    dead = courier_of()
    dead._down_until = time.monotonic() + 3_600
    start(dead)
    say(dead, "Hello")
    wait_for(dead.look(lambda box: box.lease(LANE, "a process before the clock was set back", 365 * 86_400.0)))
    wait_for(ended(dead))
    dead._box = None
    heir = courier_of()
    delivered(heir)
    assert server.said == ["Hello"]
