"""A program of a client's that receives events over real HTTP on a loopback port, and may misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.fakes.server import FakeServer, Received, Reply


@dataclass(frozen=True)
class Taken:
    """An event that was accepted, when (time.monotonic), and by how many of the secrets it was signed."""

    event: dict[str, Any]
    at: float
    signed_by: int


class FakeReceiver(FakeServer):
    """Verifies each event with Standard Webhooks' own library, and answers what `behave` returns.

    secrets: those that it knows. behave: the status for a request, by its number (from 1) and its event
    """

    def __init__(self, secrets: list[str], behave: Callable[[int, dict[str, Any]], int] | None = None) -> None:
        self.secrets = secrets
        self.behave = behave or (lambda _number, _event: 200)
        self.taken: list[Taken] = []
        self.unsigned = 0
        self._number = 0
        super().__init__()

    def handle(self, request: Received) -> Reply:
        signed_by = sum(map(self._is_signed_by, self.secrets, [request] * len(self.secrets)))
        event = json.loads(request.body)
        with self.lock:
            self._number += 1
            number = self._number
            self.unsigned += not signed_by
        status = self.behave(number, event)
        if 200 <= status < 300:
            with self.lock:
                self.taken.append(Taken(event, time.monotonic(), signed_by))
        return Reply(status, {}, {"Location": "/elsewhere"} if 300 <= status < 400 else {})

    @staticmethod
    def _is_signed_by(secret: str, request: Received) -> bool:
        try:
            event = Webhook(secret).verify(request.body, dict(request.headers))
        except WebhookVerificationError:
            return False
        return bool(event["id"] == request.headers["webhook-id"])
