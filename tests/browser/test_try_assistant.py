"""A manager tries an assistant: one check after the other, each with what was seen and what to change."""

from __future__ import annotations

import os
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from conversations.admin.access import Role
from conversations.models import Assistant, Client
from tests.browser.test_back_office import sign_in, stayed_at_home
from tests.conversations.staff import staff
from tests.fakes.dialects import Dialect, FakeDialects

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 390)])
def test_a_manager_sees_what_passes_and_what_to_change(
    page: Page, shop: Client, settings: Any, live_server: Any, theme: str, width: int
) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 1000})
    with FakeDialects(Dialect.NO_TOOLS) as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        Assistant.objects.filter(client=shop).update(engine="auto", model="tiny")
        assistant = Assistant.objects.get(client=shop)
        staff("ann", shop=Role.MANAGER)
        sign_in(page, "ann")
        page.goto(f"/admin/conversations/assistant/{assistant.pk}/change/")
        page.goto(page.locator("a", has_text="Try this assistant").first.get_attribute("href") or "")
        expect(page.get_by_text("Everything that a reply needs is asked")).to_be_visible()
        fake.then("reply", text="Hello.")
        page.get_by_role("button", name="Try it").click()
        expect(page.get_by_role("status")).to_contain_text("failed.", timeout=30_000)

    expect(page.get_by_text("The model has no tools.")).to_be_visible()
    expect(page.get_by_text("Turn the assistant's tools off, or choose another model.")).to_be_visible()
    expect(page.get_by_text("It said: “Hello.”")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/try-{theme}-{width}.png", full_page=True)
    found = Axe().run(page, context=".ta")
    assert found.violations_count == 0, found.generate_report()
    stayed_at_home(page)
