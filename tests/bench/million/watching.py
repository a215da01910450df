"""What others notice while something long goes on: how long a transaction lasts, how long anybody waits for its locks,
and how long people's messages take meanwhile."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg
import requests

LOOK_EVERY = 0.004  # seconds; a transaction is seen that much too short at most

_LOOK = """
    SELECT xact_start, extract(epoch FROM clock_timestamp() - xact_start)::float8,
           (SELECT extract(epoch FROM max(clock_timestamp() - l.waitstart))::float8
            FROM pg_locks l WHERE NOT l.granted AND $1 = ANY (pg_blocking_pids(l.pid)))
    FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL"""


class _Thread(ABC):
    """Something that goes on in a thread of its own, from entering the block to leaving it."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self.go_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()

    @abstractmethod
    def go_on(self) -> None:
        """Until it is over."""


class Transactions(_Thread):
    """Those of the connection with this pid: how long each took (`seconds`), and the longest `wait` for its locks."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid, self._taken, self.wait = pid, dict[Any, float](), 0.0

    @property
    def seconds(self) -> list[float]:
        return list(self._taken.values())

    def go_on(self) -> None:
        with psycopg.connect("", autocommit=True, cursor_factory=psycopg.RawCursor) as database:
            while not self._over.wait(LOOK_EVERY):
                for begun, taken, waited in database.execute(_LOOK, [self._pid]):
                    self._taken[begun] = max(taken, self._taken.get(begun, 0.0))
                    self.wait = max(waited or 0.0, self.wait)


class Messages(_Thread):
    """Somebody's messages, one after the other with a pause between, and how long each took (`seconds`)."""

    def __init__(self, url: str, key: str, client_id: str, who: Callable[[], str | None], pause: float) -> None:
        super().__init__()
        self._url, self._key, self._client_id, self._who, self._pause = url, key, client_id, who, pause
        self.seconds: list[float] = []

    def go_on(self) -> None:
        with requests.Session() as http:
            http.headers["X-Service-API-Key"] = self._key
            while not self._over.wait(self._pause):
                if user_id := self._who():
                    body = {"client_id": self._client_id, "user_id": user_id, "message": "Is anybody there?"}
                    body["name"] = f"Somebody {len(self.seconds)}"  # to be kept on the contact's row
                    begun = time.perf_counter()
                    http.post(f"{self._url}/webhooks/sms/inbound", json=body, timeout=60).raise_for_status()
                    self.seconds.append(time.perf_counter() - begun)


def spread(seconds: Sequence[float]) -> str:
    """How they are spread, in milliseconds."""
    if not seconds:
        return "none"
    each = [1000 * second for second in sorted(seconds)]
    p50, p95 = each[len(each) // 2], each[int(len(each) * 0.95)]
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, slowest {each[-1]:.1f} ms of {len(each)}"


def memory_of(pid: int) -> float:
    """The most memory that the process ever took, in MB; 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0
