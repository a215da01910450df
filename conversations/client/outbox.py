"""The outbox: a SQLite file with the changes to deliver, in order per lane, shared by processes, limited in size.

A lane is a person's conversation (or one that the caller knows by its id alone). Every change is stored as an entry,
with its idempotency key, before it is sent, and is deleted when the server has confirmed it. So if a process dies, the
next one sends the same again, and the server does it once. One process at a time holds a lane, by a lease.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OutboxFullError

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0
LARGEST = 1_000_000_000  # bytes of the file
LONGEST_PAUSE = 3_600.0  # seconds; a pause that ends later began before the clock was set back

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL,
    lane TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    key TEXT NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    refused TEXT
);
CREATE INDEX IF NOT EXISTS entries_of_lane ON entries (target, lane, seq) WHERE refused IS NULL;
CREATE TABLE IF NOT EXISTS lanes (
    target TEXT NOT NULL,
    lane TEXT NOT NULL,
    session_id TEXT,
    start TEXT,
    owner TEXT,
    lease_until REAL NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0,
    used_at REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (target, lane)
);
CREATE TABLE IF NOT EXISTS handles (
    target TEXT NOT NULL, handle TEXT NOT NULL, lane TEXT NOT NULL, used_at REAL NOT NULL, PRIMARY KEY (target, handle)
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
FORGOTTEN_AFTER = 90 * 86_400  # seconds without use, after which a lane's ids are forgotten


@dataclass(frozen=True)
class Entry:
    """One change to deliver: `kind` is start, message, sync, order, reset, extend or end."""

    seq: int
    lane: str
    kind: str
    body: dict[str, Any]
    key: str
    attempts: int


@dataclass(frozen=True)
class OutboxStatus:
    """The status of the outbox.

    waiting         number of entries to deliver
    oldest_seconds  age of the oldest of them
    refused         number of entries that the server has refused
    turned_away     number of changes that found the outbox full
    limit           number of entries that it takes
    durable         False if the file could not be opened, and entries are lost with the process
    """

    waiting: int
    oldest_seconds: float
    refused: int
    turned_away: int
    limit: int
    durable: bool


class Outbox:
    """The outbox file. Use it on one thread."""

    def __init__(self, path: Path, target: str, limit: int) -> None:
        self.target, self.limit, self.path = target, limit, path
        self.durable = True
        try:
            self._db = _open(path)
        except (OSError, sqlite3.Error) as error:
            log.error("the outbox cannot be opened, what waits will not survive this process: %s", error)
            self.durable = False
            self._db = _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- entries ------------------------------------------------------------------------------------------------------
    def add(self, lane: str, kind: str, body: Mapping[str, Any], key: str) -> int:
        """Add an entry at the end of the lane and return its number. Raises OutboxFullError."""
        text = json.dumps(body, default=str)
        with _Transaction(self._db):
            [(count,)] = self._db.execute("SELECT count(*) FROM entries")
            if count >= self.limit or self._size() + len(text) > LARGEST:
                self._count("turned_away")
                seq = None
            else:
                seq = self._db.execute(
                    "INSERT INTO entries (target, lane, kind, body, key, created_at) VALUES (?, ?, ?, ?, ?, ?)",
                    (self.target, lane, kind, text, key, time.time()),
                ).lastrowid
                self._db.execute(
                    "INSERT INTO lanes (target, lane) VALUES (?, ?) ON CONFLICT DO NOTHING", (self.target, lane)
                )
        if seq is None:
            raise OutboxFullError(f"The outbox holds {count:,} entries and takes no more: is the server reachable?")
        return seq

    def first(self, lane: str) -> Entry | None:
        """Return the oldest entry of the lane; None if it is empty."""
        found = self._db.execute(
            "SELECT seq, lane, kind, body, key, attempts FROM entries"
            " WHERE target = ? AND lane = ? AND refused IS NULL ORDER BY seq LIMIT 1",
            (self.target, lane),
        ).fetchone()
        if found is None:
            return None
        seq, lane, kind, body, key, attempts = found
        return Entry(seq, lane, kind, json.loads(body), key, attempts)

    def done(self, seq: int) -> None:
        """Delete an entry that the server has confirmed."""
        self._db.execute("DELETE FROM entries WHERE seq = ?", (seq,))

    def refuse(self, seq: int, reason: str) -> None:
        """Mark an entry as refused by the server. It stays in the file for inspection, and the lane goes on."""
        self._db.execute("UPDATE entries SET refused = ? WHERE seq = ?", (reason[:500], seq))

    # --- lanes --------------------------------------------------------------------------------------------------------
    def lease(self, lane: str, owner: str, seconds: float) -> bool:
        """Take or extend the owner's lease of the lane, and return whether the owner has it.

        A lease that ends much later than one can was written before the clock was set back, and is taken.
        """
        now = time.time()
        with _Transaction(self._db):
            self._db.execute(
                "INSERT INTO lanes (target, lane) VALUES (?, ?) ON CONFLICT DO NOTHING", (self.target, lane)
            )
            held = self._db.execute(
                "UPDATE lanes SET owner = ?, lease_until = ? WHERE target = ? AND lane = ?"
                " AND (owner = ? OR lease_until < ? OR lease_until > ?)",
                (owner, now + seconds, self.target, lane, owner, now, now + 10 * seconds),
            )
        return held.rowcount == 1

    def renew(self, owner: str, seconds: float) -> None:
        """Extend all leases of the owner."""
        self._db.execute("UPDATE lanes SET lease_until = ? WHERE owner = ?", (time.time() + seconds, owner))

    def release(self, lane: str, owner: str, *, pause: float | None = None) -> bool:
        """Release the owner's lease of the lane and return whether it is released.

        pause: seconds after which the lane is due again, at most LONGEST_PAUSE; None releases only an empty lane
        """
        empty = "AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.target = lanes.target AND e.lane = lanes.lane"
        changed = self._db.execute(
            "UPDATE lanes SET owner = NULL, lease_until = 0, due_at = ? WHERE target = ? AND lane = ? AND owner = ?"
            + (f" {empty} AND e.refused IS NULL)" if pause is None else ""),
            (time.time() + min(pause or 0, LONGEST_PAUSE), self.target, lane, owner),
        )
        return changed.rowcount == 1

    def due(self, limit: int, lease: float) -> list[str]:
        """Return the lanes with entries that no process is delivering, the longest waiting first.

        lease: seconds that a lease lasts. One that ends much later, like a pause of more than LONGEST_PAUSE, was
            written before the clock was set back, and counts as over.
        """
        now = time.time()
        found = self._db.execute(
            "SELECT e.lane FROM entries e JOIN lanes l ON l.target = e.target AND l.lane = e.lane"
            " WHERE e.target = ? AND e.refused IS NULL"
            " AND (l.lease_until < ? OR l.lease_until > ?) AND (l.due_at <= ? OR l.due_at > ?)"
            " GROUP BY e.lane ORDER BY min(e.seq) LIMIT ?",
            (self.target, now, now + 10 * lease, now, now + LONGEST_PAUSE, limit),
        )
        return [lane for (lane,) in found]

    def ahead_of(self, lane: str, seq: int) -> int:
        """Return how many entries of the lane are delivered before this one, at most ten."""
        found = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM entries"
            " WHERE target = ? AND lane = ? AND refused IS NULL AND seq < ? LIMIT 10)",
            (self.target, lane, seq),
        )
        return int(found.fetchone()[0])

    def holds(self, lane: str, seq: int) -> bool:
        """Return whether the entry waits in the lane."""
        found = self._db.execute(
            "SELECT 1 FROM entries WHERE seq = ? AND target = ? AND lane = ? AND refused IS NULL",
            (seq, self.target, lane),
        )
        return found.fetchone() is not None

    # --- sessions -----------------------------------------------------------------------------------------------------
    def begin(self, lane: str, start: Mapping[str, Any], handle: str) -> None:
        """Store the request `start` that opens the lane's conversation, and the handle by which the caller knows it."""
        now = time.time()
        with _Transaction(self._db):
            self._db.execute(
                "INSERT INTO lanes (target, lane, start, used_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (target, lane) DO UPDATE SET start = excluded.start, used_at = excluded.used_at",
                (self.target, lane, json.dumps(start, default=str), now),
            )
            self._name(handle, lane, now)

    def opened(self, lane: str, session_id: str) -> None:
        """Store the session id of the lane's conversation."""
        with _Transaction(self._db):
            self._db.execute(
                "UPDATE lanes SET session_id = ? WHERE target = ? AND lane = ?", (session_id, self.target, lane)
            )
            self._name(session_id, lane, time.time())

    def lane_of(self, handle: str) -> str:
        """Return the lane of a session id or a handle; an unknown one gets a lane of its own."""
        found = self._db.execute(
            "SELECT lane FROM handles WHERE target = ? AND handle = ?", (self.target, handle)
        ).fetchone()
        return str(found[0]) if found else f"session/{handle}"

    def session_of(self, lane: str) -> tuple[str | None, dict[str, Any] | None]:
        """Return the lane's session id, if it is known, and the request that opens one, if the lane is a person's."""
        if lane.startswith("session/"):
            return lane.removeprefix("session/"), None
        found = self._db.execute(
            "SELECT session_id, start FROM lanes WHERE target = ? AND lane = ?", (self.target, lane)
        ).fetchone()
        session_id, start = found or (None, None)
        return session_id, json.loads(start) if start else None

    def _name(self, handle: str, lane: str, now: float) -> None:
        self._db.execute(
            "INSERT INTO handles (target, handle, lane, used_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (target, handle) DO UPDATE SET lane = excluded.lane, used_at = excluded.used_at",
            (self.target, handle, lane, now),
        )

    # --- maintenance --------------------------------------------------------------------------------------------------
    def trim(self) -> None:
        """Delete the ids of conversations that were not used for FORGOTTEN_AFTER seconds."""
        long_ago = time.time() - FORGOTTEN_AFTER
        with _Transaction(self._db):
            self._db.execute("DELETE FROM handles WHERE used_at < ?", (long_ago,))
            self._db.execute(
                "DELETE FROM lanes WHERE used_at < ? AND lease_until < ? AND NOT EXISTS"
                " (SELECT 1 FROM entries e WHERE e.target = lanes.target AND e.lane = lanes.lane)",
                (long_ago, time.time()),
            )

    def status(self) -> OutboxStatus:
        """Return the status of the outbox."""
        [(waiting, oldest, refused)] = self._db.execute(
            "SELECT count(*) FILTER (WHERE refused IS NULL), min(created_at) FILTER (WHERE refused IS NULL),"
            " count(*) FILTER (WHERE refused IS NOT NULL) FROM entries"
        )
        turned = self._db.execute("SELECT value FROM counters WHERE name = 'turned_away'").fetchone()
        return OutboxStatus(
            waiting=waiting,
            oldest_seconds=max(time.time() - oldest, 0.0) if oldest else 0.0,
            refused=refused,
            turned_away=turned[0] if turned else 0,
            limit=self.limit,
            durable=self.durable,
        )

    def refused(self) -> list[tuple[str, dict[str, Any], str]]:
        """Return the entries that the server has refused: kind, body and reason of each, the oldest first."""
        found = self._db.execute("SELECT kind, body, refused FROM entries WHERE refused IS NOT NULL ORDER BY seq")
        return [(kind, json.loads(body), reason) for kind, body, reason in found]

    def drop_refused(self) -> int:
        """Delete the entries that the server has refused, and return how many there were."""
        return self._db.execute("DELETE FROM entries WHERE refused IS NOT NULL").rowcount

    def _size(self) -> int:
        [(pages,)] = self._db.execute("PRAGMA page_count")
        [(free,)] = self._db.execute("PRAGMA freelist_count")
        [(size,)] = self._db.execute("PRAGMA page_size")
        return int((pages - free) * size)

    def _count(self, name: str) -> None:
        self._db.execute(
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,)
        )


class _Transaction:
    """A write transaction from its first statement on, so that two processes do not both read before they write."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, failed: object, *_: object) -> None:
        if not failed:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:  # a full disk has ended it already, and is the error to report
            self._db.execute("ROLLBACK")


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, readable by its owner alone. A file that is no whole database is renamed and replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(2):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            _check(db)
            return _prepared(db)
        except sqlite3.OperationalError:
            db.close()
            raise  # locked, read-only, full
        except sqlite3.DatabaseError:
            db.close()
            aside = path.with_name(f"{path.name}.broken-{uuid.uuid4().hex[:8]}")
            path.rename(aside)
            for beside in ("-wal", "-shm"):  # SQLite would write them into the new file
                with suppress(FileNotFoundError):
                    path.with_name(path.name + beside).rename(aside.with_name(aside.name + beside))
            log.error("the outbox is no database; it is put aside as %s", aside.name)
    raise sqlite3.DatabaseError("the outbox cannot be made")


def _check(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if the file is damaged: half a file may open, and every use of it would fail."""
    [(finding,)] = db.execute("PRAGMA quick_check(1)")
    if finding != "ok":
        raise sqlite3.DatabaseError(finding)


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    db.execute("PRAGMA synchronous = NORMAL")  # what is committed outlives the process; a power cut may take the last
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute("COMMIT")
    return db
