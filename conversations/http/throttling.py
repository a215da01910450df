"""Rates: so many requests a minute and key; over it a 429 that says when to come back."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversations.models import ApiKey

MINUTE = 60


def count(key_id: int) -> bool:
    """Count a request of the key; whether it is within API_REQUESTS_PER_MINUTE.

    A fixed window, one counter a key: cheap enough for every request. Each process counts for itself, unless CACHE_URL
    names a cache that they share.
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
    """The same for DRF's views."""

    def allow_request(self, request: Request, view: Any) -> bool:
        """Count the request."""
        return not isinstance(request.auth, ApiKey) or count(request.auth.pk)

    def wait(self) -> float:
        """Seconds to the next window."""
        return MINUTE - time.time() % MINUTE
