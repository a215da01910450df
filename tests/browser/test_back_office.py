"""The back office in a real browser: each role signs in, and managers set up their client."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from conversations.admin.access import Role
from conversations.models import ChannelAccount
from conversations.services.tenants import setup
from tests.conftest import Door
from tests.conversations.staff import PASSWORD, staff, superuser
from tests.fakes.meta import FakeMeta

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def sign_in(page, name):
    page.goto("/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()


def stayed_at_home(page):
    """Nothing was loaded from outside, no script failed, and none of the scripts stands in a page."""
    assert page.outside == []
    assert page.faults == []
    inline = page.locator("script:not([src]):not([type='application/json'])").all_text_contents()
    assert inline == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AGENT, Role.MANAGER])
def test_each_role_signs_in_and_sees_what_it_may(page, shop, key, role):
    Door(shop, key).says("Hello")
    staff("ann", shop=role)
    sign_in(page, "ann")
    stayed_at_home(page)
    menu = page.locator("#nav-sidebar-apps")
    for name in ("Inbox", "Conversations", "Contacts"):
        expect(menu.get_by_text(name, exact=True)).to_be_visible()
    for name in ("Assistants", "Channels", "API keys", "Staff", "Audit log"):
        expect(menu.get_by_text(name, exact=True)).to_have_count(1 if role == Role.MANAGER else 0)
    expect(menu.get_by_text("Users", exact=True)).to_have_count(0)
    page.goto("/admin/conversations/apikey/")
    expect(page.get_by_text("tests", exact=True)).to_be_visible()
    expect(page.get_by_title("Add API key")).to_have_count(1 if role == Role.MANAGER else 0)
    stayed_at_home(page)


def test_a_superuser_sees_the_system_too(page, shop):
    superuser("boss")
    sign_in(page, "boss")
    page.locator("#nav-sidebar-apps").get_by_text("Users", exact=True).click()
    expect(page.get_by_role("link", name="boss", exact=True)).to_be_visible()
    page.goto("/admin/django_q/failure/")
    expect(page.get_by_role("heading", name="Failed tasks")).to_be_visible()
    stayed_at_home(page)


def test_a_key_is_made_shown_once_and_revoked(page, shop):
    staff("ann", shop=Role.MANAGER)
    sign_in(page, "ann")
    page.goto("/admin/conversations/apikey/add/")
    page.locator("#id_name").fill("website")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.locator("#secret").inner_text()
    assert Door(shop, key).call("GET", "/conversations")[0] == 200
    page.get_by_role("link", name="I have copied it").click()
    assert key not in page.content()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("Programs that use it are refused")).to_be_visible()
    assert Door(shop, key).call("GET", "/conversations")[0] == 401
    stayed_at_home(page)


def test_credentials_are_typed_kept_and_checked(page, shop):
    with FakeMeta() as meta:
        account = setup.create_channel_account(
            shop,
            channel="whatsapp",
            provider="whatsapp",
            address=meta.phone_number_id,
            credentials={"access_token": "old", "app_secret": "s", "verify_token": "v"},
            base_url=meta.base_url,
        )
        staff("ann", shop=Role.MANAGER)
        sign_in(page, "ann")
        page.goto(f"/admin/conversations/channelaccount/{account.pk}/change/")
        page.get_by_role("link", name="Check account").click()
        page.get_by_role("button", name="Check account").click()
        expect(page.get_by_text("WhatsApp refuses the access token").first).to_be_visible()
        page.locator("#id_credential_access_token").fill(meta.access_token)
        page.get_by_role("button", name="Save and continue editing").click()
        expect(page.locator("#id_credential_access_token")).to_have_value("")
        page.get_by_role("link", name="Check account").click()
        page.get_by_role("button", name="Check account").click()
        expect(page.get_by_text("accepts the credentials: The shop")).to_be_visible()
    assert ChannelAccount.objects.get(pk=account.pk).health == "ok"
    stayed_at_home(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_first_page_fits_phone_and_wide_light_and_dark(page, shop, key, theme, width):
    Door(shop, key).says("Hello")
    staff("ann", shop=Role.VIEWER)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    sign_in(page, "ann")
    expect(page.get_by_role("link", name="Open 1", exact=True)).to_be_visible()
    colour = page.locator("#main").evaluate("element => getComputedStyle(element).backgroundColor")
    assert ("255, 255, 255" in colour) == (theme == "light")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("link", name="Open 1", exact=True).click()
    expect(page.get_by_role("heading", name="conversation").first).to_be_visible()
    stayed_at_home(page)
