"""Servers of a cluster that hang: one that was waited for in vain is not asked for a while by work in the background.

A server that is gone refuses, which costs nothing. One that hangs costs the whole limit of a statement, each time, for
each of its clients. So all of its clients are left out, and one statement tries again after a pause, which grows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from conversations.services.core.sql import rows

log = logging.getLogger(__name__)

SLOW_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 60.0

_SERVERS = """
    SELECT c.id, p.groupid FROM unnest($1::uuid[]) c(id)
    JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('contacts'::regclass, c.id)"""


class Silence:
    """The servers that hang, as far as this process knows.

    A server is named by the values of a statement, of which one is the id of a client.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._servers: dict[UUID, int] = {}
        self._pauses: dict[int, float] = {}
        self._until: dict[int, float] = {}
        self._noted_at: dict[int, float] = {}

    def is_anywhere(self) -> bool:
        """Return whether a server hangs, so that a statement over all of them would too.

        One that nobody has tried again for a minute is not known to hang any more.
        """
        if not self._until:
            return False
        with self._guard:
            return time.monotonic() < max(self._until.values(), default=0.0) + LONGEST_PAUSE_SECONDS

    def leaves_out(self, values: Sequence[Any]) -> bool:
        """Return whether the statement is not to be sent. After a pause it is False for one caller, who tries."""
        if not self._until:
            return False
        now = time.monotonic()
        with self._guard:
            server = self._server_of(values)
            if server not in self._until:
                return False
            if now < self._until[server]:
                return True
            self._until[server] = now + self._pauses[server]
            return False

    def note_failure(self, values: Sequence[Any], began: float, all_clients: Callable[[], Sequence[UUID]]) -> None:
        """Note that the statement failed, which began at that moment of the monotonic clock.

        all_clients: returns the clients whose servers are read anew where it took long
        """
        if time.monotonic() - began < SLOW_SECONDS:
            return
        servers = dict(rows(_SERVERS, list(all_clients())))
        with self._guard:
            self._servers = servers
            server = self._server_of(values)
            if server is None or self._noted_at.get(server, began) > began:  # another thread waited for it as well
                return
            pause = min(2 * self._pauses.get(server, FIRST_PAUSE_SECONDS / 2), LONGEST_PAUSE_SECONDS)
            self._pauses[server] = pause
            self._noted_at[server] = time.monotonic()
            self._until[server] = self._noted_at[server] + pause
        log.warning("a server of the database hangs: its clients are left out for %.0f s", pause)

    def note_answer(self, values: Sequence[Any]) -> None:
        """Note that the statement was answered."""
        if not self._until:
            return
        with self._guard:
            server = self._server_of(values)
            if server in self._until:
                del self._until[server], self._pauses[server]

    def _server_of(self, values: Sequence[Any]) -> int | None:
        if not self._servers:
            return None
        return next((self._servers[each] for each in values if isinstance(each, UUID) and each in self._servers), None)


silence = Silence()
