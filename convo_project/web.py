"""The web process: granian serves the web application by RSGI. Start it with `python -m convo_project.web`."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import threading
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from convo_project import address, capacity, commands, env, metrics, stopping, unfit_database

STOP_SECONDS = 15  # for unfinished requests
SPARE_FILES = 512  # of a process: its own sockets, database connections and files


class DrainingServer(MPServer):
    """A server that serves for WEB_DRAIN_SECONDS after the first signal, while `/readyz` answers 503.

    Meanwhile a load balancer turns to others. A second signal stops it at once.
    """

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        """Stop, at once or after the time for load balancers."""
        stop: Any = super().signal_handler_interrupt
        patience = capacity.web_drain_seconds()
        if stopping.is_noted() or not patience:
            stopping.note()
            stop()
            return
        stopping.note()
        timer = threading.Timer(patience, stop)
        timer.daemon = True
        timer.start()


def serve() -> None:
    """Serve until a signal. Raises CannotStartError if the database is of Convo 0.1 or 0.2."""
    unfit_database.refuse()
    metrics.share_counts()
    # Forked workers follow their parent's death (processes.follow_supervisor); Python 3.14 would not fork by itself.
    multiprocessing.set_start_method("fork", force=True)
    DrainingServer(
        "convo_project.rsgi:application",
        address=address.host(),
        port=address.port(),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        workers=env.whole("WEB_WORKERS", 1, least=1, most=64),
        backlog=4096,
        backpressure=_connections(),
        http1_settings=HTTP1Settings(header_read_timeout=capacity.web_idle_seconds() * 1000),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
    ).serve()


def _connections() -> int:
    """Return how many connections a process keeps open, as far as the system lets it have files."""
    wanted = capacity.web_connections()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + SPARE_FILES if most == resource.RLIM_INFINITY else min(wanted + SPARE_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), most))
    return max(min(wanted, files - SPARE_FILES), 64)


if __name__ == "__main__":
    sys.exit(commands.with_database(serve))
