"""Formats log lines: an exception is its class and place, without its sentence.

An exception's sentence can quote a person's text: PostgreSQL's sentences name the failing row, a parser's the input.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from memory.redaction import CARDS_ONLY

REFUSED = "django.security."


class PrivateFormatter(logging.Formatter):
    """Prints an exception as its class and the lines of code it came through, and never a card number.

    Requests that Django refused with a 400 or 413 take one line, since strangers can cause them at will.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without card numbers."""
        if record.name.startswith(REFUSED):
            record = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        return CARDS_ONLY.clean(super().format(record))

    def formatException(  # noqa: N802 - logging's own name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Return the class and the frames."""
        kind, _, frames = ei
        lines = "".join(traceback.format_tb(frames)).rstrip()
        return f"{lines}\n{kind.__module__}.{kind.__qualname__}" if kind else lines
