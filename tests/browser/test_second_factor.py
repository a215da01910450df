"""Passkeys, in a Chromium whose authenticator is a virtual one; and the looks of the pages of /admin/account/."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, expect

from conversations.services.tenants import second_factor
from convo_project import identity_providers
from tests.conversations.sign_in_doors import code_of
from tests.conversations.staff import PASSWORD, staff, superuser
from tests.fakes.identity_provider import CLIENT_ID, SECRET, FakeIdentityProvider

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def authenticator(page: Page) -> dict[str, Any]:
    """The authenticator of the browser, such as a phone's. It says yes to everything."""
    devices = page.context.new_cdp_session(page)
    devices.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made: dict[str, Any] = devices.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return {"devices": devices, "id": made["authenticatorId"]}


def sign_in(page: Page, name: str = "ann") -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("Password")).to_have_count(0, timeout=20_000)  # the next page is there


def add_passkey(page: Page, name: str = "Phone") -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Set up the passkey").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()


def forget_session(page: Page) -> None:
    """Leave the page first: what it still asks for would set cookies again, which the next form does not know."""
    page.goto("about:blank")
    page.context.clear_cookies()


def test_a_passkey_is_set_up_where_it_is_required_and_signs_in(page, shop, authenticator):
    second_factor.require(shop, required=True)
    staff("ann", shop="agent")
    page.goto("/admin/")
    sign_in(page)
    expect(page.get_by_text("You need a second factor to sign in.")).to_be_visible()
    page.locator(".si-card", has_text="Passkeys").get_by_role("link", name="Set up").click()
    add_passkey(page)
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()

    forget_session(page)
    page.goto("/admin/inbox/")
    sign_in(page)
    page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url("**/admin/inbox/")
    assert page.outside == []
    assert page.faults == []


def test_an_authenticator_that_does_not_know_the_passkey_signs_nobody_in(page, shop, authenticator):
    staff("ann", shop="agent")
    page.goto(reverse("mfa_add_webauthn"))
    sign_in(page)
    page.goto(reverse("mfa_add_webauthn"))
    add_passkey(page)
    authenticator["devices"].send("WebAuthn.clearCredentials", {"authenticatorId": authenticator["id"]})
    forget_session(page)
    page.goto("/admin/")
    sign_in(page)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_text("The passkey was not used.")).to_be_visible()
    expect(page.get_by_role("button", name="Use a passkey")).to_be_enabled()
    page.goto("/admin/inbox/")
    expect(page.get_by_label("Username")).to_be_visible()


def test_an_answer_of_the_authenticator_is_taken_once(page, shop, authenticator):
    staff("ann", shop="agent")
    page.goto("/admin/")
    sign_in(page)
    page.goto(reverse("mfa_add_webauthn"))
    add_passkey(page)
    forget_session(page)
    page.goto("/admin/inbox/")
    sign_in(page)
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url("**/admin/inbox/")
    forget_session(page)
    page.goto("/admin/inbox/")
    sign_in(page)
    fields = sent.value.post_data_json
    expect(page.get_by_role("button", name="Use a passkey")).to_be_visible()
    page.evaluate(
        "credential => { document.querySelector('[name=credential]').value = credential;"
        " document.querySelector('[data-passkey]').form.submit(); }",
        fields["credential"],
    )
    expect(page.get_by_text("This passkey was not accepted.")).to_be_visible()
    page.goto("/admin/inbox/")
    expect(page.get_by_label("Username")).to_be_visible()


def test_a_passkey_is_renamed_confirms_the_user_and_is_removed(page, shop, authenticator):
    ann = staff("ann", shop="agent")
    page.goto("/admin/")
    sign_in(page)
    page.goto(reverse("mfa_add_webauthn"))
    add_passkey(page)
    page.goto(reverse("mfa_list_webauthn"))
    page.get_by_role("link", name="Phone").click()
    page.get_by_label("Name").fill("Key on my ring")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name="Key on my ring")).to_be_visible()
    session = page.context.cookies()
    forget_session(page)
    page.goto("/admin/")
    sign_in(page)
    page.get_by_role("button", name="Use a passkey").click()
    page.locator("#nav-sidebar-apps").wait_for()
    page.goto(reverse("mfa_reauthenticate_webauthn"))
    page.get_by_role("button", name="Use a passkey").click()
    page.locator("#nav-sidebar-apps").wait_for()
    page.goto(reverse("mfa_list_webauthn"))
    page.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("You have no passkey.")).to_be_visible()
    assert not Authenticator.objects.filter(user=ann).exists()
    assert session
    assert page.faults == []


def test_the_menu_beside_the_name_leads_to_it_and_the_app_s_code_signs_in(page, shop):
    staff("ann", shop="agent")
    page.goto("/admin/")
    sign_in(page)
    page.get_by_text("ann", exact=True).first.click()
    page.get_by_role("link", name="Second factor").click()
    page.locator(".si-card", has_text="Authenticator app").get_by_role("link", name="Set up").click()
    secret = page.locator(".si-key").inner_text()
    page.get_by_label("Code").fill(code_of(secret, -1))
    page.get_by_role("button", name="Set up").click()
    expect(page.locator(".si-codes li")).to_have_count(10)
    forget_session(page)
    page.goto("/copilot/app")
    page.get_by_label("User name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Code").fill(code_of(secret))
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/copilot/app")
    assert page.faults == []


def test_the_identity_provider_s_page_and_back(page, live_server, shop, settings, monkeypatch):
    settings.PUBLIC_BASE_URL = live_server.url
    with FakeIdentityProvider(f"{live_server.url}/admin/account/oidc/corp/login/callback/") as corp:
        monkeypatch.setenv("OIDC_PROVIDERS", "corp")
        values = {"ISSUER": corp.url, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": SECRET, "ROLES": "support=shop:agent"}
        for part, value in values.items():
            monkeypatch.setenv(f"OIDC_CORP_{part}", value)
        settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": identity_providers.providers()}}
        page.goto("/admin/inbox/")
        page.get_by_role("link", name="Sign in with Corp").click()
        page.wait_for_url("**/admin/inbox/")
        corp.person |= {"sub": "2", "preferred_username": "bob"}
        forget_session(page)
        superuser("boss")
        page.goto("/admin/")
        sign_in(page, "boss")
        page.goto(reverse("mfa_index"))
        page.get_by_role("button", name="Link").click()
        page.get_by_role("link", name="Go on at Corp").click()
        expect(page.get_by_text("Linked", exact=True)).to_be_visible()
    assert page.faults == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_nothing_is_cut(page, shop, theme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    staff("ann", shop="agent")
    page.goto("/admin/")
    look_at(page, width)
    sign_in(page)
    for name in ("mfa_index", "mfa_activate_totp", "mfa_add_webauthn", "mfa_list_webauthn"):
        page.goto(reverse(name))
        look_at(page, width)


def look_at(page: Page, width: int) -> None:
    """axe is content, and the page is no wider than the window."""
    page.wait_for_load_state("networkidle")
    found = Axe().run(page, options={"rules": {"region": {"enabled": False}, "landmark-one-main": {"enabled": False}}})
    ours = [
        each for each in found.response["violations"] if any(".si-" in str(node["target"]) for node in each["nodes"])
    ]
    assert ours == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    assert page.faults == []
