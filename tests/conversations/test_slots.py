"""Slots: who of those that wait takes the next one, and how many anybody may hold."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest

from conversations.services.core.slots import Bound, Lane, Slots, claim_in_turn, with_spare


def lane(client: UUID | None = None, **more: Any) -> Lane:
    """A lane of a new client, or one more of the client."""
    pk = uuid4()
    return Lane(pk, client or pk, **more)


def take(slots: Slots, one: Lane, number: int = 1) -> list[UUID]:
    """Let so many of the lane be in flight."""
    taken = [uuid4() for _ in range(number)]
    for pk in taken:
        slots.take(pk, one)
    return taken


def served(slots: Slots, *lanes: Lane, rounds: int) -> Counter[UUID]:
    """How many each lane gets, one slot at a time, where what takes one is over at once."""
    found: Counter[UUID] = Counter()
    for _ in range(rounds):
        found.update({one.id: number for one, number in slots.allot(lanes)})
    return found


def test_a_single_client_may_hold_as_many_as_are_set_and_leaves_the_spare_ones():
    for number in (1, 2, 3, 4, 32, 64, 256):
        slots, flood = Slots(with_spare(number, 3)), lane()
        assert slots.allot([flood]) == [(flood, number)]


def test_an_account_leaves_slots_to_its_client_and_a_client_to_others_at_its_host():
    slots = Slots(with_spare(32, 2))
    client, host = uuid4(), Bound("graph.example", 4)
    hanging, sound = (lane(client, bounds=(Bound(name, 2), host)) for name in (uuid4(), uuid4()))
    [(_, most)] = slots.allot([hanging])
    assert most == 32
    take(slots, hanging, most)
    assert slots.full_lanes() == [hanging.id]
    [(_, more)] = slots.allot([hanging, sound])
    take(slots, sound, more)
    assert 0 < more < 16
    others = lane(bounds=(Bound(uuid4(), 2), host))
    [(_, rest)] = slots.allot([hanging, sound, others])
    assert rest > 0


def test_a_host_that_hangs_leaves_slots_whoever_sends_to_it():
    slots, host = Slots(48), Bound("graph.example", 4)
    many = [lane(bounds=(host,)) for _ in range(100)]
    allotted = slots.allot(many)
    assert sum(number for _, number in allotted) == 38
    for one, number in allotted:
        take(slots, one, number)
    elsewhere = lane(bounds=(Bound("orb.example", 4),))
    assert slots.allot([*many, elsewhere])[-1][0] == elsewhere


def test_a_client_without_anything_in_flight_gets_the_next_slot_before_one_that_has_much():
    slots, flood, idle = Slots(8), lane(), lane()
    take(slots, flood, 7)
    assert slots.allot([flood, idle]) == [(idle, 1)]


def test_clients_take_turns_where_what_they_have_is_over_at_once():
    slots, lanes = Slots(1), [lane(), lane(), lane()]
    assert served(slots, *lanes, rounds=30) == {one.id: 10 for one in lanes}


def test_the_accounts_of_a_client_share_its_turns():
    slots, other, client = Slots(1), lane(), uuid4()
    first, second = lane(client), lane(client)
    assert served(slots, first, second, other, rounds=40) == {other.id: 20, first.id: 10, second.id: 10}


def test_a_client_of_weight_three_gets_three_times_the_slots():
    slots, heavy, light = Slots(40, bounded=False), lane(weight=3), lane()
    assert slots.allot([light, heavy]) == [(light, 10), (heavy, 30)]


def test_retries_alone_come_after_all_that_is_new():
    slots, tried, new = Slots(3, bounded=False), lane(is_new=False), lane()
    assert slots.allot([tried, new]) == [(new, 3)]
    take(slots, new, 2)
    claimed = claim_in_turn(slots, [tried, new], lambda one, number: take(slots, one, 1 if one == tried else 0))
    assert len(claimed) == 1, "what new lanes leave goes to retries"


def test_a_few_slots_are_tried_first_and_a_backlog_gets_all():
    slots, waiting = Slots(300, bounded=False), lane()
    asked = []

    def claim(one: Lane, number: int) -> list[UUID]:
        asked.append(number)
        return take(slots, one, min(number, left))

    left = 2
    assert len(claim_in_turn(slots, [waiting], claim)) == 2
    assert asked == [16], "to count out a slot takes time"
    left = 300
    assert len(claim_in_turn(slots, [waiting], claim)) == 298
    assert asked == [16, 16, 64, 218]


def test_a_slot_is_held_once_and_given_back_whole():
    slots, first, second = Slots(10, bounded=False), lane(most=1), lane(most=1)
    [pk] = take(slots, first)
    slots.take(pk, second)
    assert (slots.free, slots.full_lanes()) == (9, [second.id])
    slots.let_go(pk)
    slots.let_go(pk)
    assert (slots.free, slots.full_lanes()) == (10, [])
    assert slots.allot([first, second]) == [(first, 1), (second, 1)]


def test_a_probe_is_alone():
    slots, probe = Slots(10), lane(most=1)
    assert slots.allot([probe]) == [(probe, 1)]
    [pk] = take(slots, probe)
    assert slots.allot([probe]) == []
    slots.let_go(pk)
    assert slots.allot([probe]) == [(probe, 1)]


def test_a_lane_with_less_than_its_share_leaves_the_rest_to_the_others():
    slots, few, many = Slots(10, bounded=False), lane(), lane()
    left = {few: 2, many: 50}

    def claim(one: Lane, number: int) -> list[UUID]:
        number = min(number, left[one])
        left[one] -= number
        return take(slots, one, number)

    assert len(claim_in_turn(slots, [few, many], claim)) == 10
    assert (left, slots.free) == ({few: 0, many: 42}, 0)


@pytest.mark.parametrize("bounded", [True, False])
def test_what_is_over_frees_its_slot(bounded):
    slots, one = Slots(2, bounded=bounded), lane()
    [pk] = take(slots, one)
    assert (pk in slots, set(slots.held), slots.free) == (True, {pk}, 1)
    slots.let_go(pk)
    slots.let_go(pk)
    assert (pk in slots, set(slots.held), slots.free) == (False, set(), 2)
