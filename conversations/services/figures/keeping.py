"""Keeping figures: every quarter of an hour is counted once it is over, and again within an hour for what came late.

`figures_done` says how far. A run that dies goes on from there; one that was down for days catches up step by step.
Days are summed as soon as none of their quarters is counted again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone

from conversations.models import FiguresDone
from conversations.services.core.sql import exclusively
from conversations.services.figures import counting, days
from conversations.services.figures.counting import QUARTER, quarter_of

AGAIN = timedelta(hours=1)  # so long a quarter is counted again
STEP = timedelta(hours=4)  # counted together
SETTLED = timedelta(minutes=1)  # after its end, a quarter's transactions are committed

Progress = Callable[[datetime, int], None]


def is_pending(now: datetime) -> bool:
    """Return whether a quarter is over that is not counted."""
    return counted_upto(now) < quarter_of(now - SETTLED)


def keep(now: datetime) -> int:
    """Count what is over and not counted, and the last hour before it again; return how many rows that were."""
    total = 0
    with exclusively("convo.figures") as only_one:
        if not only_one:
            return 0
        until = quarter_of(now - SETTLED)
        since = counted_upto(now) - AGAIN
        while since < until:
            upto = min(since + STEP, until)
            total += counting.count(since, upto)
            FiguresDone.objects.update_or_create(pk=1, defaults={"upto": upto})
            since = upto
        days.sum_days(counted_upto(now) - AGAIN)
    return total


def backfill(since: datetime, until: datetime, progress: Progress, *, dry_run: bool = False) -> int:
    """Count the quarters from `since` to `until` that are over, and return how many rows they have.

    Quarters that are counted already are counted again, which changes nothing that is right. It can be repeated.

    progress: called with the time that was reached and the rows so far
    dry_run: count without writing
    """
    since, until, total = quarter_of(since), min(quarter_of(until), quarter_of(timezone.now() - SETTLED)), 0
    count = counting.preview if dry_run else counting.count
    while since < until:
        upto = min(since + STEP, until)
        total += count(since, upto)
        progress(upto, total)
        since = upto
    return total


def counted_upto(now: datetime) -> datetime:
    """Return up to when figures are counted. At first that is now: `count_figures` counts what was before."""
    done = FiguresDone.objects.filter(pk=1).values_list("upto", flat=True).first()
    return done or quarter_of(now) - QUARTER
