"""Raising rows of figures to what is counted now, by their totals.

A figure never falls, since what is deleted stays counted. And it may pass from one row to another: the messages of a
colleague who is deleted are nobody's, and a conversation may get another assistant. So not each row is raised by
itself, which would count the same twice. Over all assistants and colleagues a figure rises by no more than its total
is higher than before, and what is there stays where it was counted first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)


def raised(found: Mapping[Key, Any], known: Mapping[Key, Any], total_of: Callable[[Key], Hashable]) -> dict[Key, Any]:
    """Return the numbers of `found` as they are to be written, those that are not 0.

    found: what is counted now; known: what the rows say
    total_of: names the total that a number is a part of
    """
    room: dict[Hashable, Any] = defaultdict(int)
    for key, number in found.items():
        room[total_of(key)] += number
    for key, number in known.items():
        room[total_of(key)] -= number
    numbers = {}
    for key in sorted(found, key=str):
        before = known.get(key, 0)
        more = max(min(found[key] - before, room[total_of(key)]), 0)
        room[total_of(key)] -= more
        if before + more:
            numbers[key] = before + more
    return numbers
