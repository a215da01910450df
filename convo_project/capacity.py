"""How much a web process does at once."""

from __future__ import annotations

from convo_project import env


def web_threads() -> int:
    """Requests that a process works on at the same time; each has a database connection."""
    return env.whole("WEB_THREADS", 16, least=1, most=1000)


def web_streams() -> int:
    """Replies that a process streams to their readers at the same time; they only wait, and have no connection."""
    return env.whole("WEB_STREAMS", 128, least=0, most=4000)
