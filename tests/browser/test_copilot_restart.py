"""The panel, while the server is killed and comes back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from conversations.models import Assistant, Client
from tests.copilot.reading import user
from tests.crash import stage

pytestmark = pytest.mark.browser
LONG = "One two three four five six seven eight nine ten."


def test_it_goes_on_by_itself(browser: Browser, tmp_path: Any, django_db_blocker: Any) -> None:
    with (
        django_db_blocker.unblock(),
        stage.database() as url,
        stage.Convo(url, tmp_path, WEB_WORKERS="1") as convo,
    ):
        Assistant.objects.update(in_copilot=True)
        user("ann", Client.objects.get(pk=convo.client_id))
        web = convo.start_web()
        convo.start_dispatcher()
        page = browser.new_context(base_url=convo.base_url).new_page()
        page.goto("/copilot/app")
        page.get_by_label("User name").fill("ann")
        page.get_by_label("Password").fill("a-long-password")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Open the assistant").click()
        last_word = threading.Event()
        convo.openai.then("reply", text=LONG, hold=last_word)
        page.get_by_role("textbox", name="Message").fill("Count")
        page.keyboard.press("Enter")
        reply = page.locator(".message.ai .text")
        expect(reply).to_contain_text("One two", timeout=30_000)
        web.kill()
        expect(page.get_by_text("There is no connection.")).to_be_visible(timeout=30_000)
        last_word.set()
        convo.start_web()
        expect(reply).to_have_text(LONG, timeout=30_000)
        expect(page.get_by_text("There is no connection.")).to_have_count(0)
        page.get_by_role("textbox", name="Message").fill("Go on")
        page.keyboard.press("Enter")
        expect(reply.last).to_contain_text("You said: Go on", timeout=30_000)
        expect(page.locator(".message")).to_have_count(4)
        page.context.close()
