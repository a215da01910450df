"""The file of the outbox: private, whole or put aside, and shared by processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conversations.client import OutboxFullError, outbox
from conversations.client.outbox import Outbox
from tests.client.test_outbox import LEASE, BoxOf, add, box_of, drained, path

__all__ = ["box_of", "path"]  # the fixtures


# --- the file ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_it_is_the_owner_s_alone_whatever_the_umask(path: Path, umask: int) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from conversations.client.outbox import Outbox
        os.umask(int(sys.argv[2]))
        box = Outbox(Path(sys.argv[1]), "server", 10)
        box.add("ann", "message", {}, "key")
        assert box.durable
        os._exit(0)  # with what SQLite keeps beside the file
        """
    )
    path.parent.mkdir(mode=0o700)
    subprocess.run([sys.executable, "-c", program, str(path), str(umask)], check=True)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(path: Path, box_of: BoxOf) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    path.chmod(0o644)
    box_of()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_its_folder_is_made_for_the_owner_alone(path: Path, box_of: BoxOf) -> None:
    old = os.umask(0)
    try:
        box_of()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


KILLED = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from conversations.client.outbox import Outbox
    box = Outbox(Path(sys.argv[1]), "server", 1000)
    for number in range(50):
        box.add("ann", "message", {"content": "x" * 1000}, str(number))
    box._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    box.add("ann", "message", {"content": "last"}, "last")
    os.kill(os.getpid(), 9)
    """
)


def test_what_a_killed_process_wrote_is_there(path: Path, box_of: BoxOf) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert drained(box_of()) == ["x" * 1000] * 50 + ["last"]


@pytest.mark.parametrize("left", [100, 1_024, 5_000, 20_000])
def test_half_a_file_is_put_aside_with_its_journal_and_a_new_one_works(path: Path, box_of: BoxOf, left: int) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    os.truncate(path, left)
    box = box_of()
    assert box.durable
    [aside] = path.parent.glob("*.broken-????????")
    assert aside.stat().st_size >= left, "for somebody to look at"
    add(box, "Hello")
    assert (box.status().waiting, drained(box_of())) == (1, ["Hello"])


def test_an_empty_file_is_a_new_outbox(path: Path, box_of: BoxOf) -> None:
    path.parent.mkdir()
    path.touch()
    add(box_of(), "Hello")
    assert drained(box_of()) == ["Hello"]
    assert list(path.parent.glob("*.broken-*")) == []


def test_a_file_that_is_locked_for_long_is_not_put_aside(
    path: Path, box_of: BoxOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = box_of()
    monkeypatch.setattr(outbox, "BUSY_SECONDS", 0.01)
    holder._db.execute("BEGIN IMMEDIATE")
    assert box_of().durable is False
    holder._db.execute("ROLLBACK")
    assert list(path.parent.glob("*.broken-*")) == []
    add(holder, "Hello")
    assert drained(box_of()) == ["Hello"]


# --- several processes ------------------------------------------------------------------------------------------------
def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the result of each job; they begin at the same moment, each on a thread of its own."""
    gate = threading.Barrier(len(jobs))

    def begin(job: Callable[[], Any]) -> Any:
        gate.wait(60)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(begin, jobs))


def test_processes_that_add_at_once_keep_the_limit(box_of: BoxOf) -> None:
    boxes = [box_of(limit=60) for _ in range(4)]

    def fills(box: Outbox) -> int:
        taken = 0
        for number in range(30):
            try:
                add(box, f"{id(box)} {number}")
                taken += 1
            except OutboxFullError:
                pass
        return taken

    assert sum(at_once([partial(fills, box) for box in boxes])) == 60
    assert (boxes[0].status().waiting, boxes[0].status().turned_away) == (60, 60)
    said = drained(boxes[0])
    for box in boxes:
        numbers = [int(text.split()[1]) for text in said if text.startswith(f"{id(box)} ")]
        assert numbers == sorted(numbers)


def test_nobody_adds_while_another_process_counts(box_of: BoxOf, monkeypatch: pytest.MonkeyPatch) -> None:
    first = box_of()
    monkeypatch.setattr(outbox, "BUSY_SECONDS", 0.01)
    second = box_of()
    with outbox._Transaction(first._db), pytest.raises(sqlite3.OperationalError, match="locked"):
        add(second, "Hello")
    add(second, "Hello")
    assert drained(first) == ["Hello"]


def test_of_processes_that_want_a_lane_at_once_one_gets_it(box_of: BoxOf) -> None:
    boxes = [box_of() for _ in range(4)]
    for number in range(20):
        got = at_once([partial(box.lease, f"lane {number}", str(id(box)), LEASE) for box in boxes])
        assert sorted(got) == [False, False, False, True]
