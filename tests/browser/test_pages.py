"""The pages that there are: the API's documentation, and the back office."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import expect

from tests.conftest import Door, reply_to_all, send_all

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_documentation_shows_the_routes_and_loads_nothing_from_outside(page):
    page.goto("/docs/")
    expect(page.get_by_text("/webhooks/{channel}/inbound").first).to_be_visible()
    page.get_by_text("/conversations/{id}/send").click()
    expect(page.get_by_text("Say something in the assistant's place").first).to_be_visible()
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
