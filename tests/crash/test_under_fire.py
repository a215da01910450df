"""Every message three times, in any order, while processes die: each valid one is there once, and no 200 was a lie.

`make test-long ARGS="tests/crash/test_under_fire.py -n 0 -s"` sends 2,000 messages and prints what happened.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from django.db import connection

from conversations.models import Chunk, Contact
from conversations.services.core.sql import rows
from tests.crash import stage
from tests.crash.stage import Convo, Postgres, eventually
from tests.sizes import times

MESSAGES = times(200, 2_000)
PEOPLE = times(20, 60)
CONNECTIONS = times(16, 32)
WEB_KILLS = times(2, 8)
POSTGRES_KILLS = times(1, 2)
TOO_LONG = "x" * 500_001


@pytest.fixture
def postgres(tmp_path: Path) -> Postgres:
    return Postgres(tmp_path / "home")


@pytest.fixture
def convo(postgres: Postgres, django_db_blocker: Any) -> Iterator[Convo]:
    postgres.home.mkdir(mode=0o700)
    with (
        django_db_blocker.unblock(),
        postgres.running() as url,
        Convo(url, postgres.home, WEB_WORKERS="1") as convo,
    ):
        yield convo


class Message:
    """One message: valid, or not to be stored."""

    def __init__(self, number: int, client_id: str) -> None:
        self.person, self.id = f"person {number % PEOPLE}", f"m {number}"
        kind = {0: "nul", 1: "surrogate", 2: "too long"}.get(number % 40, "")
        self.is_valid = not kind
        text = {"nul": "a\\u0000b", "surrogate": "\\ud800", "too long": TOO_LONG}.get(kind, f"said {number}")
        ids = {"client_id": client_id, "user_id": self.person, "message_id": self.id}
        self.body = orjson.dumps(ids)[:-1] + f',"message":"{text}"}}'.encode()


class Deliveries:
    """Each message three times, each delivery repeated until it has an answer that is not the machine's fault."""

    def __init__(self, convo: Convo) -> None:
        self.convo = convo
        self.messages = [Message(number, convo.client_id) for number in range(MESSAGES)]
        self.todo = self.messages * 3
        random.shuffle(self.todo)
        self.answers: list[tuple[Message, int, bytes]] = []  # with status and body; a kept response keeps its socket
        self.failures: Counter[str] = Counter()
        self._guard = threading.Lock()

    @property
    def done(self) -> int:
        return len(self.answers)

    def run(self) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(self._deliver, self.todo))

    def _deliver(self, message: Message) -> None:
        headers = {"X-Service-API-Key": self.convo.key, "Content-Type": "application/json"}
        deadline = time.monotonic() + 2 * stage.SECONDS
        while time.monotonic() < deadline:
            try:
                url = f"{self.convo.base_url}/webhooks/sms/inbound"
                answer = requests.post(url, data=message.body, headers=headers, timeout=stage.SECONDS)
            except requests.RequestException as error:
                self._fails(type(error).__name__)
                continue
            if answer.status_code in (200, 400):
                with self._guard:
                    self.answers.append((message, answer.status_code, answer.content))
                return
            self._fails(str(answer.status_code))
        raise AssertionError(f"never answered: {message.id}")

    def _fails(self, how: str) -> None:
        with self._guard:
            self.failures[how] += 1
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_every_valid_message_is_there_once_and_no_answer_was_untrue(convo: Convo, postgres: Postgres) -> None:
    web = convo.start_web()
    fire = Deliveries(convo)
    thread = threading.Thread(target=fire.run, daemon=True)
    thread.start()
    total = len(fire.todo)
    kills = ["web"] * WEB_KILLS + ["postgres"] * POSTGRES_KILLS
    random.shuffle(kills)
    for number, kill in enumerate(kills, start=1):
        goal = total * number // (len(kills) + 1)
        eventually(lambda goal=goal: fire.done >= goal or not thread.is_alive(), f"{goal} are answered", 600)
        if kill == "web":
            web.kill()
            web = convo.start_web()
        else:
            postgres.kill()
            postgres.start()
    thread.join(900)
    connection.close()  # its server was killed
    print(f"\n{total:,} deliveries, killed: {kills}; without an answer: {dict(fire.failures)}")  # noqa: T201

    assert fire.failures, "nobody noticed: this tried nothing"
    assert fire.done == total
    # A transaction that breaks in the middle may be a 500. Whatever is no 200 or 400 is sent again.
    assert set(fire.failures) <= {"500", "503", "ConnectionError", "ReadTimeout", "ChunkedEncodingError"}
    for message, status, body in fire.answers:
        assert (status == 200) == message.is_valid, body
    valid = {message.id for message in fire.messages if message.is_valid}
    stored = Counter(Chunk.objects.filter(role="user").values_list("message_id", flat=True))
    assert stored == dict.fromkeys(valid, 1)
    for message, _, body in fire.answers:
        if message.is_valid:
            place = orjson.loads(body)["data"]
            chunk = Chunk.objects.get(pk=place["chunk_id"])
            assert (chunk.message_id, chunk.position) == (message.id, place["position"])
            break
    answered = {
        (message.id, orjson.loads(body)["data"]["chunk_id"]) for message, _, body in fire.answers if message.is_valid
    }
    assert answered == set(Chunk.objects.filter(role="user").values_list("message_id", "pk"))
    gaps = rows(
        """SELECT conversation_id FROM conversation_chunks GROUP BY conversation_id
        HAVING min(position) <> 1 OR max(position) <> count(*)"""
    )
    assert gaps == []
    assert Contact.objects.filter(user_id__startswith="person").count() == PEOPLE
    stage.assert_sound()
