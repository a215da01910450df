"""What stands in front of several web processes, as a load balancer does."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import Any

import requests

from tests.crash.stage import Convo, Crowd


class Balancer:
    """What is in front of several web processes: it passes each request on to the next one that is ready."""

    def __init__(self, *versions: Convo) -> None:
        self.meta, self.client_id = versions[0].meta, versions[0].client_id
        self.versions, self.ready = versions, [True, False]
        self.taken: Counter[int] = Counter()
        self._numbers, self._over = count(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join(10)

    def post(self, webhook: Any) -> requests.Response:
        return self._next().post(webhook)

    def post_own(self, **said: str) -> requests.Response:
        return self._next().post_own(**said)

    def _next(self) -> Convo:
        at = [number for number, ready in enumerate(self.ready) if ready] or [0]
        number = at[next(self._numbers) % len(at)]
        self.taken[number] += 1
        return self.versions[number]

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.ready = [is_ready(version) for version in self.versions]


def is_ready(version: Convo) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{version.base_url}/readyz", timeout=2).status_code == 200
    return False


def go_on(crowd: Crowd, messages: int) -> None:
    """Return when about so many more messages were taken."""
    for _ in range(0, messages, 25):
        crowd.goes_on(25)
