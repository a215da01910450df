"""One thread per process runs an event loop that waits on the network, whoever calls.

That is for the deadline: the SDKs' timeouts count each read anew, so that a server which sends a byte now and then
holds a thread for ever; asyncio cuts off whatever a call is waiting on, be it a name, a connection, a header, a body or
the pause before the SDK's own next try.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")

GRACE = 5.0  # seconds after its deadline until a call is given up even if the event loop itself is stuck


class _Loop:
    """The event loop and its thread, from the first call on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="llm", daemon=True).start()
            return self._loop


_loop = _Loop()


def wait(call: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
    """What `call` returns or raises; TimeoutError after `seconds`, whatever it does. Any thread may ask."""

    async def limited() -> _Result:
        async with asyncio.timeout(seconds):
            return await call

    future = asyncio.run_coroutine_threadsafe(limited(), _loop.running())
    try:
        return future.result(seconds + GRACE)
    finally:
        future.cancel()  # for a caller that was interrupted; otherwise it is done, and this does nothing


def begin(call: Coroutine[Any, Any, _Result]) -> Future[_Result]:
    """Have `call` run beside all others, and return at once; cancelling the future cuts it off."""
    return asyncio.run_coroutine_threadsafe(call, _loop.running())


def in_forked_process(forget: Callable[[], None]) -> None:
    """Have `forget` called in every process that is forked from this one: it has neither its parent's loop thread nor
    a right to its connections."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _forget() -> None:
    global _loop
    _loop = _Loop()


in_forked_process(_forget)
