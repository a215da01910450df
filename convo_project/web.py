"""The web process: granian serves Django over WSGI, with threads. Start it with `python -m convo_project.web`."""

from __future__ import annotations

import multiprocessing
import sys

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from convo_project import address, capacity, commands, env

SPARE_THREADS = 8
STOP_SECONDS = 15  # for unfinished requests


def serve() -> None:
    """Serve until a signal."""
    # Forked workers follow their parent's death (processes.follow_supervisor); Python 3.14 would not fork by itself.
    multiprocessing.set_start_method("fork", force=True)
    Server(
        "convo_project.wsgi:served",
        address=address.host(),
        port=address.port(),
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=env.whole("WEB_WORKERS", 2, least=1, most=64),
        # A stream keeps a thread as long as it lasts, and there must be enough threads for requests beside all
        # streams. The feed that streams read from, and refused streams, take a few more.
        blocking_threads=capacity.web_threads() + capacity.web_streams() + SPARE_THREADS,
        blocking_threads_idle_timeout=600,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
    ).serve()


if __name__ == "__main__":
    sys.exit(commands.with_database(serve))
