"""Teams, round robin and saved views at work in the inbox, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from conversations.models import Client, Conversation, DeskState, Membership, SavedView, Team, TeamMember
from conversations.services.core.ledger import Actor
from conversations.services.desk import round_robin, saved_views, states, teams
from conversations.services.desk.filters import read
from conversations.services.transitions import takeover
from tests.browser.test_inbox import SOON_MS, colleague, people, quiet, row, violations  # noqa: F401
from tests.browser.test_transcript import sign_in
from tests.conftest import Door
from tests.conversations.test_teams import team_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def call_a_person(name: str) -> None:
    """The conversation waits for a person."""
    takeover.take_over(Conversation.objects.get(contact__name=name).pk, actor=Actor("system"), now=timezone.now())


def test_a_conversation_is_assigned_to_a_team_and_within_it_to_a_colleague(
    page: Any,
    colleague: Page,  # noqa: F811
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    team_of(shop, "Support", *(each.user for each in Membership.objects.filter(user__username="max")))
    page.goto("/admin/inbox/")
    expect(page.get_by_role("link", name="My teams")).to_have_count(0)
    row(page, "Maria").click()
    page.get_by_label("Assigned to").select_option("Support")
    expect(row(page, "Maria")).to_contain_text("Support")
    expect(page.locator(".ib-title")).to_contain_text("Support")

    colleague.goto("/admin/inbox/")
    colleague.get_by_role("link", name="My teams").click()
    expect(colleague.locator(".ib-link")).to_have_count(1)
    expect(row(colleague, "Maria")).to_contain_text("Support")
    page.get_by_label("Assigned to").select_option("max · Support")
    expect(row(page, "Maria")).to_contain_text("max")
    colleague.get_by_role("link", name="Mine").click()
    expect(row(colleague, "Maria")).to_contain_text("You")
    expect(row(colleague, "Maria")).to_contain_text("Support")
    page.reload()
    expect(page.get_by_label("Assigned to")).to_have_value(
        f"{Membership.objects.get(user__username='max').user_id}/{Team.objects.get().pk}"
    )
    quiet(page)


def test_who_is_available_gets_what_needs_a_person_and_who_is_away_does_not(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    user = sign_in(page, "agnes", shop, "agent")
    team_of(shop, "Support", user, is_default=True, hands_out=True)
    page.goto("/admin/inbox/?tab=mine")
    switch = page.get_by_role("switch")
    expect(switch).to_have_text("Away")
    expect(switch).not_to_be_checked()
    call_a_person("Ann Lee")
    assert round_robin.hand_out() == 0
    expect(page.locator("[data-count=unassigned]")).to_have_text("1", timeout=SOON_MS)
    page.wait_for_function("window.convoLive.isConnected")
    switch.focus()
    page.keyboard.press("Space")
    expect(switch).to_have_text("Available")
    expect(switch).to_be_checked()
    assert round_robin.hand_out() == 1
    expect(row(page, "Ann")).to_contain_text("Support", timeout=SOON_MS)
    expect(page.locator("[data-count=mine]")).to_have_text("1", timeout=SOON_MS)
    page.reload()
    expect(page.get_by_role("switch")).to_be_checked()
    page.get_by_role("switch").click()
    expect(page.get_by_role("switch")).to_have_text("Away")
    call_a_person("Maria Fernández")
    assert round_robin.hand_out() == 0
    quiet(page)


def test_who_goes_away_gives_back_what_waits(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    user = sign_in(page, "agnes", shop, "agent")
    team_of(shop, "Support", user, is_default=True, hands_out=True)
    teams.set_available(user.pk, True)
    for name in ("Ann Lee", "Maria Fernández"):
        call_a_person(name)
    assert round_robin.hand_out() == 2
    page.goto("/admin/inbox/?tab=mine")
    expect(page.locator(".ib-link")).to_have_count(2)
    page.get_by_role("switch").click()
    dialog = page.get_by_role("dialog", name="You are away")
    expect(dialog).to_contain_text("2 conversations wait for an answer of yours.")
    assert violations(page) == []
    dialog.get_by_role("button", name="Keep").click()
    expect(page.locator(".ib-link")).to_have_count(2)
    page.get_by_role("switch").click()
    expect(page.get_by_role("switch")).to_have_text("Available")
    page.get_by_role("switch").click()
    dialog.get_by_role("button", name="Give back").click()
    expect(dialog).to_contain_text("2 conversations went back to their teams, or to unassigned.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("[data-count=unassigned]")).to_have_text("2", timeout=SOON_MS)
    expect(page.locator(".ib-link")).to_have_count(0, timeout=SOON_MS)
    assert set(DeskState.objects.values_list("assignee", flat=True)) == {None}
    quiet(page)


def test_filters_are_saved_as_a_view_chosen_renamed_and_deleted(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "mona", shop, "manager")
    page.goto("/admin/inbox/")
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Channel").select_option("WhatsApp")
    expect(page.locator(".ib-link")).to_have_count(1)
    expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
    page.get_by_role("button", name="Saved views").click()
    page.get_by_label("Name of the new view").fill("WhatsApp")
    page.get_by_label("Share it with all staff").check()
    page.get_by_role("button", name="Save view").click()
    view = page.get_by_role("navigation", name="Saved views").get_by_role("link", name="WhatsApp")
    expect(view).to_contain_text("1")
    assert SavedView.objects.get().is_shared

    page.get_by_role("button", name="Saved views").click()
    page.get_by_label("Name of the new view").fill("WhatsApp")
    page.get_by_label("Share it with all staff").check()
    page.get_by_role("button", name="Save view").click()
    expect(page.get_by_role("alert")).to_have_text("There is a view of this name already.")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()

    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator(".ib-link")).to_have_count(3)
    view.click()
    expect(page.locator(".ib-link")).to_have_count(1)
    expect(view).to_have_attribute("aria-current", "page")
    expect(page.get_by_label("Channel")).to_have_value("whatsapp")
    page.get_by_role("link", name="Mine").click()
    expect(view).not_to_have_attribute("aria-current", "page")
    view.click()
    expect(page.get_by_role("link", name="All", exact=True)).to_have_attribute("aria-current", "page")
    people.says("Me too", channel="whatsapp", user_id="zoe", name="Zoé")
    expect(row(page, "Zoé")).to_be_visible(timeout=SOON_MS)

    page.get_by_role("button", name="Saved views").click()
    page.get_by_label("New name of WhatsApp").fill("Green")
    page.get_by_role("button", name="Rename WhatsApp").click()
    expect(page.locator("[data-views-place]")).to_contain_text("Green")
    page.get_by_role("button", name="Delete Green").click()
    expect(page.locator("[data-view]")).to_have_count(0)
    assert not SavedView.objects.exists()
    quiet(page)


def test_a_search_is_saved_and_a_status_that_the_tab_does_not_have_is_let_go(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    page.get_by_label("Find people and words").fill("maria")
    expect(row(page, "Ann")).to_have_count(0)
    page.get_by_role("button", name="Saved views").click()
    page.get_by_label("Name of the new view").fill("Maria")
    page.keyboard.press("Enter")
    view = page.get_by_role("navigation", name="Saved views").get_by_role("link", name="Maria")
    expect(view).to_be_visible()
    page.goto("/admin/inbox/")
    expect(row(page, "Ann")).to_be_visible()
    view.click()
    expect(page.get_by_label("Find people and words")).to_have_value("maria")
    expect(row(page, "Maria").first).to_be_visible()
    expect(row(page, "Ann")).to_have_count(0)
    page.goto(str(view.get_attribute("href")).replace("?", "/admin/inbox/?", 1))
    expect(row(page, "Ann")).to_have_count(0)
    expect(row(page, "Maria").first).to_be_visible()

    page.goto("/admin/inbox/?status=active")
    expect(page.get_by_label("Status")).to_have_value("active")
    page.get_by_role("link", name="Ended").click()
    expect(page.get_by_text("No conversation has ended yet.")).to_be_visible()
    expect(page.get_by_label("Status")).to_have_value("")
    quiet(page)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)])
def test_axe_finds_nothing_in_teams_and_views(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
    theme: str,
    width: int,
) -> None:
    page.set_viewport_size({"width": width, "height": 860})
    page.emulate_media(color_scheme=theme)
    user = sign_in(page, "mona", shop, "manager")
    team = team_of(shop, "Support", user, is_default=True, hands_out=True)
    maria = Conversation.objects.get(contact__name="Maria Fernández")
    by: dict[str, Any] = {"actor": Actor("staff", "mona"), "now": timezone.now(), "client": shop}
    states.assign(maria.pk, user.pk, team_id=team.pk, **by)
    assert DeskState.objects.get().team == team
    saved_views.save(shop, None, "Shared", read({"tab": "mine"}))
    saved_views.save(shop, user.pk, "Own", read({"q": "maria"}))
    page.goto("/admin/inbox/?channel=whatsapp")
    expect(page.locator("#ib-filters")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Saved views").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    row(page, "Maria").click()
    expect(page.locator(".ib-title h2")).to_have_text("Maria Fernández")
    assert violations(page) == []
    assert TeamMember.objects.count() == 1
    for path in ("", f"{team.pk}/change/", "add/"):
        page.goto(f"/admin/conversations/team/{path}")
        expect(page.get_by_role("heading").first).to_be_visible()
    quiet(page)
