"""The copilot's panel as its user finds it: opened, written in, read."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

LONG = "One two three four five six seven eight nine ten."


def watched(page: Page, home: str) -> Page:
    """The page, noting what it asks from elsewhere and what goes wrong in its scripts."""
    notes: Any = page
    notes.outside, notes.faults, notes.came_back = [], [], []

    def asked(request: Any) -> None:
        if not request.url.startswith(home):
            notes.outside.append(request.url)
        if "/copilot/stream/" in request.url:
            notes.came_back.append(request.headers.get("last-event-id", ""))

    page.on("request", asked)
    page.on("pageerror", lambda error: notes.faults.append(str(error)))
    page.on("console", lambda line: notes.faults.append(line.text) if "Security Policy" in line.text else None)
    return page


def opened(page: Page) -> Page:
    page.get_by_role("button", name="Open the assistant").click()
    return page


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def replies(page: Page) -> Any:
    return page.locator(".message.ai .text")


def sound(page: Page) -> None:
    """Nothing was asked from elsewhere, and no script stumbled."""
    assert page.outside == []  # type: ignore[attr-defined]
    assert page.faults == []  # type: ignore[attr-defined]
