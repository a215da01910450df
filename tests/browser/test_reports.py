"""The page of reports in a real browser, and a rating that the simulator's phone gives."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import expect

from conversations.models import (
    Assistant,
    Client,
    Conversation,
    Label,
    QuarterFigures,
    QuarterTimes,
    Rating,
    Survey,
    Team,
)
from conversations.services.core.ledger import SYSTEM
from conversations.services.figures import counting
from conversations.services.transitions import closing, rating_questions
from tests.browser.test_simulator import ANSWER, arrived, convo, open_simulator, stayed_at_home, write  # noqa: F401
from tests.browser.test_transcript import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SHOTS = os.environ.get("REPORT_SHOTS", "")  # a folder to keep pictures of the page in


def fill(client: Client) -> None:
    """Thirty days of figures, on two channels."""
    chance, now = random.Random(7), counting.quarter_of(timezone.now())
    label = Label.objects.create(client=client, name="A label that has a rather long name")
    team = Team.objects.create(client=client, name="Sales")
    assistant = Assistant.objects.get(client=client).pk
    rows: list[Any] = []
    times: list[Any] = []
    for number in range(30 * 12):
        of = {
            "client": client,
            "quarter": now - timedelta(hours=2 * number),
            "channel": chance.choice(["whatsapp", "sms"]),
            "assistant_id": assistant,
        }
        ended = chance.randint(1, 9)
        sums = {
            "opened": ended + chance.randint(0, 3),
            "ended": ended,
            "answered_alone": chance.randint(0, ended),
            "handed_over": chance.randint(0, 2),
            "late": number % 3,
            "messages_in": chance.randint(5, 60),
            "messages_out": chance.randint(5, 60),
            "asked": 4,
            "ratings": 3,
            "satisfied": chance.randint(1, 3),
            "rating_sum": chance.randint(9, 15),
            "tokens": chance.randint(100, 9_000),
            "cost": chance.random(),
        }
        rows.append(QuarterFigures(**of, **sums))
        rows.append(QuarterFigures(**of, **sums, label_id=label.pk))
        rows.append(QuarterFigures(**of, **sums, team_id=team.pk))
        for kind in QuarterTimes.Kind:
            bucket = chance.randint(3, 12) + (25 if kind == QuarterTimes.Kind.RESOLUTION else 0)
            times.append(QuarterTimes(**of, kind=kind, bucket=bucket, number=ended))
    QuarterFigures.objects.bulk_create(rows)
    QuarterTimes.objects.bulk_create(times)


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def drawn(page: Any, chart: str) -> bool:
    """Whether something is drawn on the chart's canvas."""
    canvas = page.locator(f"[aria-labelledby=chart-{chart}] canvas")
    return bool(
        canvas.evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v !== 0) && c.width > 100"
        )
    )


@pytest.mark.parametrize(
    ("theme", "width", "is_full"),
    [("light", 1440, True), ("dark", 1280, True), ("light", 390, True), ("dark", 390, True), ("dark", 1440, False)],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    page: Any, shop: Client, theme: str, width: int, is_full: bool
) -> None:
    if is_full:
        fill(shop)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/reports/")
    expect(page.get_by_role("heading", name="Conversations", exact=True)).to_be_visible()
    if is_full:
        assert drawn(page, "conversations")
        assert drawn(page, "first-response")
    shot(page, f"reports-{theme}-{width}-{'full' if is_full else 'empty'}")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.outside == []
    assert page.faults == []


def test_a_chart_has_its_table_and_its_file_and_a_link_narrows_the_report(page: Any, shop: Client) -> None:
    fill(shop)
    page.set_viewport_size({"width": 1440, "height": 900})
    sign_in(page, "agnes", shop, "agent")
    page.get_by_role("link", name="Reports").click()
    table = page.locator("[data-table=messages]")
    table.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(table.locator("tbody tr")).to_have_count(30)
    with page.expect_download() as download:
        page.get_by_role("link", name="Messages as CSV").click()
    assert download.value.suggested_filename.startswith("shop-messages-")
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "page")
    page.locator("[data-split=channel]").get_by_role("link", name="WhatsApp").click()
    expect(page.locator("select[name=channel]")).to_have_value("whatsapp")
    expect(page.locator("[data-split=channel] tbody tr")).to_have_count(1)
    page.locator("input[name=first]").fill("2026-01-02")
    page.locator("input[name=last]").fill("2026-01-01")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("must not be after the last")
    assert page.faults == []


def test_the_simulator_s_phone_rates_and_the_report_counts_it(page: Any, convo: Client) -> None:  # noqa: F811
    Survey.objects.create(client=convo, channel="whatsapp", text="How satisfied are you with us?")
    open_simulator(page, "WhatsApp")
    write(page, "Where is my order?")
    expect(arrived(page)).to_contain_text(ANSWER)
    conversation = Conversation.objects.get()
    closing.close(conversation.pk, ended_by="staff", actor=SYSTEM, now=timezone.now())
    assert rating_questions.ask_due(timezone.now()) == 1
    expect(arrived(page).last).to_contain_text("How satisfied are you with us?")
    page.get_by_role("button", name="4 ★★★★", exact=True).click()
    expect(page.locator(".sim-out").last).to_contain_text("4 ★★★★")
    expect(page.locator(".sim-conversation .cv-theirs .cv-text").last).to_have_text("4 ★★★★")
    shot(page, "rating-simulator")
    assert (Rating.objects.get().score, Conversation.objects.count()) == (4, 1)
    expect(arrived(page)).to_have_count(2)  # no assistant answers a rating
    page.goto(f"/admin/inbox/{conversation.pk}/")
    expect(page.locator("[data-rating]")).to_have_text("4 of 5")
    since = counting.quarter_of(timezone.now()) - timedelta(minutes=30)
    counting.count(since, since + timedelta(hours=1))
    page.goto("/admin/reports/")
    expect(page.locator(".rp-cards div", has_text="Satisfied")).to_contain_text("100 %")
    stayed_at_home(page)
