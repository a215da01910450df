"""The capacity of a web process."""

from __future__ import annotations

from convo_project import env


def web_threads() -> int:
    """Return the number of simultaneous requests of a process; each takes a database connection."""
    return env.whole("WEB_THREADS", 16, least=1, most=1000)


def web_streams() -> int:
    """Return the number of replies that a process streams at once; a stream takes no database connection."""
    return env.whole("WEB_STREAMS", 512, least=0, most=4000)


def web_connections() -> int:
    """Return the number of open connections of a process, those that wait for a request included."""
    return env.whole("WEB_CONNECTIONS", 8_000, least=64, most=100_000)


def web_idle_seconds() -> int:
    """Return the seconds within which the head of a request must arrive, also the next one of a connection."""
    return env.whole("WEB_IDLE_SECONDS", 30, least=1, most=3_600)


def web_body_seconds() -> float:
    """Return the seconds within which a request's body must arrive; a large one has more (http/bodies.py)."""
    return env.seconds("WEB_BODY_SECONDS", 10, least=0.1, most=600)


def web_drain_seconds() -> float:
    """Return the seconds for which a process that was asked to stop still serves, while `/readyz` answers 503."""
    return env.seconds("WEB_DRAIN_SECONDS", 0, least=0, most=600)
