"""Requests that many send at the same moment take turns in few threads; others wait for a thread, up to a limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conversations.endpoints.web_application import WebApplication
from conversations.services.core.statements import ThisThread

THREADS = 16
PATIENCE = 20  # seconds, at most


class InPool(ThisThread):
    """Work in threads, as the event loop's statements have it done."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS)

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)


class Pages:
    """A WSGI application whose pages take until `may_end`."""

    def __init__(self) -> None:
        self.may_end, self._changed = threading.Event(), threading.Condition()
        self.begun = list[str]()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != "/healthz":  # asked for when the web application is made
            with self._changed:
                self.begun.append(path)
                self._changed.notify_all()
            if path.startswith(("/admin/inbox/", "/copilot")):
                assert self.may_end.wait(PATIENCE)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [path.encode()]

    def wait_for(self, count: int) -> None:
        """Wait until so many pages were begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, PATIENCE)


class Request:
    """A request of RSGI, and its exchange."""

    http_version, scheme, method, query_string = "1.1", "http", "GET", ""
    server, client = "testserver:80", "127.0.0.1:5000"

    def __init__(self, path: str) -> None:
        self.path, self.headers, self.answered = path, {"host": "testserver"}, 0

    def response_bytes(self, status: int, _headers: Any, _body: bytes) -> None:
        self.answered = status


@pytest.mark.parametrize(("path", "turns"), [("/admin/inbox/list/", 1), ("/admin/inbox/live/", 1), ("/copilot", 4)])
def test_they_take_turns_and_what_another_asks_for_does_not_wait(path: str, turns: int) -> None:
    pages, place = Pages(), InPool()
    web = WebApplication(pages, THREADS)

    async def all_of_it() -> None:
        asked = [Request(path) for _ in range(10)]
        jobs = [asyncio.create_task(web.answer(place, each, each, b"")) for each in asked]  # type: ignore[arg-type]
        await asyncio.to_thread(pages.wait_for, turns)
        other = Request("/admin/reports/")
        await asyncio.wait_for(web.answer(place, other, other, b""), PATIENCE)  # type: ignore[arg-type]
        assert other.answered == 200
        assert pages.begun == [path] * turns + [other.path], "no further one was begun"
        pages.may_end.set()
        await asyncio.gather(*jobs)
        assert {each.answered for each in asked} == {200}

    asyncio.run(all_of_it())


def test_two_hundred_requests_at_once_wait_and_what_is_far_too_much_is_refused() -> None:
    pages, place = Pages(), InPool()
    web = WebApplication(pages, THREADS)

    async def all_of_it() -> None:
        asked = [Request("/admin/inbox/7/") for _ in range(1_000)]
        jobs = [asyncio.create_task(web.answer(place, each, each, b"")) for each in asked]  # type: ignore[arg-type]
        await asyncio.to_thread(pages.wait_for, THREADS)
        refused = sum(each.answered == 503 for each in asked)
        pages.may_end.set()
        await asyncio.gather(*jobs)
        assert 0 < refused < 800
        assert sum(each.answered == 200 for each in asked) == 1_000 - refused

    asyncio.run(all_of_it())
