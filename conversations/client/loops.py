"""The event loop of the client library, on a thread of its own: it runs deliveries, and blocking calls wait for it."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background() -> asyncio.AbstractEventLoop:
    """Return the loop, which is started with the first call."""
    global _loop
    with _guard:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="convo-client", daemon=True).start()
        return _loop


def _forget() -> None:
    """Let a forked child, which has no threads, start its own loop."""
    global _guard, _loop
    _guard, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine on the background loop and return its result. Raises what it raises."""
    if asyncio._get_running_loop() is background():
        work.close()
        raise RuntimeError("This would wait for itself: use the async method here.")
    return asyncio.run_coroutine_threadsafe(work, background()).result()


def blocking_function(
    function: Callable[Arguments, Coroutine[Any, Any, Result]],
) -> Callable[Arguments, Result]:
    """Return the function for programs that are not async."""

    @functools.wraps(function)
    def blocking(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return wait_for(function(*args, **kwargs))

    return blocking


class blocking_method(Generic[Arguments, Result]):  # noqa: N801 - it is used like a function
    """Descriptor that makes an async method blocking, in a class whose `_wrapped` is the async object."""

    def __init__(self, method: Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, Result]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> blocking_method[Arguments, Result]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Callable[Arguments, Result]: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        """Return the bound method."""
        if instance is None:
            return self
        wrapped = cast(Any, instance)._wrapped
        return functools.wraps(self._method)(lambda *args, **kwargs: wait_for(self._method(wrapped, *args, **kwargs)))
