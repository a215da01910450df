"""Agents under fire: server and agents are killed and restarted meanwhile, and every line is there once, in order.

`make test-long ARGS="tests/client/test_fire.py -n 0 -s"` tries it for long, and prints its figures.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conversations.models import Chunk
from tests.client.fire_agent import phone_of
from tests.client.rude_proxy import ON_A_BAD_DAY, RudeProxy
from tests.crash.stage import Convo, assert_sound
from tests.sizes import times

AGENTS, SESSIONS = 4, 5
CALLS = times(120, 5_000)
KILLS = times(2, 15)
TIMEOUT = 5.0
SLACK = 1.5  # seconds: the machine has other things to do
BAD = list(ON_A_BAD_DAY.values())


class Agents:
    """The agents, restarted whenever one was killed."""

    def __init__(self, convo: Convo, url: str, shop: str, folder: Path) -> None:
        self.folder, self.shop, self.killed = folder, shop, 0
        self.variables = {
            **os.environ,
            "CONVO_API_URL": url,
            "CONVO_API_KEY": convo.key,
            "CONVO_API_TIMEOUT": str(TIMEOUT),
            "CONVO_OUTBOX_PATH": str(folder / "outbox.sqlite3"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.running = [self.start(number) for number in range(AGENTS)]

    def start(self, number: int) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("fire_agent.py")
        numbers = [str(number), str(CALLS // AGENTS), str(SESSIONS), str(self.folder)]
        with (self.folder / f"agent-{number}.log").open("ab") as log:
            command = [sys.executable, str(program), self.shop, *numbers]
            return subprocess.Popen(command, env=self.variables, stdout=log, stderr=log)

    def kill_one(self) -> None:
        number = random.randrange(AGENTS)
        if self.running[number].poll() is None:
            self.running[number].send_signal(signal.SIGKILL)
            self.running[number].wait()
            self.running[number] = self.start(number)
            self.killed += 1

    def done(self) -> bool:
        for number, agent in enumerate(self.running):
            code = agent.poll()
            assert code in (None, 0), (self.folder / f"agent-{number}.log").read_text()[-2000:]
        return all(agent.poll() == 0 for agent in self.running)

    def kept(self) -> int:
        """How many lines they know to be kept."""
        return sum(int(each.read_text() or 0) for each in self.folder.glob("progress-?"))

    def times(self) -> list[float]:
        return sorted(float(line) for each in self.folder.glob("times-?") for line in each.read_text().split())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_line_is_there_once_and_in_order(convo: Convo, shop: str, tmp_path: Path) -> None:
    began, killed_webs = time.monotonic(), 0
    with RudeProxy(convo.base_url) as proxy:
        agents = Agents(convo, proxy.url, shop, tmp_path)
        kills = [CALLS * (number + 1) // (KILLS + 1) for number in range(KILLS)]
        while not agents.done():
            if kills and agents.kept() >= kills[0]:
                kills.pop(0)
                agents.kill_one()
                if len(kills) % 2:
                    killed_webs += 1
                    restart(convo)
                proxy.fail_next(random.choice(BAD), times=random.randint(1, 4))
            time.sleep(0.02)
            assert time.monotonic() - began < 1500
    times = agents.times()
    report(agents, times, killed_webs, time.monotonic() - began)
    assert agents.killed
    assert killed_webs == KILLS // 2
    for number in range(AGENTS):
        for session in range(SESSIONS):
            said = Chunk.objects.filter(conversation__contact__phone=phone_of(number, session), role="user")
            lines = list(said.order_by("position").values_list("content", flat=True))
            assert lines == [f"{number}-{line}" for line in range(session, CALLS // AGENTS, SESSIONS)]
    assert times[-1] <= TIMEOUT + SLACK
    assert_sound()


def restart(convo: Convo) -> None:
    """SIGKILL to the web process; another one a moment later. Meanwhile the agents go on."""
    for web in convo.webs():
        web.kill()
    time.sleep(0.5)
    convo.start_web()


def report(agents: Agents, times: list[float], killed_webs: int, seconds: float) -> Any:
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    print(  # noqa: T201
        f"\n{len(times):,} calls of {AGENTS} agents in {seconds:.0f} s; agents killed {agents.killed}, server killed"
        f" {killed_webs}; a call took {p50 * 1000:.1f} ms (p50), {p99 * 1000:.0f} ms (p99), {times[-1]:.2f} s at most"
    )
