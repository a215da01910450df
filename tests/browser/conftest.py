"""A real Chromium at a real server."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conversations.services.desk import live

# The copilot's members, its model and what writes its replies: the same as in the tests without a browser.
from tests.copilot.conftest import model, no_thread_is_left, roofers, writer  # noqa: F401

# Playwright's loop makes Django believe that it is called from async code; it is not.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

PATIENCE = 60_000.0  # milliseconds: a machine that stands still for a while is no fault of a page
expect.set_options(timeout=PATIENCE)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the browser."""
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all."""
    if CHROMIUM is None:
        pytest.fail("No Chromium: install one (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        flags = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*flags, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, live_server: Any) -> Iterator[Page]:
    """A page that reports every request that leaves the server, and every error of a script."""
    context = browser.new_context(base_url=live_server.url)
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.outside = []  # type: ignore[attr-defined]
    opened.faults = []  # type: ignore[attr-defined]
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((live_server.url, "data:", "blob:")) else opened.outside.append(request.url)
        ),  # type: ignore[attr-defined]
    )
    opened.on(
        "console",
        lambda said: opened.faults.append(said.text) if "Content Security Policy" in said.text else None,  # type: ignore[attr-defined]
    )
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))  # type: ignore[attr-defined]
    yield opened
    context.close()


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread of the live news goes, with its connection, before the database is emptied."""
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.1)
    yield
    until = time.monotonic() + 60
    while live.live._thread is not None and time.monotonic() < until:
        live.live._watchers.clear()  # also one whose request was still under way
        time.sleep(0.01)
    assert live.live._thread is None
