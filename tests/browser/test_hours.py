"""Business hours, promises and e-mails in a real browser: the client's form, the inbox, and each one's own page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from conversations.models import Client, ClientHours, Conversation, MailChoice
from conversations.services.core.ledger import Actor
from conversations.services.desk import mail_choices
from conversations.services.tenants import client_hours
from conversations.services.transitions import pending_handovers
from tests.browser.test_inbox import people, row  # noqa: F401
from tests.browser.test_transcript import sign_in
from tests.conftest import Door

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def violations(page: Page) -> list[Any]:
    found = Axe().run(page, {"exclude": [["#nav-sidebar"]]}).response["violations"]
    return [(each["id"], [node["html"][:160] for node in each["nodes"]]) for each in found]


def form_of(shop: Client) -> str:
    return reverse("admin:conversations_client_change", args=[shop.pk])


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()


def test_a_manager_sets_hours_a_holiday_and_a_promise(page: Any, shop: Client) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    sign_in(page, "mona", shop, "manager")
    page.goto(form_of(shop))
    monday = page.get_by_role("group", name="Monday")
    expect(monday).to_contain_text("Closed")
    monday.get_by_role("button", name="Monday: add hours").click()
    expect(monday.get_by_label("Monday, opens")).to_have_value("9:00")
    monday.get_by_label("Monday, closes").fill("13:00")
    monday.get_by_role("button", name="Monday: add hours").click()
    monday.get_by_label("Monday, opens").last.fill("14")
    monday.get_by_label("Monday, closes").last.fill("24:00")
    monday.get_by_role("button", name="Monday: copy to the other weekdays").click()
    friday = page.get_by_role("group", name="Friday")
    expect(friday.get_by_label("Friday, closes").last).to_have_value("24:00")
    friday.get_by_role("button", name="Friday: remove these hours").last.click()
    page.get_by_role("button", name="Add a holiday").click()
    page.get_by_label("Date", exact=True).fill("2026-12-25")
    page.get_by_role("group", name="Holiday").get_by_label("Name").fill("Christmas")
    page.get_by_label("The assistant answers alone; every hand-over waits for the next opening").check()
    page.get_by_label("First response within").fill("5 minutes")
    save(page)
    page.wait_for_url("**/client/")
    stored = ClientHours.objects.get(client=shop)
    assert stored.week == [*[[[540, 780], [840, 1440]]] * 4, [[540, 780]], [], []]
    assert stored.holidays == [{"on": "2026-12-25", "name": "Christmas", "hours": []}]
    assert (stored.outside, stored.first_response_within) == ("assistant", timedelta(minutes=5))
    page.goto(form_of(shop))
    expect(page.get_by_label("Monday, opens").last).to_have_value("14:00")
    assert page.faults == []


def test_hours_that_overlap_are_refused_and_stay_in_the_form(page: Any, shop: Client) -> None:
    sign_in(page, "mona", shop, "manager")
    page.goto(form_of(shop))
    for begin, end in (("9:00", "14:00"), ("13:00", "18:00")):
        page.get_by_role("button", name="Monday: add hours").click()
        page.get_by_label("Monday, opens").last.fill(begin)
        page.get_by_label("Monday, closes").last.fill(end)
    save(page)
    expect(page.get_by_text("Monday: 9:00-14:00 and 13:00-18:00 overlap.")).to_be_visible()
    expect(page.get_by_label("Monday, opens").last).to_have_value("13:00")
    assert not ClientHours.objects.exists()


def promise(shop: Client, **within: Any) -> None:
    client_hours.store(shop, within)


def test_the_list_and_the_head_show_what_is_due_and_what_is_late(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    Client.objects.filter(pk=shop.pk).update(answer_within=timedelta(minutes=15))
    for minutes, name in ((3, "Ann Lee"), (20, "Maria Fernández")):
        waiting = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(contact__name=name).update(needs_staff_since=waiting)
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    expect(row(page, "Ann")).to_contain_text("Answer due in 11 min")
    expect(row(page, "Maria")).to_contain_text("Answer 5 min late")
    page.get_by_label("Order").select_option("late")
    expect(page.locator(".ib-name")).to_have_text(["Maria Fernández", "Ann Lee", "José Núñez"])
    row(page, "Maria").click()
    expect(page.locator(".ib-title")).to_contain_text("Answer 5 min late")
    # The clock goes on while the page is open.
    soon = timezone.now() - timedelta(minutes=15) + timedelta(seconds=8)
    Conversation.objects.filter(contact__name="Ann Lee").update(needs_staff_since=soon)
    expect(row(page, "Ann")).to_contain_text("Answer 1 min late", timeout=90_000)
    assert page.faults == []


def test_a_noted_hand_over_is_shown_beside_the_composer(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    conversation = Conversation.objects.get(contact__name="Ann Lee")
    monday = timezone.now().replace(year=2030, month=1, day=7, hour=9, minute=0)
    pending_handovers.note(conversation, Actor("system"), "She asked for a person.", monday)
    sign_in(page, "agnes", shop, "agent")
    page.goto(f"/admin/inbox/{conversation.pk}/")
    expect(page.get_by_text("Handed over to a person at the next opening: Monday, January 7, 9:00")).to_be_visible()
    page.get_by_role("button", name="Take over").click()
    expect(page.get_by_text("Handed over to a person")).to_have_count(0)


def test_a_colleague_chooses_their_e_mails(page: Any, shop: Client) -> None:
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/e-mails/")
    expect(page.get_by_text("No mail server is set up here")).to_be_visible()
    page.get_by_label("Conversations of my clients that nobody has").check(force=True)
    page.get_by_label("Once they have waited").fill("0")
    save(page)
    expect(page.get_by_text("Write the address to which the e-mails are sent.")).to_be_visible()
    page.get_by_label("E-mail address").fill("agnes@shop.example")
    page.get_by_label("Once they have waited").fill("10")
    page.get_by_label("My time zone").select_option("America/Bogota")
    save(page)
    expect(page.get_by_text("Saved.")).to_be_visible()
    choice = MailChoice.objects.get(user__username="agnes")
    assert (choice.address, choice.after_minutes, choice.time_zone) == ("agnes@shop.example", 10, "America/Bogota")
    assert (choice.tells_unassigned, choice.tells_mine, choice.tells_digest) == (True, False, False)
    assert page.faults == []


def test_the_link_of_an_e_mail_asks_before_it_ends_them(page: Any, shop: Client) -> None:
    agnes = sign_in(page, "agnes", shop, "agent")
    page.context.clear_cookies()
    choice = {"address": "agnes@shop.example", "tells_mine": True, "tells_digest": True}
    MailChoice.objects.create(user=agnes, **choice)
    link = mail_choices.unsubscribe_link(agnes.pk, "waiting")
    page.goto(link[link.index("/mail/") :])
    expect(page.get_by_role("heading", name="E-mails about what waits")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Send no more").click()
    expect(page.get_by_text("You get no e-mail any more about conversations that wait.")).to_be_visible()
    stored = MailChoice.objects.get()
    assert (stored.tells_mine, stored.tells_digest) == (False, True)
    assert page.faults == page.outside == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 390)])
def test_axe_finds_nothing(page: Any, shop: Client, people: Door, theme: str, width: int) -> None:  # noqa: F811
    filled(shop)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    sign_in(page, "mona", shop, "manager")
    for path in (form_of(shop), "/admin/e-mails/", "/admin/inbox/"):
        page.goto(path)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    row(page, "Maria").click()
    expect(page.locator(".ib-title h2")).to_have_text("Maria Fernández")
    assert violations(page) == []
    assert page.faults == []


def filled(shop: Client) -> None:
    """Hours, holidays and promises, of which one is late."""
    Client.objects.filter(pk=shop.pk).update(answer_within=timedelta(minutes=15), time_zone="Europe/Madrid")
    week = [[[540, 840], [960, 1200]]] * 5 + [[[600, 840]], []]
    holidays = [
        {"on": "2026-12-24", "name": "Christmas Eve", "hours": [[540, 780]]},
        {"on": "2026-12-25", "name": "Christmas", "hours": []},
    ]
    promise(shop, week=week, holidays=holidays, resolve_within=timedelta(days=2), counts_business_time=False)
    for minutes, name in ((3, "Ann Lee"), (20, "Maria Fernández")):
        waiting = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(contact__name=name).update(needs_staff_since=waiting)
    maria = Conversation.objects.get(contact__name="Maria Fernández")
    pending_handovers.note(maria, Actor("system"), "She asked for a person.", timezone.now() + timedelta(hours=12))
