"""A note that the server was asked to stop, which the process that serves shares with the workers that it forks."""

from __future__ import annotations

import mmap

_noted = mmap.mmap(-1, 1)  # memory that forked processes share


def note() -> None:
    """Note that the server was asked to stop."""
    _noted[0] = 1


def is_noted() -> bool:
    """Return whether the server was asked to stop."""
    return bool(_noted[0])
