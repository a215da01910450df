"""One thread per process runs an event loop, in which every request to the LLM and to Pinecone waits on the network.

The event loop is there for the deadline. The SDKs' timeouts count each read anew, so that a server which sends a byte
now and then holds a thread for ever; asyncio cancels whatever a call is waiting on: a name, a connection, a header, a
body or the pause before the SDK's own next try.
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


class _LoopThread:
    """An event loop and its thread, both started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="llm", daemon=True).start()
            return self._loop


_loop_thread = _LoopThread()


def run(call: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
    """Run `call` on the event loop and return its result.

    Any thread may call this; it blocks. Raises what `call` raises, and TimeoutError after `seconds`.
    """

    async def limited() -> _Result:
        async with asyncio.timeout(seconds):
            return await call

    future = asyncio.run_coroutine_threadsafe(limited(), _loop_thread.running())
    try:
        return future.result(seconds + GRACE)
    finally:
        future.cancel()  # for a caller that was interrupted; otherwise it is done, and this does nothing


def start(call: Coroutine[Any, Any, _Result]) -> Future[_Result]:
    """Start `call` on the event loop and return its future at once; cancelling the future cancels the call."""
    return asyncio.run_coroutine_threadsafe(call, _loop_thread.running())


def after_fork(reset: Callable[[], None]) -> None:
    """Call `reset` in every process that is forked from this one.

    A forked process has neither its parent's loop thread nor a right to its connections.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


def _reset() -> None:
    global _loop_thread
    _loop_thread = _LoopThread()


after_fork(_reset)
