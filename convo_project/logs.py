"""Formats log lines: an exception is its class and place, without its sentence.

An exception's sentence can quote a person's text: PostgreSQL's sentences name the failing row, a parser's the input.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from datetime import UTC, datetime
from types import TracebackType

from conversations import log_context
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


# Our lines name their values, such as "turn failed: conversation=%s code=%s".
_NAMED = re.compile(r"\b([a-z_]+)=(?:%[sdr]|%\.\d+f)")
_WIDE = 200  # characters of a value


class JsonFormatter(PrivateFormatter):
    """Prints a line as one JSON object: what was said, the values it names, and the ids of what was worked on."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text, without card numbers."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **log_context.current(),
            **_named_values(record),
        }
        if record.exc_info and not record.name.startswith(REFUSED):
            line["exception"] = self.formatException(record.exc_info)
        return CARDS_ONLY.clean(json.dumps(line, ensure_ascii=False, default=str))


def _named_values(record: logging.LogRecord) -> dict[str, object]:
    """Return the values that the line names; none where not every value has a name."""
    values = record.args if isinstance(record.args, tuple) else ()
    names = _NAMED.findall(record.msg) if isinstance(record.msg, str) else []
    if len(names) != len(values):
        return {}
    return {
        name: value if isinstance(value, int) else str(value)[:_WIDE] for name, value in zip(names, values, strict=True)
    }
