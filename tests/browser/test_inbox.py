"""Staff at work in the inbox, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page, expect

from conversations.models import CannedReply, Client, Conversation, Draft
from conversations.services.core.ledger import Actor
from conversations.services.desk import notes, states
from conversations.services.transitions import takeover
from tests.browser.test_transcript import sign_in
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.staff import staff

SOON_SECONDS = 2.0
SOON_MS = 15_000  # the same, and patience for a machine that does other things as well

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def people(shop: Client, key: str) -> Door:
    """Three people who wrote; Maria last."""
    door = Door(shop, key)
    for name, channel in (("Ann Lee", "sms"), ("José Núñez", "messenger"), ("Maria Fernández", "whatsapp")):
        door.says(f"Hello from {name}", channel=channel, user_id=name.split()[0].lower(), name=name)
    reply_to_all()
    send_all()
    return door


def quiet(page: Any) -> None:
    """Assert that no script failed, and that nothing was loaded from outside."""
    assert page.outside == []
    assert page.faults == []


def row(page: Page, name: str) -> Any:
    return page.locator(".ib-link", has_text=name)


def test_a_click_while_the_list_is_read_anew_opens_the_conversation(page: Page, shop: Client, people: Door) -> None:
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Maria").hover()
    with page.expect_response("**/inbox/list/**") as read:
        page.mouse.down()
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    read.value.finished()
    page.evaluate("() => new Promise((go) => setTimeout(go, 100))")  # the list would be shown
    page.mouse.up()
    expect(page.locator(".ib-title h2")).to_contain_text("Maria")
    quiet(page)


def test_by_keyboard_alone_a_conversation_is_chosen_answered_and_closed(page: Any, shop: Client, people: Door) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    expect(row(page, "Maria")).to_contain_text("Hello from Maria")
    for key in ("j", "j", "j", "k"):
        page.keyboard.press(key)
    expect(row(page, "José")).to_be_focused()
    page.keyboard.press("Enter")
    composer = page.get_by_label("Reply", exact=True)
    expect(composer).to_be_focused()
    expect(page.locator(".ib-title h2")).to_have_text("José Núñez")
    page.keyboard.type("Line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("Line one\nline two")
    expect(page.locator(".ib-title")).to_contain_text("You have it")
    expect(row(page, "José")).to_contain_text("You")
    expect(composer).to_be_focused()
    assert Conversation.objects.get(contact__name="José Núñez").taken_over_name == "agnes"

    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.keyboard.type("Settled")
    page.keyboard.press("Enter")
    expect(page.get_by_text("accepts no more messages")).to_be_visible()
    expect(row(page, "José")).to_have_count(0)
    page.get_by_role("link", name="Ended").click()
    expect(row(page, "José")).to_be_visible()
    quiet(page)


def test_t_takes_over_question_mark_shows_the_keys_and_r_replies(page: Any, shop: Client, people: Door) -> None:
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Ann").click()
    expect(page.get_by_label("Reply", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    expect(page.locator(".ib-title")).to_contain_text("You have it")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.get_by_label("Reply", exact=True)).to_be_focused()
    page.get_by_role("button", name="Hand back").click()
    expect(page.locator(".ib-title")).to_contain_text("the assistant has it")
    quiet(page)


def test_the_list_changes_while_it_is_open_and_stays_put_while_one_reads_further_down(
    page: Any, shop: Client, people: Door
) -> None:
    page.set_viewport_size({"width": 1280, "height": 500})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    people.says("Still there?", user_id="ann")
    expect(page.locator(".ib-link").first).to_contain_text("Still there?", timeout=15_000)
    for number in range(12):
        people.says("Hi", user_id=f"more-{number}", name=f"Customer {number}")
    expect(row(page, "Customer 11")).to_be_visible(timeout=15_000)
    page.locator(".ib-rows").evaluate("box => { box.scrollTop = 300; }")
    people.says("Me too", user_id="new", name="Newcomer")
    expect(page.get_by_role("button", name="1 new")).to_be_visible(timeout=15_000)
    expect(row(page, "Newcomer")).to_have_count(0)
    page.get_by_role("button", name="1 new").click()
    expect(row(page, "Newcomer")).to_be_visible()
    quiet(page)


def test_what_waits_shows_its_clock_and_who_else_has_one(page: Any, shop: Client, people: Door) -> None:
    for name, actor in (("Ann Lee", Actor("system")), ("Maria Fernández", Actor("staff", "max"))):
        takeover.take_over(Conversation.objects.get(contact__name=name).pk, actor=actor, now=timezone.now())
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    expect(row(page, "Ann")).to_contain_text("waits")
    expect(row(page, "Maria")).to_contain_text("max")
    expect(page.locator("[data-count=unassigned]")).to_have_text("1")
    page.get_by_role("link", name="Unassigned").click()
    expect(page.locator(".ib-link")).to_have_count(1)
    row(page, "Ann").click()
    page.get_by_role("button", name="Take over").click()
    expect(page.locator(".ib-title")).to_contain_text("You have it")
    expect(page.get_by_text("Nobody waits.")).to_be_visible()
    quiet(page)


def test_on_a_phone_the_list_and_the_conversation_take_turns(page: Any, shop: Client, people: Door) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Ann").wait_for()
    # In one step: a row is replaced whenever the list is read again.
    tallest = page.evaluate("Math.max(...Array.from(document.querySelectorAll('.ib-row'), row => row.offsetHeight))")
    assert 0 < tallest < 110
    row(page, "Ann").click()
    expect(page.locator(".ib-list")).to_be_hidden()
    page.get_by_role("button", name="Show the person").click()
    expect(page.get_by_role("heading", name="Goal and summary")).to_be_visible()
    page.get_by_role("button", name="Close the person").click()
    page.get_by_role("link", name="Back to the list").click()
    expect(page.locator(".ib-list")).to_be_visible()
    page.go_back()
    expect(page.locator(".ib-title h2")).to_have_text("Ann Lee")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    quiet(page)


def test_a_half_written_reply_is_kept_and_a_canned_one_is_chosen_with_the_keyboard(
    page: Any, shop: Client, people: Door
) -> None:
    CannedReply.objects.create(client=shop, shortcut="where", text="Dear {first_name}, it is on its way.")
    CannedReply.objects.create(client=shop, shortcut="bye", text="Goodbye.")
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Ann").click()
    reply = page.get_by_label("Reply", exact=True)
    expect(reply).to_be_focused()
    page.keyboard.type("Half a sent")
    row(page, "José").click()
    expect(page.locator(".ib-title h2")).to_have_text("José Núñez")
    expect(reply).to_have_value("")
    row(page, "Ann").click()
    expect(page.locator(".ib-title h2")).to_have_text("Ann Lee")
    expect(reply).to_have_value("Half a sent")
    reply.fill("")
    page.keyboard.type("/whe")
    expect(page.locator(".ib-offers li")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(reply).to_have_value("Dear Ann, it is on its way.")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("Dear Ann, it is on its way.")
    expect(reply).to_have_value("")
    page.reload()
    expect(page.get_by_label("Reply", exact=True)).to_have_value("")
    quiet(page)


SLOW_DRAFTS = """
const fetchNow = window.fetch;
window.fetch = async (url, ...more) => {
  if (String(url).endsWith("/draft/")) await new Promise((resolve) => setTimeout(resolve, 1500));
  return fetchNow(url, ...more);
};
"""


def test_a_draft_that_is_slow_stays_behind_neither_the_reply_nor_the_page(
    page: Any, shop: Client, people: Door
) -> None:
    page.add_init_script(SLOW_DRAFTS)
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Ann").click()
    reply = page.get_by_label("Reply", exact=True)
    expect(reply).to_be_focused()
    with page.expect_response(lambda answer: answer.url.endswith("/draft/")) as saved:
        page.keyboard.type("It is on its way.")
        page.wait_for_timeout(700)  # the pause after which a draft is posted
        page.keyboard.press("Enter")
        expect(page.locator(".cv-ours .cv-text").last).to_have_text("It is on its way.")
    assert saved.value.ok
    page.reload()
    expect(page.get_by_label("Reply", exact=True)).to_have_value("")
    page.get_by_label("Reply", exact=True).fill("Half a sent")
    row(page, "José").click()
    expect(page.locator(".ib-title h2")).to_have_text("José Núñez")
    row(page, "Ann").click()
    expect(page.locator(".ib-title h2")).to_have_text("Ann Lee")
    expect(reply).to_have_value("Half a sent")
    quiet(page)


def test_a_note_that_mentions_a_colleague_reaches_them(
    page: Any, browser: Any, live_server: Any, shop: Client, people: Door
) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    staff("max", shop="agent")
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Maria").click()
    expect(page.get_by_label("Reply", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.keyboard.type("Is she right, @m")
    expect(page.locator(".ib-offers li")).to_have_text("@max")
    page.keyboard.press("Enter")
    page.keyboard.type("?")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-list .cv-private")).to_contain_text("Is she right, @max ?")
    page.get_by_label("Assigned to").select_option("max")
    page.get_by_label("Priority").select_option("Urgent")
    page.get_by_label("Add a label").fill("VIP")
    page.keyboard.press("Enter")
    expect(row(page, "Maria")).to_contain_text("VIP")
    expect(row(page, "Maria")).to_contain_text("Urgent")

    context = browser.new_context(base_url=live_server.url)
    other = context.new_page()
    other.goto("/admin/")
    other.get_by_label("Username").fill("max")
    other.get_by_label("Password").fill("a-long-password")
    other.get_by_role("button", name="Log in").click()
    other.wait_for_url("**/admin/")
    other.goto("/admin/inbox/?tab=mentions")
    expect(other.locator("[data-count=mentions]")).to_have_text("1")
    row(other, "Maria").click()
    expect(other.locator(".cv-list .cv-private")).to_contain_text("Is she right")
    expect(other.locator("[data-count=mentions]")).to_be_hidden()
    other.get_by_role("link", name="Mine").click()
    expect(row(other, "Maria")).to_be_visible()
    context.close()
    quiet(page)


def test_a_snoozed_conversation_leaves_the_list(page: Any, shop: Client, people: Door) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    row(page, "Maria").click()
    page.get_by_label("Snooze").select_option("For four hours")
    expect(row(page, "Maria")).to_have_count(0)
    page.get_by_role("link", name="Snoozed").click()
    expect(row(page, "Maria")).to_contain_text("until")
    page.get_by_role("button", name="End the snooze").click()
    expect(page.get_by_text("Nothing is snoozed.")).to_be_visible()
    quiet(page)


def test_somebody_is_found_by_name_by_four_digits_and_by_words_said(page: Any, shop: Client, people: Door) -> None:
    people.says("The parcel is lost", user_id="zoe", name="Zoé", phone="+51987654321")
    sign_in(page, "agnes", shop, "agent")
    page.goto("/admin/inbox/")
    page.keyboard.press("/")
    page.keyboard.type("maria")
    expect(page.locator(".ib-group").first).to_have_text("People")
    expect(row(page, "Maria").first).to_be_visible()
    expect(row(page, "Ann")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.keyboard.type("7654")
    expect(page.locator(".ib-link")).to_have_count(1)
    expect(row(page, "Zoé")).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("parcels lost")
    expect(page.get_by_text("Nothing is found.")).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("PARCEL")
    expect(page.locator(".ib-snippet mark")).to_have_text("parcel")
    page.keyboard.press("Enter")
    expect(row(page, "Zoé")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".cv-found")).to_contain_text("The parcel is lost")
    page.keyboard.press("Escape")
    page.get_by_label("Find people and words").fill("")
    expect(row(page, "José")).to_be_visible()
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    expect(page.locator("#search-input-command")).to_be_focused()
    page.keyboard.type("zoe")
    expect(page.locator("#command-results-list")).to_contain_text("Zoé")
    quiet(page)


@pytest.fixture
def colleague(browser: Any, live_server: Any, shop: Client) -> Iterator[Page]:
    """The browser of max, another agent, who is signed in."""
    context = browser.new_context(base_url=live_server.url, viewport={"width": 1440, "height": 860})
    opened = context.new_page()
    sign_in(opened, "max", shop, "agent")
    yield opened
    context.close()


def test_what_a_customer_writes_is_there_within_two_seconds_with_count_and_sound(
    page: Any, shop: Client, people: Door
) -> None:
    user = sign_in(page, "agnes", shop, "agent")
    mine = Conversation.objects.get(contact__name="Maria Fernández")
    takeover.take_over(mine.pk, actor=Actor("staff", "agnes", user.pk), now=timezone.now())
    page.goto("/admin/inbox/")
    page.get_by_role("button", name="Sound and notifications").click()
    page.get_by_label("Play a sound").check()
    page.get_by_role("button", name="Close").click()
    rang = page.evaluate("window.convoLive.rang")
    row(page, "Maria").click()
    expect(page.locator(".cv-scroll")).to_be_visible()
    page.wait_for_function("window.convoLive.isConnected")

    people.says("In the open one", channel="whatsapp", user_id="maria")
    expect(page.locator(".cv-theirs .cv-text").last).to_have_text("In the open one", timeout=SOON_MS)
    assert page.evaluate("window.convoLive.rang") == rang, "no sound for what is on the screen"
    page.get_by_label("Reply", exact=True).fill("Hello?")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours .cv-delivery").last).to_have_text("waiting to be sent")
    send_all()
    expect(page.locator(".cv-ours .cv-delivery").last).to_have_text("delivered", timeout=SOON_MS)

    people.says("I want a human", user_id="ann")
    waits = Conversation.objects.get(contact__name="Ann Lee")
    takeover.take_over(waits.pk, actor=Actor("system"), now=timezone.now())
    expect(row(page, "Ann")).to_contain_text("I want a human", timeout=SOON_MS)
    expect(page).to_have_title("(1) Inbox | Convo", timeout=SOON_MS)
    expect(page.locator("#nav-sidebar .convo-count, #nav-sidebar-apps .convo-count").first).to_have_text("1")
    people.says("Please!", user_id="ann")
    page.wait_for_function(f"window.convoLive.rang > {rang}", timeout=SOON_MS)
    took = []
    for words in ("One", "Two", "Three"):
        begun = monotonic()
        people.says(words, user_id="ann")
        expect(row(page, "Ann")).to_contain_text(words, timeout=SOON_MS)
        took.append(monotonic() - begun)
    assert min(took) <= SOON_SECONDS, took  # a pause of the machine may hit one of them
    quiet(page)


def test_two_colleagues_in_one_conversation_see_each_other_and_keep_their_drafts(
    page: Any, colleague: Page, shop: Client, people: Door
) -> None:
    page.set_viewport_size({"width": 1440, "height": 860})
    sign_in(page, "agnes", shop, "agent")
    for each in (page, colleague):
        each.goto("/admin/inbox/")
        each.wait_for_function("window.convoLive.isConnected")
        row(each, "Maria").click()
        expect(each.get_by_label("Reply", exact=True)).to_be_focused()
    expect(page.get_by_text("max is looking at this as well")).to_be_visible(timeout=SOON_MS)
    expect(colleague.get_by_text("agnes is looking at this as well")).to_be_visible(timeout=SOON_MS)
    colleague.keyboard.type("Dear Maria")
    expect(page.get_by_text("max is typing")).to_be_visible(timeout=SOON_MS)
    page.keyboard.type("Hello Maria")
    for _ in range(50):
        if Draft.objects.count() == 2:
            break
        page.wait_for_timeout(100)
    for each, text in ((page, "Hello Maria"), (colleague, "Dear Maria")):
        each.reload()
        expect(each.get_by_label("Reply", exact=True)).to_have_value(text)
    colleague.goto("/admin/")
    expect(page.get_by_text("max is looking")).to_be_hidden(timeout=4_000)
    quiet(page)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)])
def test_axe_finds_nothing_in_the_inbox(page: Any, shop: Client, people: Door, theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 860})
    page.emulate_media(color_scheme=theme)
    Client.objects.filter(pk=shop.pk).update(answer_within=timedelta(minutes=15))
    for minutes, name in ((1, "Ann Lee"), (30, "Maria Fernández")):
        waiting = timezone.now() - timedelta(minutes=minutes)
        Conversation.objects.filter(contact__name=name).update(needs_staff_since=waiting)
    by: dict[str, Any] = {"actor": Actor("staff", "max"), "now": timezone.now(), "client": shop}
    maria = Conversation.objects.get(contact__name="Maria Fernández")
    states.add_label(maria.pk, "VIP", **by)
    states.set_priority(maria.pk, 1, **by)
    notes.add_note(maria.pk, "She called.", **by)
    sign_in(page, "agnes", shop, "agent")
    for tab in ("all", "ended"):
        page.goto(f"/admin/inbox/?tab={tab}")
        assert violations(page) == []
    page.goto("/admin/inbox/")
    row(page, "Maria").click()
    expect(page.locator(".ib-title h2")).to_have_text("Maria Fernández")
    assert violations(page) == []
    quiet(page)


def violations(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [(each["id"], [node["html"][:160] for node in each["nodes"]]) for each in found]
