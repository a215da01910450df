"""Writes the lines of Convo's own commands to the terminal. A closed terminal stops no command."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

_one_at_a_time = threading.Lock()


def say(line: str = "") -> None:
    """Write a line to the standard output."""
    _write(sys.stdout, line)


def done(what: str) -> None:
    """Write that a step of a set-up is done."""
    _write(sys.stdout, f"\033[32m✓\033[0m {what}" if on_a_screen() else f"- {what}")


def on_a_screen() -> bool:
    """Return whether the standard output is a terminal, so that nothing written to it lands in a log."""
    return bool(sys.stdout) and sys.stdout.isatty()


def complain(line: str) -> None:
    """Write a line to the standard error."""
    _write(sys.stderr, line)


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:  # closed before we started
        return
    encoding = stream.encoding or "utf-8"
    readable = line.encode(encoding, "replace").decode(encoding)
    with _one_at_a_time:
        try:
            stream.write(f"{readable}\n")
            stream.flush()
        except OSError:  # nobody listens any more; what follows, and what is still buffered, goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
