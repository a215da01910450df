"""Says whether the process that was started beside this one is alive: for health checks of containers.

    python -m convo_project.alive      exit code 0 if CONVO_ALIVE_FILE was touched within HANG_SECONDS

Each process touches the file from its main loop (`conversations/heartbeat.py`). It needs neither Django nor a database.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from conversations.heartbeat import FILE
from convo_project import env


def is_alive() -> bool:
    """Return whether there was a sign of life within HANG_SECONDS (60 by default)."""
    path = env.text(FILE)
    seconds = env.seconds("HANG_SECONDS", 60, least=0, most=86_400) or float("inf")
    try:
        return bool(path) and time.time() - os.stat(Path(path)).st_mtime <= seconds
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_alive() else 1)
