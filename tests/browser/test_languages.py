"""The back office in Spanish and Portuguese, in a real browser."""

from __future__ import annotations

import os
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, expect

from conversations.models import Client, Preferences
from conversations.services.simulator import accounts
from conversations.services.tenants import preferences
from tests.browser.test_inbox import people, quiet  # noqa: F401
from tests.browser.test_transcript import sign_in
from tests.conftest import Door
from tests.conversations.staff import staff

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WIDTHS = (1440, 1280, 390)
SHOTS = os.environ.get("SCREENSHOTS", "")  # a directory to look at the pages in
WORDS = {
    "es": ("Mías", "Nota privada", "La tiene usted", "Sin asignar"),
    "pt-br": ("Minhas", "Nota privada", "Está com você", "Não atribuídas"),
}


def settle(page: Page, name: str, width: int) -> None:
    """The page is as wide as the window, is in its language, and axe finds nothing."""
    page.wait_for_load_state("load")
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}-{width}.png")
    too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert too_wide <= 0, f"{name} is {too_wide} pixels too wide at {width}"
    # What stands in a button or a tab is not cut off.
    cut = page.eval_on_selector_all(
        "#inbox button, #inbox .ib-tabs a, #inbox label",
        "all => all.filter(one => one.offsetParent && !one.closest('.ib-hidden, .cv-hidden')"
        " && !one.matches('.ib-hidden, .cv-hidden') && one.scrollWidth > one.clientWidth + 2)"
        ".map(one => one.textContent.trim())",
    )
    assert cut == [], f"{name} at {width}"


def axe(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []


@pytest.mark.parametrize("language", ["es", "pt-br"])
def test_the_inbox_is_in_the_persons_language_at_every_width(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
    language: str,
) -> None:
    sign_in(page, "agnes", shop, "agent")
    preferences.choose(User.objects.get(username="agnes").pk, language=language, time_zone="America/Lima")
    mine, note, taken, unassigned = WORDS[language]
    page.set_viewport_size({"width": 1440, "height": 860})
    page.goto("/admin/inbox/")
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator(".ib-tabs")).to_contain_text(unassigned)
    expect(page.locator(".ib-tabs")).to_contain_text(mine)
    page.locator(".ib-link", has_text="Maria").click()
    expect(page.get_by_role("tab", name=note)).to_be_visible()
    page.keyboard.type("Hola")
    page.keyboard.press("Enter")
    expect(page.locator("[data-holder]")).to_have_text(taken)
    expect(page.locator(".cv-day").first).to_have_text({"es": "Hoy", "pt-br": "Hoje"}[language])  # by the script
    opened = page.url
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        for name, address in (("inbox", "/admin/inbox/"), ("conversation", opened)):
            page.goto(address)
            settle(page, f"{name}-{language}", width)
        axe(page)
    quiet(page)


@pytest.mark.parametrize("language", ["es", "pt-br"])
def test_other_pages_hold_their_words(page: Any, shop: Client, people: Door, language: str) -> None:  # noqa: F811
    sign_in(page, "mara", shop, "manager")
    preferences.choose(User.objects.get(username="mara").pk, language=language, time_zone="UTC")
    playable = accounts.set_up(shop)[0]
    addresses = {
        "dashboard": "/admin/",
        "conversations": "/admin/conversations/conversation/",
        "contacts": "/admin/conversations/contact/",
        "client": f"/admin/conversations/client/{shop.pk}/change/",
        "settings": "/admin/me/",
        "simulator": reverse("admin:simulator_play", args=[playable.pk]),
    }
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        for name, address in addresses.items():
            answer = page.goto(address)
            assert answer.status == 200, address
            expect(page.locator("html")).to_have_attribute("lang", language)
            settle(page, f"{name}-{language}", width)
    axe(page)
    assert page.faults == []


def test_the_language_and_the_zone_are_the_browsers_until_one_chooses(
    browser: Any, live_server: Any, shop: Client
) -> None:
    staff("agnes", **{shop.sub_domain: "agent"})
    context = browser.new_context(base_url=live_server.url, locale="pt-BR", timezone_id="America/Bogota")
    page = context.new_page()
    page.goto("/admin/login/")
    expect(page.locator("html")).to_have_attribute("lang", "pt-br")
    page.fill("#id_username", "agnes")
    page.fill("#id_password", "a-long-password")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/")
    page.goto("/admin/me/")
    expect(page.locator("#my-settings")).to_contain_text("America/Bogota")
    page.select_option("#id_language-language", "es")
    page.select_option("#id_language-time_zone", "America/Lima")
    page.locator("#my-settings button").click()
    expect(page.get_by_text("Su configuración está guardada.")).to_be_visible()
    assert Preferences.objects.values_list("language", "time_zone").get() == ("es", "America/Lima")
    expect(page.get_by_text("America/Lima").first).to_be_visible()  # below the name of the back office
    context.close()
