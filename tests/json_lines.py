"""The lines of the log as LOG_FORMAT=JSON writes them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from convo_project.logs import JsonFormatter


@contextmanager
def json_lines() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Return a function that returns the lines since the beginning of the block whose message has these words."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield lambda words: [
            line for line in map(json.loads, out.getvalue().splitlines()) if words in str(line["message"])
        ]
    finally:
        logging.getLogger().removeHandler(handler)
