"""What a message costs while its client has an event endpoint, beside the same message without one.

    make bench BENCH=".venv/bin/python -m tests.bench.events" ARGS="--rounds 5"

Both in turn, in one run on one machine: 2,000 people with open sessions, 16 connections, every message id new. A
dispatcher runs all the time. With the endpoint it gives each message its position and posts it to a receiver here; so
the ratio holds also what that takes of the machine. `--no-dispatcher` leaves it out: then the ratio is that of the
appends alone. Needs Debian's `wrk`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from tests.bench.native import PEOPLE, PROJECT, load, own

WITHOUT, WITH = "without an endpoint", "with an endpoint"
TAKE_AWAY = "from conversations.models import EventEndpoint; EventEndpoint.objects.all().delete()"
NO_REPLIES = "from conversations.models import Client; Client.objects.update(auto_reply=False)"


class Receiver(BaseHTTPRequestHandler):
    """A program that takes every event at once."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Receiver.taken += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


def manage(*arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def dispatcher() -> Iterator[None]:
    """A dispatcher that runs inside the block."""
    process = subprocess.Popen([sys.executable, "manage.py", "dispatch"], cwd=PROJECT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def main() -> int:
    """Measure, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--no-dispatcher", action="store_true")
    given = parser.parse_args()
    os.environ["EVENT_PRIVATE_NETWORKS"] = "127.0.0.0/8"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manage("shell", "-c", NO_REPLIES)
    for line in own(PEOPLE, given.client_id):
        headers = {"X-Service-API-Key": given.api_key, "Content-Type": "application/json"}
        address = f"{given.url}/webhooks/whatsapp/inbound"
        requests.post(address, data=line[1:], headers=headers, timeout=60).raise_for_status()
    rates: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    with nullcontext() if given.no_dispatcher else dispatcher():
        for _ in range(given.rounds):
            for name, found in rates.items():
                bodies = own(4_000 * given.seconds, given.client_id)
                if name == WITHOUT:
                    found.append(load(given.url, bodies, given.api_key, given.seconds))
                    continue
                manage("create_event_endpoint", "--client=demo", f"--url=http://127.0.0.1:{server.server_port}/")
                found.append(load(given.url, bodies, given.api_key, given.seconds))
                manage("shell", "-c", TAKE_AWAY)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:>20}: {rate:,.0f} a second")  # noqa: T201 - what it is for
    print(f"{'ratio':>20}: {medians[WITH] / medians[WITHOUT]:.2f}; {Receiver.taken:,} events were taken")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
