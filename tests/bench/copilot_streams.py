"""Many replies streamed at once while webhooks arrive: what a reader and a webhook notice of it, and what it costs.

    make bench BENCH=".venv/bin/python -m tests.bench.copilot_streams" ARGS="--streams 200 --seconds 15"

`make bench` gives the web process, on its default settings, and its database; the language model (a word every
`--every` seconds) and the readers live in here, the dispatcher is started from here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ASKING_SECONDS = 3
TICKS = os.sysconf("SC_CLK_TCK")


# --- the language model -----------------------------------------------------------------------------------------------
def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    data = b"data: " + json.dumps({"model": "bench", "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: int, every: float) -> None:
    """Answer one request after the other, a word at a time."""
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(HEAD)
            for number in range(words):
                writer.write(chunk({"content": f"word{number} "}))
                await writer.drain()
                await asyncio.sleep(every)
            done = b"data: [DONE]\n\n"
            writer.write(chunk({}, "stop") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
    writer.close()


# --- readers ----------------------------------------------------------------------------------------------------------
async def read_reply(address: tuple[str, int], cookie: str, token: str, seen: list[float], ends: list[str]) -> None:
    """Ask something, and read the reply to its end."""
    reader, writer = await asyncio.open_connection(*address)
    body = b'{"message": "How steep may it be?"}'
    writer.write(
        f"POST /copilot HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\nX-CSRFToken: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
    begun, first = time.perf_counter(), True
    async for line in reader:
        if first and line.startswith(b"event: delta"):
            seen.append(time.perf_counter() - begun)
            first = False
        if line.startswith((b"event: done", b"event: error", b"HTTP/1.1 4", b"HTTP/1.1 5")):
            ends.append(line.decode().strip())
    writer.close()


async def stall(address: tuple[str, int], cookie: str, token: str) -> asyncio.StreamWriter:
    """Ask something, and read nothing."""
    reader, writer = await asyncio.open_connection(*address, limit=1)
    body = b'{"message": "Are you there?"}'
    writer.write(
        f"POST /copilot HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\nX-CSRFToken: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    return writer


def webhooks_apart(*what: Any) -> list[float]:
    """`webhooks`, for a process of its own: here the readers and the model would keep them waiting."""
    return asyncio.run(webhooks(*what))


async def webhooks(
    address: tuple[str, int], key: str, client_id: str, rate: float, until: float, *, text: Callable[[], str] = str
) -> list[float]:
    """Seconds that each of the webhooks took, which come at that rate.

    text: called for each message; what it returns stands behind "Hello"
    """
    took: list[float] = []

    async def one(number: int) -> None:
        body = json.dumps(
            {"client_id": client_id, "user_id": f"bench-{number % 50}", "message": f"Hello {text()}"}
        ).encode()
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(
            f"POST /webhooks/sms/inbound HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Service-API-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        assert (await reader.readline()).split()[1] == b"200"
        took.append(time.perf_counter() - begun)
        writer.close()

    tasks = []
    while time.perf_counter() < until:
        tasks.append(asyncio.create_task(one(len(tasks))))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*tasks)
    return took


# --- what it costs ----------------------------------------------------------------------------------------------------
def family(pid: int) -> list[int]:
    """The process and those it started."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(each for child in children for each in family(child))]


def cpu(pids: list[int]) -> float:
    """Seconds of CPU that the processes took."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS


def megabytes(pids: list[int]) -> list[int]:
    """What each of the processes has in memory."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return [int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")]


def percentile(values: list[float], share: float) -> str:
    ordered = sorted(values)
    return f"{ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000:.0f} ms" if ordered else "none"


def signed_in(count: int, *, is_staff: bool = False) -> list[str]:
    """Cookies of so many members of the demo client, each somebody else; agents if `is_staff`."""
    from django.contrib.auth import get_user_model
    from django.contrib.sessions.backends.db import SessionStore

    from conversations.http.signed_in import SEEN
    from conversations.models import Assistant, Client, Membership

    Assistant.objects.filter(is_default=True).update(
        engine="offline"
    )  # who writes over SMS is answered without the model
    client, cookies = Client.objects.get(sub_domain="demo"), []
    for number in range(count):
        user = get_user_model().objects.create(username=f"reader-{number}", password="!", is_staff=is_staff)
        Membership.objects.create(client=client, user=user, role="agent" if is_staff else "viewer")
        session = SessionStore()
        session["_auth_user_id"] = str(user.pk)
        session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
        session["_auth_user_hash"] = user.get_session_auth_hash()
        session[SEEN] = time.time()  # as the page that they ask from has noted
        session.save()
        cookies.append(f"sessionid={session.session_key}; csrftoken={'x' * 32}")
    return cookies


def connections() -> int:
    """Connections to the database, without this program's own."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


async def measure(options: Any) -> None:
    """All of it."""
    parts = urlsplit(options.url)
    address = (str(parts.hostname), int(parts.port or 80))
    words = int(options.seconds / options.every)
    server = await asyncio.start_server(lambda r, w: model(r, w, words, options.every), "127.0.0.1", 0, backlog=1024)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    cookies = await asyncio.to_thread(signed_in, options.streams + options.stalled)
    apart = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    of_webhooks = address, options.api_key, options.client_id, options.rate

    async def send_webhooks(seconds: float) -> list[float]:
        until = time.perf_counter() + seconds
        return await asyncio.get_running_loop().run_in_executor(apart, webhooks_apart, *of_webhooks, until)

    dispatcher = subprocess.Popen(
        [sys.executable, "manage.py", "dispatch", "--patience", "1"], env={**os.environ, "OPENAI_BASE_URL": base_url}
    )
    try:
        await asyncio.sleep(4)
        alone = await send_webhooks(options.alone)
        web = family(options.pid)
        before = cpu(web), cpu([dispatcher.pid]), time.perf_counter()
        first, ends = [], []  # type: ignore[var-annotated]
        stalled = [await stall(address, cookie, "x" * 32) for cookie in cookies[options.streams :]]
        readers = [
            asyncio.create_task(read_reply(address, cookie, "x" * 32, first, ends))
            for cookie in cookies[: options.streams]
        ]
        asking = await send_webhooks(ASKING_SECONDS)
        beside = await send_webhooks(options.seconds - ASKING_SECONDS - 1)
        held = await asyncio.to_thread(connections)
        memory = megabytes(web), megabytes([dispatcher.pid])
        await asyncio.wait(readers, timeout=60)
        passed = time.perf_counter() - before[2]
        print(  # noqa: T201
            f"{options.streams} streams, {len(stalled)} stalled readers, a word every {options.every:g} s\n"
            f"replies      {sum(end.endswith('done') for end in ends)} whole, others: "
            f"{sorted({end for end in ends if not end.endswith('done')})}\n"
            f"first delta  p50 {percentile(first, 0.5)}, p95 {percentile(first, 0.95)}\n"
            f"webhooks     alone p50 {percentile(alone, 0.5)}, p95 {percentile(alone, 0.95)} ({len(alone)}); "
            f"while all ask p50 {percentile(asking, 0.5)}, p95 {percentile(asking, 0.95)} ({len(asking)}); "
            f"beside p50 {percentile(beside, 0.5)}, p95 {percentile(beside, 0.95)} ({len(beside)})\n"
            f"CPU          web {(cpu(web) - before[0]) / passed:.0%}, dispatcher "
            f"{(cpu([dispatcher.pid]) - before[1]) / passed:.0%} of a core, over {passed:.0f} s\n"
            f"memory       web {memory[0]} MB, dispatcher {memory[1]} MB\n"
            f"connections  {held}"
        )
    finally:
        dispatcher.terminate()
        dispatcher.wait(30)
        apart.shutdown()
        server.close()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "api-key", "client-id"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--stalled", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="that a reply takes to write")
    parser.add_argument("--every", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=40, help="webhooks a second")
    parser.add_argument("--alone", type=float, default=5, help="seconds of webhooks without streams")
    options = parser.parse_args()
    import django

    django.setup()
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
