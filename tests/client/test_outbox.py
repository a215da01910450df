"""The outbox on rare days: full, torn, shared by processes, and with a clock that was set back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from conversations.client import OutboxFullError, outbox
from conversations.client.outbox import FORGOTTEN_AFTER, LONGEST_PAUSE, Outbox

LEASE = 6.0
BoxOf = Callable[..., Outbox]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the outbox."""
    return tmp_path / "box" / "outbox.sqlite3"


@pytest.fixture
def box_of(path: Path) -> Iterator[BoxOf]:
    """Opens the file again, as another process would."""
    made = []

    def make(target: str = "server", limit: int = 100) -> Outbox:
        made.append(Outbox(path, target, limit))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def box(box_of: BoxOf) -> Outbox:
    """An empty outbox."""
    return box_of()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The machine's clock as the outbox reads it: `now`, in seconds."""
    found = SimpleNamespace(now=1_800_000_000.0)
    monkeypatch.setattr(outbox, "time", SimpleNamespace(time=lambda: found.now))
    return found


def add(box: Outbox, *texts: str, lane: str = "ann") -> list[int]:
    """Add messages to the lane and return their numbers."""
    return [box.add(lane, "message", {"content": text}, f"key of {text}") for text in texts]


def drained(box: Outbox, lane: str = "ann") -> list[str]:
    """The texts of the lane in the order in which they are delivered."""
    said = []
    while entry := box.first(lane):
        assert len(said) < 1_000, f"entry {entry.seq} of {lane} is delivered for ever"
        said.append(entry.body["content"])
        box.done(entry.seq)
    return said


# --- entries ----------------------------------------------------------------------------------------------------------
def test_an_entry_comes_back_as_it_was_added(box: Outbox) -> None:
    [seq] = add(box, "Hello ü")
    entry = box.first("ann")
    assert entry is not None
    assert (entry.seq, entry.lane, entry.kind) == (seq, "ann", "message")
    assert (entry.body, entry.key, entry.attempts) == ({"content": "Hello ü"}, "key of Hello ü", 0)


def test_a_lane_keeps_its_order_and_other_lanes_have_their_own(box: Outbox) -> None:
    add(box, "1")
    add(box, "other", lane="bob")
    add(box, "2", "3")
    assert (drained(box), drained(box, "bob")) == (["1", "2", "3"], ["other"])


def test_another_server_s_entries_in_the_file_are_not_ours(box_of: BoxOf, clock: SimpleNamespace) -> None:
    ours, theirs = box_of(), box_of("another server")
    [first, second] = add(ours, "1", "2")
    ours.begin("ann", {"userId": "ann"}, "pending-1")
    ours.opened("ann", "session-1")
    assert (theirs.first("ann"), theirs.due(10, LEASE)) == (None, [])
    assert (theirs.ahead_of("ann", second), theirs.holds("ann", first)) == (0, False)
    assert (theirs.lane_of("pending-1"), theirs.session_of("ann")) == ("session/pending-1", (None, None))
    assert ours.lease("ann", "us", LEASE)
    assert theirs.lease("ann", "them", LEASE), "a lane of that name at another server is another lane"
    assert theirs.release("ann", "them")
    assert not ours.lease("ann", "a third", LEASE)


def test_it_tells_which_entries_wait_and_how_many_come_before(box: Outbox) -> None:
    numbers = add(box, *(str(number) for number in range(13)))
    [other] = add(box, "other", lane="bob")
    assert [box.ahead_of("ann", seq) for seq in numbers] == [*range(10), 10, 10, 10], "ten is as far as it counts"
    assert box.ahead_of("bob", other) == 0
    assert (box.holds("ann", numbers[0]), box.holds("bob", numbers[0])) == (True, False)
    box.done(numbers[0])
    assert (box.holds("ann", numbers[0]), box.ahead_of("ann", numbers[1])) == (False, 0)


def test_a_refused_entry_is_set_aside_and_the_lane_goes_on(box: Outbox, clock: SimpleNamespace) -> None:
    [first, second, third] = add(box, "1", "2", "3")
    box.refuse(second, "late")
    box.refuse(first, "x" * 600)
    assert [box.holds("ann", seq) for seq in (first, second, third)] == [False, False, True]
    assert box.ahead_of("ann", third) == 0
    assert (box.status().waiting, box.status().refused) == (1, 2)
    assert drained(box) == ["3"]
    assert box.due(10, LEASE) == []
    assert box.lease("ann", "us", LEASE)
    assert box.release("ann", "us"), "refused entries keep no lane busy"
    assert box.refused() == [
        ("message", {"content": "1"}, "x" * 500),
        ("message", {"content": "2"}, "late"),
    ]
    add(box, "4")
    assert box.drop_refused() == 2
    assert (box.refused(), drained(box)) == ([], ["4"])


# --- full -------------------------------------------------------------------------------------------------------------
def test_at_its_limit_it_takes_no_more_and_counts_what_it_turned_away(box_of: BoxOf) -> None:
    box = box_of(limit=2)
    [first, _] = add(box, "1", "2")
    for _ in range(2):
        with pytest.raises(OutboxFullError, match="holds 2 entries and takes no more"):
            add(box, "3")
    assert (box.status().waiting, box.status().turned_away, box.status().limit) == (2, 2, 2)
    box.done(first)
    add(box, "4")
    assert drained(box) == ["2", "4"]


def test_a_file_that_would_grow_too_large_takes_no_more(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    size = box._size()
    body = len('{"content": "1"}')
    monkeypatch.setattr(outbox, "LARGEST", size + body)
    add(box, "1")
    monkeypatch.setattr(outbox, "LARGEST", box._size() + body - 1)
    with pytest.raises(OutboxFullError):
        add(box, "2")
    assert drained(box) == ["1"]


def test_what_was_delivered_leaves_room_in_the_file(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    add(box, "x" * 200_000)
    monkeypatch.setattr(outbox, "LARGEST", box._size() + 100_000)
    with pytest.raises(OutboxFullError):
        add(box, "y" * 150_000)
    drained(box)
    add(box, "y" * 150_000)


def test_a_full_disk_says_so_and_keeps_what_is_there(box: Outbox) -> None:
    add(box, "before")
    [(pages,)] = box._db.execute("PRAGMA page_count")
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    for size in (10_000, 100_000):
        with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
            add(box, "x" * size)
    box._db.execute("PRAGMA max_page_count = 1000000")
    add(box, "after")
    assert drained(box) == ["before", "after"]


def test_a_failed_change_leaves_nothing_half_done(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_name", fails)
        with pytest.raises(sqlite3.OperationalError, match="I/O"):
            box.begin("ann", {"userId": "ann"}, "pending-1")
    assert box.session_of("ann") == (None, None)
    add(box, "after")
    assert drained(box) == ["after"]


# --- leases -----------------------------------------------------------------------------------------------------------
def test_one_process_has_a_lane_until_its_lease_is_over(box_of: BoxOf, clock: SimpleNamespace) -> None:
    ours, theirs = box_of(), box_of()
    add(ours, "1")
    assert ours.lease("ann", "us", LEASE)
    assert not theirs.lease("ann", "them", LEASE)
    assert theirs.lease("bob", "them", LEASE), "another lane is free"
    assert theirs.due(10, LEASE) == []
    clock.now += LEASE
    assert not theirs.lease("ann", "them", LEASE), "its last moment is its holder's"
    assert theirs.due(10, LEASE) == []
    assert ours.lease("ann", "us", LEASE), "the holder extends it"
    clock.now += LEASE + 0.001
    assert theirs.due(10, LEASE) == ["ann"]
    assert theirs.lease("ann", "them", LEASE)
    assert not ours.lease("ann", "us", LEASE)


def test_renewing_extends_the_owner_s_leases_alone(box_of: BoxOf, clock: SimpleNamespace) -> None:
    ours, theirs = box_of(), box_of()
    ours.lease("ann", "us", LEASE)
    theirs.lease("bob", "them", LEASE)
    clock.now += LEASE
    ours.renew("us", LEASE)
    clock.now += 1
    assert not ours.lease("ann", "third", LEASE)
    assert ours.lease("bob", "third", LEASE)


def test_a_lane_is_released_by_its_owner_and_when_it_is_empty(box_of: BoxOf, clock: SimpleNamespace) -> None:
    box = box_of()
    [seq] = add(box, "1")
    add(box, "other", lane="bob")
    box.lease("ann", "us", LEASE)
    assert not box.release("ann", "us"), "an entry came meanwhile"
    box.done(seq)
    assert not box.release("ann", "them")
    assert not box.lease("ann", "them", LEASE)
    assert box.release("ann", "us")
    assert box.lease("ann", "them", LEASE)


@pytest.mark.parametrize(("pause", "lasts"), [(30.0, 30.0), (LONGEST_PAUSE, LONGEST_PAUSE), (86_400.0, LONGEST_PAUSE)])
def test_a_paused_lane_is_due_when_its_pause_is_over(
    box: Outbox, clock: SimpleNamespace, pause: float, lasts: float
) -> None:
    add(box, "1")
    box.lease("ann", "us", LEASE)
    assert box.release("ann", "us", pause=pause), "an entry waits, and the lane is let go all the same"
    clock.now += lasts - 1
    assert box.due(10, LEASE) == []
    clock.now += 1
    assert box.due(10, LEASE) == ["ann"]


@pytest.mark.parametrize("back", [60.5, 86_400.0, 10 * 365 * 86_400.0])
def test_a_clock_that_was_set_back_stops_no_lane(box_of: BoxOf, clock: SimpleNamespace, back: float) -> None:
    ours, theirs = box_of(), box_of()
    add(ours, "1")
    ours.lease("ann", "us", LEASE)  # and the process dies
    clock.now -= back
    assert theirs.due(10, LEASE) == ["ann"]
    assert theirs.lease("ann", "them", LEASE)
    assert not ours.lease("ann", "us", LEASE), "the new lease is one like any other"
    assert ours.due(10, LEASE) == []


def test_a_clock_that_was_set_back_a_little_ends_no_lease(box_of: BoxOf, clock: SimpleNamespace) -> None:
    ours, theirs = box_of(), box_of()
    add(ours, "1")
    ours.lease("ann", "us", LEASE)
    clock.now -= 9 * LEASE
    assert theirs.due(10, LEASE) == []
    assert not theirs.lease("ann", "them", LEASE)


def test_a_pause_from_before_the_clock_was_set_back_is_over(box: Outbox, clock: SimpleNamespace) -> None:
    add(box, "1")
    box.lease("ann", "us", LEASE)
    box.release("ann", "us", pause=30)
    clock.now -= LONGEST_PAUSE
    assert box.due(10, LEASE) == ["ann"]
    assert box.status().oldest_seconds == 0, "nothing is younger than new"


def test_the_longest_waiting_lanes_are_due_first(box: Outbox) -> None:
    add(box, "1", lane="zoe")
    add(box, "2", lane="ann")
    add(box, "3", lane="mia")
    add(box, "4", lane="zoe")
    assert box.due(10, LEASE) == ["zoe", "ann", "mia"]
    assert box.due(2, LEASE) == ["zoe", "ann"]
    assert box.due(0, LEASE) == []


# --- sessions ---------------------------------------------------------------------------------------------------------
def test_a_lane_is_found_by_its_handle_and_by_its_session(box_of: BoxOf) -> None:
    box = box_of()
    box.begin("ann", {"userId": "1"}, "pending-1")
    assert box.session_of("ann") == (None, {"userId": "1"})
    box.opened("ann", "session-1")
    box.begin("ann", {"userId": "2"}, "pending-2")
    again = box_of()
    assert [again.lane_of(each) for each in ("pending-1", "session-1", "pending-2")] == ["ann"] * 3
    assert again.session_of("ann") == ("session-1", {"userId": "2"}), "the newest request opens the next one"
    assert again.session_of("session/s9") == ("s9", None)
    assert (again.lane_of("s9"), again.session_of("bob")) == ("session/s9", (None, None))


def test_ids_that_nobody_used_for_long_are_forgotten(box: Outbox, clock: SimpleNamespace) -> None:
    for lane in ("idle", "busy", "refused", "leased", "used"):
        box.begin(lane, {"userId": lane}, f"pending-{lane}")
    add(box, "1", lane="busy")
    box.refuse(add(box, "2", lane="refused")[0], "no")
    clock.now += FORGOTTEN_AFTER
    box.trim()
    assert box.session_of("idle")[1] == {"userId": "idle"}, "its last moment counts"
    box.lease("leased", "us", LEASE)
    clock.now += 1
    box.begin("used", {"userId": "used"}, "pending-used")
    box.trim()
    kept = {lane for lane in ("idle", "busy", "refused", "leased", "used") if box.session_of(lane)[1]}
    assert kept == {"busy", "refused", "leased", "used"}
    assert (box.lane_of("pending-idle"), box.lane_of("pending-used")) == ("session/pending-idle", "used")


def test_the_status_counts_what_waits_and_since_when(box: Outbox, clock: SimpleNamespace) -> None:
    assert (box.status().waiting, box.status().oldest_seconds, box.status().durable) == (0, 0.0, True)
    [first, _] = add(box, "1", "2")
    clock.now += 40
    add(box, "3")
    assert (box.status().waiting, box.status().oldest_seconds) == (3, 40.0)
    box.refuse(first, "no")
    clock.now += 1
    assert (box.status().waiting, box.status().oldest_seconds) == (2, 41.0), "the second is as old"
