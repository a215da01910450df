"""Convo is killed while the copilot writes, and started again: its user reads on, and goes on in the same session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from conversations.models import Assistant, Client, Conversation
from tests.browser.panel import LONG, opened, replies, say, sound, watched
from tests.copilot.reading import cookies_of, user
from tests.crash import stage
from tests.crash.stage import Convo

HALF = "Half of a thought, which nobody finishes."


@pytest.fixture
def convo(tmp_path: Path, django_db_blocker: Any) -> Iterator[Convo]:
    with django_db_blocker.unblock(), stage.database() as url, Convo(url, tmp_path) as convo:
        Assistant.objects.update(in_copilot=True)
        yield convo


@pytest.fixture
def page(convo: Convo, browser: Browser) -> Iterator[Page]:
    """A window on the copilot's page, of somebody who is signed in."""
    ann = user("ann", Client.objects.get(pk=convo.client_id))
    context = browser.new_context(base_url=convo.base_url)
    context.add_cookies(
        [{"name": name, "value": value, "url": convo.base_url} for name, value in cookies_of(ann).items()]
    )
    yield watched(context.new_page(), convo.base_url)
    context.close()


@pytest.mark.parametrize("dispatcher_too", [False, True], ids=["the web process", "everything"])
def test_a_restart_in_the_middle_of_a_reply_is_a_pause(convo: Convo, page: Page, dispatcher_too: bool) -> None:
    web, dispatcher = convo.start_web(), convo.start_dispatcher()
    go_on = threading.Event()
    convo.openai.then("reply", text=HALF if dispatcher_too else LONG, hold=go_on)
    page.goto("/copilot/app")
    say(opened(page), "Count")
    expect(replies(page)).to_contain_text("Half of" if dispatcher_too else "One two three")

    web.kill()
    if dispatcher_too:
        dispatcher.kill()
        convo.openai.then("reply", text=LONG)
    expect(page.get_by_role("alert")).to_contain_text("There is no connection. The page tries again automatically")
    page.get_by_role("textbox", name="Message").fill("Go on")
    go_on.set()
    if dispatcher_too:
        convo.start_dispatcher()
    convo.start_web()

    expect(replies(page)).to_have_text([LONG])
    expect(page.get_by_role("alert")).not_to_contain_text("connection")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Go on")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(replies(page)).to_have_text([LONG, "You said: Go on"])
    page.reload()
    expect(page.locator(".message .text")).to_have_text(["Count", LONG, "Go on", "You said: Go on"])
    said = Conversation.objects.get(channel="web").chunks.filter(role__in=["user", "ai"])
    assert list(said.values_list("content", flat=True)) == ["Count", LONG, "Go on", "You said: Go on"]
    sound(page)
