"""Two machines, each with a home, a web process and a dispatcher, on one database: kill -9 of both in turn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings

from conversations.models import Client
from tests.crash.balancer import Balancer, go_on
from tests.crash.stage import Convo, Crowd
from tests.sizes import times

VARIABLES = {"WEB_WORKERS": "1", "LEASE_SECONDS": "2"}
KILLS = times(1, 9)  # of each machine
MESSAGES = 25  # before and after each


@pytest.fixture
def second(convo: Convo, tmp_path: Path) -> Iterator[Convo]:
    with convo.of_tree(settings.BASE_DIR, CONVO_HOME=str(tmp_path)) as second:
        yield second


def start(machine: Convo) -> None:
    machine.start_web()
    machine.start_dispatcher()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_whatever_dies_each_message_is_stored_and_sent_once(convo: Convo, second: Convo) -> None:
    # The brake on loops takes people for machines who are answered very often.
    Client.objects.update(longest_wait=timedelta(seconds=15), quiet_windows={"whatsapp": 6, "sms": 6})
    machines = convo, second
    for machine in machines:
        start(machine)
    with Balancer(*machines) as balancer, Crowd(balancer, 10, 0.2) as crowd:  # type: ignore[arg-type]
        go_on(crowd, MESSAGES)
        for _ in range(KILLS):
            for machine in machines:
                for process in (*machine.webs(), *machine.dispatchers()):
                    process.kill()
                go_on(crowd, MESSAGES)  # the other goes on
                start(machine)
                go_on(crowd, MESSAGES)
    convo.becomes_quiet()
    said = sum(map(len, crowd.said.values()))
    print(f"\n{said:,} messages by {dict(balancer.taken)}, {crowd.interrupted} interrupted")  # noqa: T201

    assert all(balancer.taken[number] for number in range(2)), "both took part"
    assert crowd.interrupted, "nobody noticed: this tried nothing"
    crowd.assert_heard_once_each()
    crowd.assert_answered()
    convo.assert_everything_went_once()
