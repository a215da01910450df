"""The place in which processes count for `/metrics`, and the server of those that are asked on METRICS_PORT."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from convo_project import address, env

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


def share_counts() -> None:
    """Let the processes that this one forks count in one folder, which goes with it, unless there is one already.

    Call it before anything is counted.
    """
    if not os.environ.get(METRICS_FOLDER):
        folder = tempfile.mkdtemp(prefix="convo-metrics-")
        os.environ[METRICS_FOLDER] = folder
        owner = os.getpid()
        atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)


def serve_on_own_port(read: Callable[[], bytes]) -> ThreadingHTTPServer | None:
    """Serve `/metrics` on METRICS_PORT in a thread, without a key: let only Prometheus reach the port.

    Returns None where the setting is empty, or another process of this machine has the port, which counts for all.
    """
    port = env.whole("METRICS_PORT", 0, least=0, most=65_535)
    if not port:
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            try:
                body = read()
            except Exception as error:
                log.warning("the metrics cannot be read: %s", type(error).__name__)
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", TEXT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    try:
        server = ThreadingHTTPServer((address.host(), port), Handler)
    except OSError as error:
        log.warning("METRICS_PORT is not served by this process: %s", type(error).__name__)
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
