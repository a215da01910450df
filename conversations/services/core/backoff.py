"""The one retry policy, for replies and for sends."""

from __future__ import annotations

import random
from datetime import timedelta

from django.conf import settings


def backoff(attempt: int, retry_after: float | None = None) -> timedelta:
    """How long to wait after the `attempt`-th failure (1, 2 …).

    Twice as long each time from RETRY_BASE_SECONDS to RETRY_MOST_SECONDS, less up to half at random so that what
    failed together does not come back together; never sooner than the `retry_after` seconds that
    the other side asked for.
    """
    longest = min(settings.RETRY_BASE_SECONDS * 2 ** max(attempt - 1, 0), settings.RETRY_MOST_SECONDS)
    jittered = longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=max(jittered, retry_after or 0))
