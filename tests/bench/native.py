"""What a message costs as WhatsApp signs and delivers it, beside the same message by our own JSON.

    make bench BENCH=".venv/bin/python -m tests.bench.native" ARGS="--rounds 5"

Both doors in turn, in one run on one machine: 2,000 people with open sessions, 16 connections, every message id new.
Needs Debian's `wrk`. Prints the median rate of each and their ratio.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from channels_out.adapters.meta import signature

PROJECT = Path(__file__).parents[2]
PEOPLE = 2_000
AHEAD = 60  # seconds
SECRET = "bench-app-secret"
NUMBER = "106540352242922"
OWN, SIGNED = "our own JSON", "WhatsApp's own"
TEXT = "hello there, is my order on its way? please tell"


def native(count: int) -> Iterator[str]:
    """Signed payloads of one text each, as the load script reads them.

    They are written before they are sent, so their time is a little ahead: a provider delivers a message at once.
    """
    run, at = secrets.token_hex(8), int(time.time()) + AHEAD
    for number in range(count):
        person = f"5199{number % PEOPLE:07d}"
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": NUMBER},
            "contacts": [{"profile": {"name": f"Person {number % PEOPLE}"}, "wa_id": person}],
            "messages": [
                {
                    "from": person,
                    "id": f"wamid.{run}{number}",
                    "timestamp": str(at),
                    "type": "text",
                    "text": {"body": TEXT},
                }
            ],
        }
        entry = {"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, separators=(",", ":"))
        yield f"{signature(SECRET, body.encode())}\t{body}"


def own(count: int, client_id: str) -> Iterator[str]:
    """The same in our own JSON, without a signature."""
    run = secrets.token_hex(8)
    for number in range(count):
        said = {"client_id": client_id, "user_id": f"+5199{number % PEOPLE:07d}", "message": TEXT}
        yield "\t" + json.dumps({**said, "message_id": f"{run}{number}"}, separators=(",", ":"))


def load(url: str, lines: Iterator[str], key: str, seconds: int) -> float:
    """Requests a second. Raises RuntimeError if one of them failed, or there were too few bodies."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        count = sum(file.write(line + "\n") > 0 for line in lines)
        file.flush()
        script = str(PROJECT / "tests/bench/native.lua")
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", script, url]
        command += ["--", "/webhooks/whatsapp/inbound", file.name, key]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, requests_made, errors = next(line.split()[1:] for line in told.splitlines() if line.startswith("RESULT"))
    if int(errors) or int(requests_made) > count:
        raise RuntimeError(f"{errors} errors; {requests_made} requests of {count} bodies: {told}")
    return float(rate)


def set_up() -> None:
    """The account that the payloads name."""
    options = {"client": "demo", "channel": "whatsapp", "provider": "whatsapp", "address": NUMBER}
    options |= {"credential": f"app_secret={SECRET}"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    more = ["--credential", "access_token=none", "--credential", "verify_token=none"]
    command = [sys.executable, "manage.py", "create_channel_account", *arguments, *more]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Measure, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    given = parser.parse_args()
    set_up()
    inbound = f"{given.url}/webhooks/whatsapp/inbound"
    for line in own(PEOPLE, given.client_id):
        headers = {"X-Service-API-Key": given.api_key, "Content-Type": "application/json"}
        requests.post(inbound, data=line[1:], headers=headers, timeout=60).raise_for_status()
    for line in native(PEOPLE):
        sign, body = line.split("\t", 1)
        headers = {"X-Hub-Signature-256": sign, "Content-Type": "application/json"}
        requests.post(inbound, data=body, headers=headers, timeout=60).raise_for_status()
    most = 4_000 * given.seconds
    rates: dict[str, list[float]] = {OWN: [], SIGNED: []}
    for _ in range(given.rounds):
        rates[OWN].append(load(given.url, own(most, given.client_id), given.api_key, given.seconds))
        rates[SIGNED].append(load(given.url, native(most), "-", given.seconds))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:>15}: {rate:,.0f} a second")  # noqa: T201 - what it is for
    print(f"{'ratio':>15}: {medians[SIGNED] / medians[OWN]:.2f}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
