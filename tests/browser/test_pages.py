"""The pages that there are: the API's documentation, and the back office."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model
from playwright.sync_api import expect

from tests.conftest import Door, reply_to_all, send_all

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_documentation_shows_the_routes_and_loads_nothing_from_outside(page):
    page.goto("/docs/")
    expect(page.get_by_text("/webhooks/{channel}/inbound").first).to_be_visible()
    page.get_by_text("/conversations/{id}/send").click()
    expect(page.get_by_text("It is appended as an ai chunk").first).to_be_visible()
    assert page.outside == []
    assert page.faults == []


def test_staff_sign_in_and_find_a_session_by_the_persons_phone(page, shop, key):
    door = Door(shop, key)
    door.says("<img src=x onerror=alert(1)> Where is my order?", phone="+51999999999", user_id="ann")
    reply_to_all()
    send_all()
    get_user_model().objects.create_superuser("boss", "", "a-long-password")

    page.goto("/admin/")
    page.get_by_label("Username").fill("boss")
    page.get_by_label("Password").fill("a-long-password")
    page.get_by_role("button", name="Log in").click()
    page.locator("#nav-sidebar-apps").get_by_text("Conversations", exact=True).click()
    page.locator("#searchbar").fill("+51999999999")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.goto("/admin/conversations/chunk/")
    expect(page.get_by_text("Where is my order?")).to_be_visible()
    assert page.locator("#result_list img[src=x]").count() == 0
    assert page.outside == []
    assert page.faults == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 360)])
def test_the_start_page_leads_to_every_part_without_script(browser, live_server, theme, width):
    context = browser.new_context(
        base_url=live_server.url,
        java_script_enabled=False,
        color_scheme=theme,
        viewport={"width": width, "height": 800},
    )
    try:
        page = context.new_page()
        page.goto("/")
        page.get_by_role("link", name="API documentation").focus()
        for name in ("Back office", "Channel simulator", "Copilot", "API documentation"):
            box = page.get_by_role("listitem").filter(has=page.get_by_role("link", name=name)).bounding_box()
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= width, name
        page.get_by_role("link", name="Copilot").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    finally:
        context.close()


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 360)])
def test_axe_finds_nothing_on_the_start_page(page, theme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    page.goto("/")
    assert [each["id"] for each in Axe().run(page).response["violations"]] == []
    assert page.outside == []
    assert page.faults == []
