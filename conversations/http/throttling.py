"""The rate limit of each API key: API_REQUESTS_PER_MINUTE, over which the response is a 429 with Retry-After."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversations.models import ApiKey

MINUTE = 60


def count_request(key_id: int) -> bool:
    """Count a request of the key and return whether it is within API_REQUESTS_PER_MINUTE.

    The window is a fixed minute with one counter a key, which is cheap enough for every request. Each process counts
    for itself, unless CACHE_URL names a cache that they share.
    """
    limit = settings.API_REQUESTS_PER_MINUTE
    if not limit:
        return True
    counter = f"rate:{key_id}:{int(time.time() // MINUTE)}"
    try:
        return cache.incr(counter) <= limit
    except ValueError:  # the window's first
        cache.add(counter, 1, timeout=2 * MINUTE)
        return True


class KeyThrottle(BaseThrottle):
    """DRF's throttle by the rate limit of API keys."""

    def allow_request(self, request: Request, view: Any) -> bool:
        """Count the request and return whether it is within the limit; a request without a key always is."""
        return not isinstance(request.auth, ApiKey) or count_request(request.auth.pk)

    def wait(self) -> float:
        """Return the seconds until the next window."""
        return MINUTE - time.time() % MINUTE
