"""A customer played on every channel, in a real browser, at a real server with a dispatcher."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from channels_out.choices import read_choices
from conversations.models import Activity, Chunk, Client, Conversation, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies.dispatcher import Dispatcher
from conversations.services.simulator import accounts
from conversations.services.staff_actions import send
from tests.conversations.staff import PASSWORD, staff
from tests.media_files import document, picture

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

ANSWER = "This is an automatic answer"


@pytest.fixture
def convo(shop: Client, live_server: Any, settings: Any) -> Iterator[Client]:
    """The shop in business at the running server: simulated accounts, and a dispatcher that answers and sends."""
    settings.INTERNAL_BASE_URL = settings.PUBLIC_BASE_URL = live_server.url
    settings.CSRF_TRUSTED_ORIGINS = [live_server.url]
    settings.RETRY_BASE_SECONDS = 0.1
    settings.DISPATCH_REPLIES = settings.DISPATCH_SENDS = 4
    accounts.set_up(shop)
    dispatcher = Dispatcher(patience=10)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    yield shop
    dispatcher.stop()
    thread.join()


def open_simulator(page: Page, name: str) -> None:
    """Sign in as a manager and choose a channel."""
    staff("mona", shop="manager")
    page.goto("/admin/conversations/channelaccount/simulator/")
    page.get_by_label("Username").fill("mona")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Channels").get_by_role("link", name=name, exact=True).click()
    expect(page.locator(".sim-tabs [aria-current]")).to_have_text(name)


def write(page: Page, text: str, delivery: str = "Deliver once") -> None:
    page.get_by_label("Delivery").select_option(label=delivery)
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def stayed_at_home(page: Any) -> None:
    assert page.outside == []
    assert page.faults == []
    assert page.locator("script:not([src]):not([type='application/json'])").all_text_contents() == []


def arrived(page: Page) -> Any:
    return page.locator(".sim-in .sim-bubble")


CHANNELS = {
    # tab: the furthest that the provider reports
    "WhatsApp": "read",
    "WhatsApp by 360dialog": "read",
    "Messenger": "read",
    "SMS by Plivo": "delivered",
    "Orb": "read",
}


@pytest.mark.parametrize("tab", CHANNELS)
def test_a_customer_writes_gets_the_answer_and_the_receipt_arrives(page, convo, tab):
    open_simulator(page, tab)
    write(page, "Where is my <b>order</b>?", "Deliver twice")
    expect(arrived(page)).to_contain_text(ANSWER)
    expect(page.locator("[data-kind=message][data-status='200']")).to_have_count(2)
    expect(page.locator(".sim-out")).to_have_count(1)
    expect(page.locator(".sim-conversation .cv-theirs")).to_have_count(1)
    expect(page.locator(".sim-out .sim-mark")).to_contain_text("taken")
    expect(page.locator(".sim-conversation .cv-theirs .cv-text")).to_have_text("Where is my <b>order</b>?")
    furthest = CHANNELS[tab]
    expect(page.locator(f".sim-conversation .cv-delivery[data-status={furthest}]")).to_be_visible()
    assert Message.objects.get().status == furthest
    webhook = page.locator("[data-kind=message]").first
    webhook.locator("summary").click()
    expect(webhook.locator(".sim-http").first).to_contain_text("POST /webhooks/")
    sent = page.locator("[data-kind=send]").first
    sent.locator("summary").click()
    expect(sent.locator(".sim-http").first).to_contain_text(ANSWER)
    shown = page.content()
    account = Message.objects.get().channel_account
    assert [name for name, secret in account.credentials.items() if secret in shown] == []
    stayed_at_home(page)


def test_a_caller_is_greeted_speaks_and_hears_the_answer_on_the_line(page, convo):
    open_simulator(page, "Voice by Plivo")
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.get_by_role("button", name="Hang up")).to_be_visible()
    expect(arrived(page)).to_have_count(1)  # the greeting
    page.get_by_label("Delivery").select_option(label="Deliver twice")
    page.get_by_label("Message", exact=True).fill("Where is my parcel?")
    page.get_by_role("button", name="Say", exact=True).click()
    expect(arrived(page).filter(has_text=ANSWER)).to_have_count(1)
    expect(page.locator("[data-kind=message][data-status='200']")).to_have_count(2)
    expect(page.locator(".sim-conversation .cv-theirs .cv-text")).to_have_text("Where is my parcel?")
    assert Chunk.objects.get(role="voice").content == "Where is my parcel?"
    turn = page.locator("[data-kind=message]").last
    turn.locator("summary").click()
    expect(turn.locator(".sim-http").first).to_contain_text("X-Plivo-Signature-V3")
    expect(turn.locator(".sim-answer")).to_contain_text("<Response>")

    heard = arrived(page).count()
    page.get_by_role("button", name="Say nothing").click()
    expect(page.locator("[data-kind=continuation]").first).to_have_attribute("data-status", "200")
    expect(arrived(page)).to_have_count(heard + 1)  # asked again
    page.get_by_role("button", name="Hang up").click()
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()
    expect(page.locator(".sim-conversation .cv-badge").first).to_have_text("closed")
    stayed_at_home(page)


def test_the_sandbox_is_played_by_convo_s_own_json(page, convo):
    open_simulator(page, "Sandbox (WhatsApp)")
    write(page, "Is anybody there?")
    expect(arrived(page)).to_contain_text(ANSWER)
    expect(page.locator(".sim-conversation .cv-delivery[data-status=delivered]")).to_be_visible()
    page.locator("[data-kind=message] summary").click()
    expect(page.locator("[data-kind=message] .sim-http").first).to_contain_text("X-Service-API-Key: ••••")
    stayed_at_home(page)


def test_somebody_who_hides_the_number_is_answered(page, convo):
    open_simulator(page, "WhatsApp")
    page.locator(".sim-people summary").click()
    page.get_by_role("link", name="Finn").click()
    write(page, "Guess who")
    expect(arrived(page)).to_contain_text(ANSWER)
    assert Message.objects.get().to_kind == "bsuid"


def test_doubled_late_held_and_badly_signed_deliveries_show_as_they_are(page, convo):
    open_simulator(page, "WhatsApp")
    write(page, "Twice", "Deliver twice")
    expect(page.locator("[data-kind=message]")).to_have_count(2)
    expect(page.locator("[data-kind=message][data-status='200']")).to_have_count(2)
    expect(page.locator(".sim-conversation .cv-theirs")).to_have_count(1)
    expect(page.locator(".sim-out")).to_have_count(1)

    write(page, "Forged", "Sign with a wrong secret")
    expect(page.locator(".sim-out").last.locator(".cv-grave")).to_have_text("not taken (403)")
    forged = page.locator("[data-kind=message][data-status='403']")
    forged.locator("summary").click()
    expect(forged.locator(".sim-answer")).to_contain_text("invalid_signature")
    expect(page.locator(".sim-conversation .cv-theirs")).to_have_count(1)

    write(page, "First written", "Hold back (deliver later, in any order)")
    expect(page.locator(".sim-out").last).to_contain_text("held back")
    write(page, "Second written", "Deliver two hours late")
    expect(page.locator(".sim-conversation .cv-theirs .cv-text").last).to_have_text("Second written")
    page.get_by_role("button", name="Deliver now").click()
    expect(page.locator(".sim-conversation .cv-theirs .cv-text").last).to_have_text("First written")
    said = Chunk.objects.filter(role="user").order_by("position").values_list("content", flat=True)
    assert list(said) == ["Twice", "Second written", "First written"]
    stayed_at_home(page)


def test_sends_that_go_wrong_are_tried_again(page, convo):
    open_simulator(page, "WhatsApp")
    page.get_by_text("Make the provider fail").click()
    for button in ("429, try again later", "500"):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator(".sim-faults summary")).to_contain_text(button)
    write(page, "Hello")
    expect(page.locator(".sim-bad[data-kind=send][data-status='429']")).to_be_visible()
    expect(page.locator(".sim-bad[data-kind=send][data-status='500']")).to_be_visible()
    expect(arrived(page)).to_have_count(1)
    expect(page.locator(".sim-conversation .cv-delivery[data-status=read]")).to_be_visible()
    assert Message.objects.get().attempts == 2, "being asked to wait counts as no try"
    stayed_at_home(page)


def test_a_send_without_an_answer_is_settled_by_its_receipt(page, convo, settings):
    settings.PROVIDER_TIMEOUT_SECONDS = 1.5
    open_simulator(page, "WhatsApp")
    page.locator("#sim-auto").uncheck()
    page.get_by_text("Make the provider fail").click()
    page.get_by_role("button", name="accept, but do not answer").click()
    expect(page.locator(".sim-faults summary")).to_contain_text("Next send")
    write(page, "Hello")
    expect(arrived(page)).to_have_count(1)
    expect(page.locator(".sim-conversation .cv-delivery[data-status=unknown]")).to_be_visible()
    page.locator(".sim-in").get_by_role("button", name="read").click()
    expect(page.locator(".sim-conversation .cv-delivery[data-status=read]")).to_be_visible()
    assert Message.objects.get().attempts == 1, "it was not sent again"
    stayed_at_home(page)


def test_messenger_echoes_what_it_took_and_the_echo_is_no_message(page, convo, settings):
    settings.PROVIDER_TIMEOUT_SECONDS = 1.5
    open_simulator(page, "Messenger")
    page.locator("#sim-auto").uncheck()
    page.get_by_text("Make the provider fail").click()
    page.get_by_role("button", name="accept, but do not answer").click()
    expect(page.locator(".sim-faults summary")).to_contain_text("Next send")
    write(page, "Hello")
    expect(arrived(page)).to_have_count(1)
    expect(page.locator(".sim-conversation .cv-delivery[data-status=sent]")).to_be_visible()
    echo = page.locator("[data-kind=receipt]")
    echo.locator("summary").click()
    expect(echo.locator(".sim-http").first).to_contain_text('"is_echo": true')
    expect(page.locator(".sim-conversation .cv-theirs")).to_have_count(1)
    expect(arrived(page)).to_have_count(1)
    assert Message.objects.get().attempts == 1, "it was not sent again"
    assert Chunk.objects.filter(role="user").count() == 1
    stayed_at_home(page)


@pytest.mark.parametrize("tab", ["WhatsApp", "Messenger"])
def test_reactions_edits_presses_and_a_colleague_s_words_are_played(page, convo, tab):
    open_simulator(page, tab)
    write(page, "Where is my order?")
    expect(arrived(page)).to_contain_text(ANSWER)
    page.get_by_role("button", name="React with a thumb up").first.click()
    expect(page.get_by_text("You reacted with 👍.")).to_be_visible()
    mine = page.locator(".sim-out").first
    mine.locator("summary").click()
    mine.get_by_label("New words").fill("Where is order 4711?")
    mine.get_by_role("button", name="Edit").click()
    expect(mine.locator(".sim-bubble")).to_have_text("Where is order 4711?")
    conversation = Conversation.objects.get()
    chosen = read_choices(["Small", "Large"])
    send.send(conversation.pk, "Which size?", choices=chosen, actor=SYSTEM, now=timezone.now())
    page.get_by_role("button", name="Large", exact=True).click()
    expect(page.locator(".sim-out .sim-bubble").last).to_have_text("Large")
    page.get_by_text("Answer as a colleague elsewhere").click()
    page.get_by_label("What the colleague writes").fill("I have sent it.")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(arrived(page).last).to_have_text("I have sent it.")
    activities = Activity.objects.filter(conversation=conversation).order_by("id")
    assert list(activities.values_list("kind", flat=True)) == ["reaction", "edit"]
    pressed = Chunk.objects.filter(conversation=conversation, role="user").last()
    assert (pressed.content, pressed.metadata["payload"]) == ("Large", "Large")
    assert Chunk.objects.filter(conversation=conversation, role="ai").last().content == "I have sent it."
    stayed_at_home(page)


@pytest.mark.parametrize("tab", ["WhatsApp", "Messenger"])
def test_a_picture_is_chosen_arrives_in_the_transcript_and_one_of_ours_on_the_phone(page, convo, tab):
    open_simulator(page, tab)
    page.get_by_label("Attach a file").set_input_files(
        {"name": "house.jpg", "mimeType": "image/jpeg", "buffer": picture(640, 480)}
    )
    expect(page.locator(".sim-attach output")).to_have_text("house.jpg")
    if tab == "WhatsApp":
        page.get_by_label("Message", exact=True).fill("Our <b>house</b>")
    page.get_by_role("button", name="Send", exact=True).click()
    mine = page.get_by_alt_text("Picture that you sent: house.jpg")
    expect(mine).to_be_visible()
    expect(page.locator(".sim-attach output")).to_have_text("")
    theirs = page.locator(".sim-conversation .cv-theirs .cv-picture img")
    expect(theirs).to_be_visible()
    for image in (mine, theirs):
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0
    if tab == "WhatsApp":
        expect(page.locator(".sim-out .sim-bubble")).to_contain_text("Our <b>house</b>")
        expect(page.locator(".sim-conversation .cv-theirs .cv-text")).to_contain_text("Our <b>house</b>")
    uploads = [("map.png", io.BytesIO(picture(320, 240, form="PNG"))), ("plan.pdf", io.BytesIO(document()))]
    send.send_uploads(Conversation.objects.get(), "", uploads, actor=SYSTEM, now=timezone.now())
    arrived_picture = page.get_by_alt_text("Picture that arrived")
    expect(arrived_picture).to_be_visible()
    expect(arrived_picture).to_have_js_property("complete", True)
    assert arrived_picture.evaluate("image => image.naturalWidth") == 320
    expect(page.locator(".sim-in a.sim-file")).to_be_visible()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.reload()
        expect(arrived_picture).to_be_in_viewport()
        for width in (390, 1500):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    stayed_at_home(page)


def test_a_file_that_the_phone_does_not_know_is_refused_in_words(page, convo):
    open_simulator(page, "WhatsApp")
    chosen = {"name": "run.exe", "mimeType": "application/octet-stream", "buffer": b"MZ"}
    page.get_by_label("Attach a file").set_input_files(chosen)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="The phone knows no such file")).to_be_visible()
    expect(page.locator(".sim-attach output")).to_have_text("run.exe")
    assert page.outside == []


def test_it_fits_phone_and_wide_light_and_dark(page, convo):
    open_simulator(page, "WhatsApp")
    shown = """element => {
        const paint = document.createElement("canvas").getContext("2d");
        paint.fillStyle = getComputedStyle(element).backgroundColor;
        paint.fillRect(0, 0, 1, 1);
        return paint.getImageData(0, 0, 1, 1).data[0];
    }"""
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.reload()
        assert (page.locator(".sim-phone").evaluate(shown) > 128) == (theme == "light")
        for width in (390, 1500):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    stayed_at_home(page)
