"""What is between an agent and Convo on a bad day: it passes requests on, or answers in its own way."""

from __future__ import annotations

import time

import requests

from tests.fakes.server import FakeServer, Fault, Received, Reply

PASSED_ON = ("authorization", "content-type", "idempotency-key", "if-match")
ON_A_BAD_DAY = {
    "500": Fault(status=500, content={"success": False, "error": "Something went wrong.", "code": "server_error"}),
    "429": Fault(status=429, content={"success": False, "error": "Slowly.", "code": "rate_limited"}),
    "garbage": Fault(status=200, content=b"<html>It works!</html>"),
    "no envelope": Fault(status=200, content={"it": "works"}),
    "a half answer": Fault(cut="body"),
    "a reset before": Fault(cut="before", reset=True),
    "a reset after": Fault(cut="after", reset=True),
}


class RudeProxy(FakeServer):
    """In front of the server at `target`; `fail_next` lays out what goes wrong, `delay` is waited in every request."""

    def __init__(self, target: str, port: int = 0) -> None:
        self.target, self.delay = target, 0.0
        super().__init__(port)

    def handle(self, request: Received) -> Reply:
        time.sleep(self.delay)
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        try:
            answer = requests.request(
                request.method, self.target + request.path, data=request.body, headers=headers, timeout=30
            )
        except requests.RequestException:
            return Reply(502, b"bad gateway")
        return Reply(answer.status_code, answer.content)
