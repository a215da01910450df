"""The number of random examples that a test tries: few in `make test`, many in `make test-long`."""

from __future__ import annotations

import os

LONG = bool(os.environ.get("LONG_TESTS"))


def times(few: int, many: int) -> int:
    """Return `many` in `make test-long`, where the tests marked `long` and those of Hypothesis run, else `few`."""
    return many if LONG else few
