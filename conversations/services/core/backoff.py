"""The retry policy of everything that is tried again in the background: replies, sends, remembering, deletions."""

from __future__ import annotations

import random
from datetime import timedelta

from django.conf import settings

MOST_DOUBLINGS = 64  # of the least base, 0.01 s, longer than any wait; 2 ** 1,024 is too large for a float


def backoff(attempt: int, retry_after: float | None = None) -> timedelta:
    """Return how long to wait before the next attempt.

    The wait doubles from RETRY_BASE_SECONDS to RETRY_MOST_SECONDS, less up to half at random, so that attempts that
    failed together are not repeated together.

    attempt: how many attempts have failed (1, 2 …)
    retry_after: seconds that the other side asked for; the wait is never shorter
    """
    doublings = min(max(attempt - 1, 0), MOST_DOUBLINGS)
    longest = min(settings.RETRY_BASE_SECONDS * 2**doublings, settings.RETRY_MOST_SECONDS)
    jittered = longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=max(jittered, retry_after or 0))
