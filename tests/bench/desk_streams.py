"""Agents with open inboxes while messages arrive: what a message notices of them, and what their streams hold.

    make bench BENCH=".venv/bin/python -m tests.bench.desk_streams" ARGS="--agents 50 --rate 200"

`make bench` gives the web process, on its default settings, and its database. The agents do what the inbox's script
does: each reads the stream of news, and the list when something has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.copilot_streams import connections, cpu, family, percentile, signed_in, webhooks

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
LIST = "/admin/inbox/list/?tab=all&by_itself=1"
PAUSES = (0.6, 1.0)  # seconds between the beginnings of two readings of the list, the second where one takes long
QUICK = 0.05  # seconds; both as inbox.js has them
SENT = re.compile(r"sent at ([0-9.]+)")  # a message's words
QUIET = 0.5  # seconds without a message
FIRST = 5.0  # seconds after all agents came at once, in which Django decides what each may read


class Agent:
    """A browser with an open inbox."""

    def __init__(self, address: tuple[str, int], cookie: str) -> None:
        self._address, self._cookie = address, cookie
        self._changed, self.lists, self.news, self.shown = asyncio.Event(), list[float](), 0, ""
        self.late, self._seen = list[float](), 0.0  # seconds until a message was shown; the newest that was

    async def read_news(self) -> None:
        """Read the stream, and come back when it ends."""
        while True:
            reader, writer = await self._ask("/admin/inbox/live/")
            async for line in reader:
                if line.startswith((b"event: news", b"event: hello")):
                    self.news += 1
                    self._changed.set()
            writer.close()
            await asyncio.sleep(0.3)

    async def read_lists(self) -> None:
        """Read the list whenever something has changed, as often as inbox.js does."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            begun = time.perf_counter()
            await self.read_list()
            took = time.perf_counter() - begun
            self.lists.append(took)
            await asyncio.sleep(max(0.0, PAUSES[took >= QUICK] - took))

    async def read_list(self) -> None:
        """Read the list once."""
        reader, writer = await self._ask(LIST, "Connection: close\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.split()[1] == b"200", head
        self.shown = json.loads(body)["html"]
        self._note_lateness(sorted(float(each) for each in SENT.findall(self.shown)), time.time())

    def _note_lateness(self, sent: list[float], now: float) -> None:
        """Note how long ago the message may have been sent that came first after those that were shown before.

        It may be hidden by a later one of the same person: then the newest that was shown before stands for it.
        """
        if first := next((each for each in sent if each > self._seen), None):
            if self._seen:
                self.late.append(now - (self._seen if first - self._seen < QUIET else first))
            self._seen = sent[-1]

    async def _ask(self, path: str, more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address, limit=2**20)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {self._cookie}\r\n{more}\r\n".encode())
        return reader, writer


def threads(pids: list[int]) -> int:
    """Return how many threads the processes have."""
    return sum(1 for pid in pids for _ in Path(f"/proc/{pid}/task").iterdir())


async def be_agents(address: tuple[str, int], cookies: list[str], stages: Connection) -> None:
    """Read streams, then lists too, and tell at last how long the lists took, what came, and what each shows."""
    agents = [Agent(address, cookie) for cookie in cookies]
    jobs = [asyncio.create_task(agent.read_news()) for agent in agents]
    await asyncio.to_thread(stages.recv)
    jobs += [asyncio.create_task(agent.read_lists()) for agent in agents]
    await asyncio.to_thread(stages.recv)
    for job in jobs:
        job.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*jobs)
    lists = [seconds for agent in agents for seconds in agent.lists]
    late = [seconds for agent in agents for seconds in agent.late]
    stages.send((lists, late, sum(agent.news for agent in agents), [agent.shown for agent in agents]))


def _begin_agents(*given: Any) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # they are on other machines
    asyncio.run(be_agents(*given))


def _newest(count: int) -> list[str]:
    from conversations.models import Conversation

    newest = Conversation.objects.filter(client__sub_domain="demo", status__in=["active", "stale"])
    return [str(pk) for pk in newest.order_by("-last_message_at").values_list("pk", flat=True)[:count]]


def measure(options: Any) -> None:
    """Measure webhooks alone and beside the agents, who are a process of their own, and look at the lists at last."""
    parts = urlsplit(options.url)
    address = (str(parts.hostname), int(parts.port or 80))
    web, (stages, theirs) = family(options.pid), Pipe()

    def arrive(seconds: float) -> list[float]:
        until = time.perf_counter() + seconds
        about = options.api_key, options.client_id, options.rate, until
        return asyncio.run(webhooks(address, *about, text=lambda: f"sent at {time.time():.3f}"))

    agents = get_context("spawn").Process(
        target=_begin_agents, args=(address, signed_in(options.agents, is_staff=True), theirs)
    )
    arrive(2)
    alone, idle = arrive(options.seconds), (threads(web), connections())
    agents.start()
    time.sleep(6)
    quiet = threads(web), connections()
    stages.send("lists")
    at_first = arrive(FIRST)
    begun = time.perf_counter(), cpu(web)
    beside = arrive(options.seconds)
    took = time.perf_counter() - begun[0], cpu(web) - begun[1]
    time.sleep(4)
    newest = _newest(10)
    stages.send("end")
    lists, late, events, shown = stages.recv()
    agents.join(10)
    right = sum(all(f'data-id="{pk}"' in html for pk in newest) for html in shown)
    print(  # noqa: T201
        f"{options.agents} agents, {options.rate:g} messages a second, {len(web)} web processes\n"
        f"webhooks     alone p50 {percentile(alone, 0.5)}, p95 {percentile(alone, 0.95)} ({len(alone)}); "
        f"beside p50 {percentile(beside, 0.5)}, p95 {percentile(beside, 0.95)} ({len(beside)}); "
        f"in the first {FIRST:g} s of all agents p50 {percentile(at_first, 0.5)}, p95 {percentile(at_first, 0.95)}\n"
        f"lists        p50 {percentile(lists, 0.5)}, p95 {percentile(lists, 0.95)} ({len(lists)}), {right} right\n"
        f"shown        what waited longest for a reading of the list: p50 {percentile(late, 0.5)}, "
        f"p95 {percentile(late, 0.95)}, at most {percentile(late, 1)} after it was sent ({len(late)} readings)\n"
        f"streams      {events} events; threads {idle[0]} without, {quiet[0]} with; connections to the database "
        f"{idle[1]} without, {quiet[1]} with\n"
        f"CPU          web {took[1] / took[0]:.0%} of a core beside, over {took[0]:.0f} s"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "api-key", "client-id"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200, help="messages a second")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    import django

    django.setup()
    measure(options)


if __name__ == "__main__":
    main()
