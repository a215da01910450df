"""Staff at work on a session, in a real browser."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import expect

from conversations.models import Chunk, Conversation, Membership
from conversations.services.staff_actions import seed_helpers
from tests.bounds import rounds
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.test_admin_transcript_bulk import many

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def sign_in(page, name="mona", shop=None, role="manager"):
    """Sign in as a new member of the shop's staff."""
    user = get_user_model().objects.create_user(name, password="a-long-password", is_staff=True)
    Membership.objects.create(user=user, client=shop, role=role)
    page.goto("/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill("a-long-password")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
    return user


def test_staff_offer_choices_below_a_reply(page, shop, key):
    Door(shop, key).says("When do you open?", phone="+51999999999")
    session = Conversation.objects.get()
    sign_in(page, shop=shop, role="agent")
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    expect(page.get_by_label("Choices, one in each line")).to_be_hidden()
    page.get_by_text("Offer choices").click()
    page.get_by_label("Choices, one in each line").fill("Lima\nCusco")
    page.get_by_role("textbox", name="Reply").fill("Which shop?")
    page.get_by_role("button", name="Send", exact=True).click()
    mine = page.locator(".cv-ours").last
    expect(mine.locator(".cv-choices li")).to_have_text(["Lima", "Cusco"])
    expect(page.get_by_label("Choices, one in each line")).to_be_hidden()


def test_staff_reply_and_see_it_delivered_without_loading_the_page_again(page, shop, key):
    door = Door(shop, key)
    door.says("Where is my order?", phone="+51999999999")
    reply_to_all()
    send_all()
    session = Conversation.objects.get()
    sign_in(page, shop=shop, role="agent")
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    expect(page.locator(".cv-theirs .cv-text")).to_have_text("Where is my order?")

    page.get_by_label("Reply").fill("It leaves <b>today</b>.")
    page.get_by_role("button", name="Send", exact=True).click()
    mine = page.locator(".cv-ours").last
    expect(mine.locator(".cv-text")).to_have_text("It leaves <b>today</b>.")
    expect(mine.locator(".cv-delivery")).to_have_text("waiting to be sent")
    send_all()
    expect(mine.locator(".cv-delivery")).to_have_text("delivered")

    door.says("Thank you!")
    expect(page.locator(".cv-theirs .cv-text").last).to_have_text("Thank you!")
    page.get_by_text("Close this conversation").click()
    page.get_by_label("Reason").fill("Parcel found")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("accepts no more messages")).to_be_visible()
    expect(page.locator(".cv-badge").first).to_have_text("closed")
    assert page.outside == []
    assert page.faults == []


GROWN_OR_WHOLE = """shown => document.querySelectorAll(".cv-entry").length > shown
    || !document.querySelector(".cv-older").checkVisibility()"""


def test_a_thousand_chunks_are_read_by_scrolling_up(page, shop):
    session = seed_helpers.create_conversation(shop.pk, "ann", "sms", goal="Talk")
    start = session.last_position
    Chunk.objects.bulk_create(
        Chunk(conversation=session, position=start + n, role="user" if n % 2 else "ai", content=f"message {n}")
        for n in range(1, 1001)
    )
    Conversation.objects.update(last_position=start + 1000)
    sign_in(page, shop=shop, role="viewer")
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    expect(page.locator(".cv-entry")).to_have_count(50)
    expect(page.get_by_text("message 1000", exact=True)).to_be_in_viewport()
    while page.locator(".cv-older").is_visible():
        shown = page.locator(".cv-entry").count()
        page.locator(".cv-scroll").evaluate("box => { box.scrollTop = 0; }")
        page.wait_for_function(GROWN_OR_WHOLE, arg=shown)
    expect(page.locator(".cv-entry")).to_have_count(start + 1000)
    positions = page.locator(".cv-entry").evaluate_all("all => all.map((one) => Number(one.dataset.position))")
    assert positions == list(range(1, start + 1001))
    assert page.faults == []


def test_a_manager_steers_corrects_and_redacts(page, shop, key):
    door = Door(shop, key)
    door.says("Where is my odrer?", phone="+51999999999")
    door.says("My password is tangerine4711")
    session = Conversation.objects.get()
    sign_in(page, shop=shop)
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")

    for name in ("Ask the number", "Look it up", "Call back"):
        page.get_by_label("New step").fill(name)
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator(".cv-step-text").last).to_have_text(name)
    page.get_by_role("button", name="Move up: Call back").click()
    expect(page.locator(".cv-step-text")).to_have_text(["Ask the number", "Call back", "Look it up"])
    page.locator(".cv-step").first.get_by_role("button", name="Complete").click()
    expect(page.locator(".cv-step").first).to_contain_text("complete")
    page.locator(".cv-step").last.get_by_text("Edit").click()
    page.get_by_label("Step", exact=True).last.fill("Look it up twice")
    page.locator(".cv-step").last.get_by_role("button", name="Save").click()
    expect(page.locator(".cv-step-text").last).to_have_text("Look it up twice")

    first, second = page.locator(".cv-theirs").first, page.locator(".cv-theirs").last
    first.hover()
    first.get_by_role("button", name="Correct").click()
    page.get_by_label("Corrected text").fill("Where is my order?")
    page.get_by_role("button", name="Save correction").click()
    expect(first.locator(".cv-text").first).to_have_text("Where is my order?")
    first.get_by_text("Corrected by mona").click()
    expect(first.get_by_text("Where is my odrer?")).to_be_visible()
    second.hover()
    second.get_by_role("button", name="Redact").click()
    page.get_by_label("Why").fill("Card number")
    page.get_by_role("button", name="Remove for good").click()
    expect(second.locator(".cv-text")).to_have_text("[redacted]")
    expect(page.get_by_text("tangerine4711")).to_have_count(0)

    page.get_by_text("Edit goal, topic and summary").click()
    page.get_by_label("Topic").fill("Parcel")
    page.wait_for_timeout(2500)  # what is being typed outlives a poll
    page.get_by_role("button", name="Save", exact=True).first.click()
    expect(page.locator(".cv-wordy")).to_contain_text("Parcel")
    page.locator("summary", has_text="Timeline").click()
    expect(page.locator("[data-section=timeline] .cv-ledger")).to_contain_text("chunk redacted by mona (staff)")
    assert page.faults == []


def test_five_hundred_sessions_are_found_counted_and_closed_with_progress(page, shop):
    many(shop, 500)
    sign_in(page, shop=shop)
    page.goto("/admin/conversations/conversation/")
    page.get_by_role("textbox", name="conversation id").fill("+51999000042")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text("user-042")
    page.goto("/admin/conversations/conversation/?status__exact=active")
    page.get_by_role("navigation", name="When conversations began").get_by_role("link", name="Close").click()
    expect(page.get_by_role("heading", name="Close: 500 conversations")).to_be_visible()
    page.get_by_label("Reason").fill("Shop closes")
    page.get_by_role("button", name="Close 500 conversations").click()
    seen = set()
    for _ in rounds("Closing", lambda: f"handled: {seen}", most=3_000):
        if page.get_by_text("Finished.").count():
            break
        seen.add(page.locator("[data-handled]").text_content())
        page.wait_for_timeout(20)
    assert len(seen) > 2, "progress was seen"
    expect(page.locator("[data-changed]")).to_have_text("500")
    assert Conversation.objects.filter(status="closed", end_reason="Shop closes").count() == 500
    assert page.outside == []
    assert page.faults == []
