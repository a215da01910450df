"""Processes of Convo that hang under their supervisor: each is replaced, and what came meanwhile is answered."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
import requests

from conversations.models import Chunk
from convo_project import processes, supervisor
from convo_project.supervisor import Child, Supervisor
from tests.crash import stage
from tests.crash.stage import SECONDS, Convo, Hold

pytestmark = pytest.mark.timeout(600)  # several starts of Convo, on a machine that may be slow
HANG_SECONDS = 5.0  # longer than a busy machine keeps a main loop waiting
VARIABLES = {"WEB_WORKERS": "1", "LEASE_SECONDS": "2"}
COMMANDS = {
    "web": ["-m", "convo_project.web"],
    "dispatcher": ["manage.py", "dispatch"],
    "queue": ["manage.py", "qcluster"],
}


@pytest.fixture
def supervise(convo: Convo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Supervisor]]:
    """Makes a supervisor of Convo's processes, and stops it."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "END_SECONDS", 1.0)
    for name, value in convo.variables.items():
        monkeypatch.setenv(name, value)
    made = []

    def make(*names: str) -> Supervisor:
        children = [Child(name, [sys.executable, *COMMANDS[name]], pause=0.05) for name in names]
        made.append(Supervisor(convo.folder, children, lambda: None, HANG_SECONDS))
        return made[-1]

    yield make
    for one in made:
        one.ask_to_stop()
        one.ask_to_stop()
        one.stop()


def live(one: Supervisor, name: str) -> list[int]:
    """The processes of the child that give signs of life."""
    child = next(child for child in one.children if child.name == name)
    return list(child.pulse._silent) if child.pulse else []


def begins(one: Supervisor, *but: int) -> None:
    """Every child has a process, none of `but`, that gives signs of life."""
    names = [child.name for child in one.children]
    assert one.run_until(
        lambda: all(live(one, name) and not {*live(one, name)} & {*but} for name in names), 2 * SECONDS
    )


def says(one: Supervisor, convo: Convo, text: str) -> None:
    """A message arrives and is answered."""

    def taken() -> bool:
        try:
            said = {"client_id": convo.client_id, "user_id": "ann", "message": text, "message_id": text}
            headers = {"X-Service-API-Key": convo.key}
            # Not for long, since the supervisor does not look meanwhile.
            answer = requests.post(f"{convo.base_url}/webhooks/sms/inbound", json=said, headers=headers, timeout=2)
        except requests.RequestException:
            return False
        return answer.status_code == 200

    assert one.run_until(taken, SECONDS)
    answer = f"You said: {text}"
    assert one.run_until(lambda: Chunk.objects.filter(role="ai", content=answer).exists(), SECONDS)


@pytest.mark.parametrize("name", ["dispatcher", "web"])
def test_one_that_stands_still_is_replaced_and_messages_are_answered(
    supervise: Callable[..., Supervisor], convo: Convo, name: str
) -> None:
    one = supervise("web", "dispatcher")
    begins(one)
    says(one, convo, f"before {name}")
    [hanging] = live(one, name)
    os.kill(hanging, signal.SIGSTOP)
    says(one, convo, f"after {name}")
    assert not processes.command_line(hanging)
    stage.assert_sound()


def test_a_queue_whose_sentinel_stands_still_is_replaced(supervise: Callable[..., Supervisor], convo: Convo) -> None:
    one = supervise("queue")
    begins(one)
    [hanging] = live(one, "queue")
    os.kill(hanging, signal.SIGSTOP)
    begins(one, hanging)
    assert not processes.command_line(hanging)


def test_a_dispatcher_whose_replies_take_long_is_left_alone(supervise: Callable[..., Supervisor], convo: Convo) -> None:
    one = supervise("web", "dispatcher")
    begins(one)
    [busy] = live(one, "dispatcher")
    model = Hold(16)  # as many as it writes at once
    convo.openai.reply = lambda messages: model() or "At last."
    for number in range(16):
        convo.post_own(user_id=f"ben {number}", message="Hello")
    assert one.run_until(lambda: model._reached.is_set(), SECONDS)
    assert not one.run_until(lambda: False, 3 * HANG_SECONDS)
    assert live(one, "dispatcher") == [busy]
    model.go_on()
    assert one.run_until(lambda: Chunk.objects.filter(role="ai", content="At last.").count() == 16, SECONDS)
    assert live(one, "dispatcher") == [busy]
