"""The ids of what a thread or task is working on, for the lines of the log: request, conversation, turn, message, task.

A thread does not know them by itself: work is handed to it with those of whoever hands it on (`ContextThreads`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})
_ids: ContextVar[Mapping[str, str]] = ContextVar("convo_ids", default=_NONE)


def current() -> Mapping[str, str]:
    """Return the ids by name."""
    return _ids.get()


def set_request(request_id: str) -> None:
    """Note the id of the request that this task, or this thread's next work, answers."""
    _ids.set({"request": request_id})


@contextmanager
def about(**ids: object) -> Iterator[None]:
    """Note these ids until the block ends, beside those that are noted."""
    before = _ids.set({**_ids.get(), **{name: str(value) for name, value in ids.items()}})
    try:
        yield
    finally:
        _ids.reset(before)


class ContextThreads(ThreadPoolExecutor):
    """Threads that do each piece of work with the ids of whoever hands it to them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of the work."""
        return super().submit(copy_context().run, fn, *args, **kwargs)
