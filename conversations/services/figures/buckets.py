"""Buckets of times: how often a time fell between two bounds, from which a median is read within a few per cent.

Each bound is about a quarter more than the one before, from a second to a month.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cache

FIRST, LAST, STEP = 1.0, 2_678_400.0, 1.25


@cache
def bounds() -> tuple[float, ...]:
    """Return the lower bound of each bucket in seconds; the first begins at 0, the last has no end."""
    found = [0.0]
    bound = FIRST
    while bound < LAST:
        found.append(round(bound, 3))
        bound *= STEP
    return tuple(found)


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket into which the time falls. A time below 0 counts as 0."""
    return bisect_right(bounds(), max(seconds, 0.0)) - 1


def percentile(numbers: Mapping[int, int], share: float) -> float | None:
    """Return the time in seconds that this share of the times does not exceed, None if there are none.

    Within a bucket the times are taken as evenly spread.

    numbers: how many times are in each bucket
    """
    total = sum(numbers.values())
    if total <= 0:
        return None
    wanted, before = share * total, 0
    for bucket in sorted(numbers):
        here = numbers[bucket]
        if before + here >= wanted:
            lower = bounds()[bucket]
            upper = bounds()[bucket + 1] if bucket + 1 < len(bounds()) else lower * STEP
            return lower + (upper - lower) * max(wanted - before, 0) / here
        before += here
    return None
