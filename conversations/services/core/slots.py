"""Slots: how many replies or sends a dispatcher has in flight, and who of those that wait takes the next one.

What is due waits in lanes, one for each client or account. A lane whose client holds the least takes the next slot; of
those that hold as much, the one whose turn is longest ago. What one name holds (a client, an account, a host) is
bounded by what is left free for the others. So nobody takes the last slots while they hold many, and an idle client
waits for nobody's backlog.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, TypeVar
from uuid import UUID

from conversations.services.core.cluster import of_each

Claimed = TypeVar("Claimed")

FIRST_STEP = 16  # slots that the first round allots, mostly enough; each further round allots four times as many
CLIENT_TIMES = 3  # a client holds at most three times as many slots as it leaves free


@dataclass(frozen=True, slots=True)
class Bound:
    """The rule that `name` holds at most `times` as many slots as are left free."""

    name: UUID | str
    times: int


@dataclass(frozen=True, slots=True)
class Lane:
    """The due work of one client, or of one of its accounts.

    id          the client's or the account's
    weight      a client of weight 2 gets twice the slots of one of weight 1, where both wait
    is_new      something in it was never tried; lanes of retries alone come after all others
    most        how many of it may be in flight, whatever is free; None: no limit
    bounds      what is bounded beside the client
    """

    id: UUID
    client_id: UUID
    weight: int = 1
    is_new: bool = True
    most: int | None = None
    bounds: tuple[Bound, ...] = ()

    @property
    def all_bounds(self) -> tuple[Bound, ...]:
        """Return the bounds with the client's, which grows with its weight."""
        return (Bound(self.client_id, CLIENT_TIMES * self.weight), *self.bounds)

    @property
    def names(self) -> set[UUID | str]:
        """Return the names that a slot of the lane counts for."""
        return {self.client_id, *(bound.name for bound in self.bounds)}


def with_spare(number: int, times: int) -> int:
    """Return the number of slots of which a name that may hold `times` what is free gets `number`."""
    return number + -(-number // times)


class Slots:
    """The slots of one process. It may be used by several threads.

    total: how many there are
    bounded: whether the bounds of lanes hold; without them a single lane may take all
    """

    def __init__(self, total: int, *, bounded: bool = True) -> None:
        self._total, self._bounded = total, bounded
        self._guard = threading.Lock()
        self._held: dict[UUID, Lane] = {}
        self._names: Counter[UUID | str] = Counter()  # how many slots each holds
        self._lanes: Counter[UUID] = Counter()
        self._turns: dict[UUID, int] = {}  # by client and lane: when it took a slot last
        self._clock = count(1)

    @property
    def free(self) -> int:
        """Return the number of free slots."""
        return max(self._total - len(self._held), 0)

    @property
    def held(self) -> dict[UUID, UUID]:
        """Return the ids of what is in flight, each with its client's."""
        with self._guard:
            return {pk: lane.client_id for pk, lane in self._held.items()}

    def __contains__(self, pk: UUID) -> bool:
        return pk in self._held

    def take(self, pk: UUID, lane: Lane) -> None:
        """Let what was claimed of the lane hold a slot."""
        with self._guard:
            self._let_go(pk)
            self._held[pk] = lane
            self._names.update(lane.names)
            self._lanes[lane.id] += 1

    def let_go(self, pk: UUID) -> None:
        """Free the slot of what has ended."""
        with self._guard:
            self._let_go(pk)

    def _let_go(self, pk: UUID) -> None:
        if lane := self._held.pop(pk, None):
            _count_less(self._lanes, lane.id)
            for name in lane.names:
                _count_less(self._names, name)

    def _use(self) -> _Use:
        return _Use(self.free, self._names.copy(), self._lanes.copy())

    def full_lanes(self) -> list[UUID]:
        """Return the ids of the lanes in flight that may take no further slot."""
        with self._guard:
            using, lanes = self._use(), {lane.id: lane for lane in self._held.values()}
            return [lane.id for lane in lanes.values() if not self._may_take(lane, using)]

    def allot(self, lanes: Sequence[Lane], most: float = inf) -> list[tuple[Lane, int]]:
        """Return how many of the free slots each of the lanes may take now; a lane that may take none is left out.

        most: how many slots all together
        """
        with self._guard:
            using = self._use()
            for is_new in (True, False):
                self._allot([lane for lane in lanes if lane.is_new == is_new], using, most)
            return [(lane, number) for lane in lanes if (number := using.allotted[lane.id])]

    def _allot(self, lanes: Iterable[Lane], using: _Use, most: float) -> None:
        queue = [(self._rank(lane, using), number, lane) for number, lane in enumerate(lanes)]
        heapq.heapify(queue)
        while queue and using.free and using.allotted.total() < most:
            rank, number, lane = heapq.heappop(queue)
            if rank != (now := self._rank(lane, using)):  # its client took one for another lane
                heapq.heappush(queue, (now, number, lane))
            elif self._may_take(lane, using):
                using.add(lane)
                self._turns[lane.client_id] = self._turns[lane.id] = next(self._clock)
                heapq.heappush(queue, (self._rank(lane, using), number, lane))

    def _rank(self, lane: Lane, using: _Use) -> tuple[float, int, int, int]:
        turn = self._turns.get
        share = using.names[lane.client_id] / lane.weight
        return share, turn(lane.client_id, 0), using.lanes[lane.id], turn(lane.id, 0)

    def _may_take(self, lane: Lane, using: _Use) -> bool:
        if not using.free or (lane.most is not None and using.lanes[lane.id] >= lane.most):
            return False
        left = using.free - 1
        return not self._bounded or all(
            not (holds := using.names[bound.name]) or holds + 1 <= bound.times * left for bound in lane.all_bounds
        )


def _count_less(counter: Counter[Any], key: Any) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


@dataclass(slots=True)
class _Use:
    """The use of the slots, and what of it is allotted just now."""

    free: int
    names: Counter[UUID | str]
    lanes: Counter[UUID]
    allotted: Counter[UUID] = field(default_factory=Counter)

    def add(self, lane: Lane) -> None:
        """Allot one slot to the lane."""
        self.free -= 1
        self.lanes[lane.id] += 1
        self.names.update(lane.names)
        self.allotted[lane.id] += 1


def claim_in_turn(
    slots: Slots, lanes: Sequence[Lane], claim: Callable[[Lane, int], Sequence[Claimed]]
) -> list[Claimed]:
    """Claim of the lanes in turn until no slot is free or nothing is left, and return what was claimed.

    claim: claims up to so many of the lane, and lets what it returns take slots (`Slots.take`)
    """
    claimed: list[Claimed] = []
    waiting = {lane.id: lane for lane in lanes}
    most = FIRST_STEP
    while waiting and (allotted := slots.allot(list(waiting.values()), most)):
        most *= 4
        for lane, number in allotted:
            found = next(of_each([(lane, number)], claim), ())
            claimed += found
            if len(found) < number:
                del waiting[lane.id]
    return claimed


def as_slots(slots: Slots | int) -> Slots:
    """Return the slots; for a number, that many without bounds."""
    return Slots(slots, bounded=False) if isinstance(slots, int) else slots
