"""Seconds until one signed webhook with very many events is stored and answered.

    make bench BENCH=".venv/bin/python -m tests.bench.huge_webhooks" ARGS="--events 10000"

New people, the same webhook again, the same people again, and receipts of messages that Convo never sent. What
is printed is the time of one request over loopback.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

import requests

from channels_out.adapters.meta import signature
from channels_out.simulators import whatsapp
from channels_out.simulators.meta import meta_json
from tests.bench.native import NUMBER, SECRET, set_up


def main() -> int:
    """Measure, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--events", type=int, default=10_000)
    given = parser.parse_args()
    set_up()
    run = secrets.token_hex(8)

    def said(word: str) -> bytes:
        texts = [
            whatsapp.text("hello there", sender=f"5199{number:07d}", message_id=f"wamid.{run}{word}{number}")
            for number in range(given.events)
        ]
        return meta_json(whatsapp.payload(NUMBER, messages=texts))

    first = said("a")
    statuses = [whatsapp.status(f"wamid.{run}.{number}", "sent") for number in range(given.events)]
    webhooks = {
        "new people": first,
        "the same webhook again": first,
        "the same people": said("b"),
        "receipts of unknown messages": meta_json(whatsapp.payload(NUMBER, statuses=statuses)),
    }
    for name, body in webhooks.items():
        headers = {"X-Hub-Signature-256": signature(SECRET, body), "Content-Type": "application/json"}
        began = time.perf_counter()
        answer = requests.post(f"{given.url}/webhooks/whatsapp/inbound", data=body, headers=headers, timeout=600)
        took = time.perf_counter() - began
        answer.raise_for_status()
        print(f"{name:>30}: {took:.1f} s, {answer.json()['data']}")  # noqa: T201 - what it is for
    return 0


if __name__ == "__main__":
    sys.exit(main())
