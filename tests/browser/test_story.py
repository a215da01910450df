"""One conversation from its first message to the report, in the browsers of a customer and of two colleagues."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from conversations.models import Client, Conversation, Team
from conversations.services.core.ledger import Actor
from conversations.services.desk import states
from conversations.services.figures import keeping
from conversations.services.transitions import takeover
from tests.browser.test_inbox import SOON_MS, row
from tests.browser.test_simulator import ANSWER, arrived, convo, open_simulator, stayed_at_home, write  # noqa: F401
from tests.browser.test_transcript import sign_in
from tests.media_files import picture

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

DROP = """content => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], "parcel.png", { type: "image/png" }));
    const where = document.querySelector("#ib-reply");
    for (const kind of ["dragover", "drop"])
        where.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files }));
}"""


@pytest.fixture
def at_work(browser: Any, live_server: Any, convo: Client) -> Iterator[Callable[[str], Page]]:  # noqa: F811
    """Signs an agent in, in a browser of their own, and opens their inbox."""
    contexts = []

    def begin(name: str) -> Page:
        contexts.append(browser.new_context(base_url=live_server.url, viewport={"width": 1440, "height": 860}))
        opened: Page = contexts[-1].new_page()
        sign_in(opened, name, convo, "agent")
        opened.goto("/admin/inbox/")
        opened.wait_for_function("window.convoLive.isConnected")
        return opened

    yield begin
    for context in contexts:
        context.close()


def test_from_the_first_message_to_the_report(page: Any, at_work: Callable[[str], Page], convo: Client) -> None:  # noqa: F811
    agent, colleague = at_work("agnes"), at_work("max")
    faults: list[str] = []
    for each in (agent, colleague):
        each.on("pageerror", lambda error: faults.append(str(error)))
    agent.get_by_role("button", name="Sound and notifications").click()
    agent.get_by_label("Play a sound").check()
    agent.get_by_role("button", name="Close").click()
    rang = agent.evaluate("window.convoLive.rang")

    # A customer writes on WhatsApp: the open inbox has it, without being loaded again.
    open_simulator(page, "WhatsApp")
    page.locator(".sim-people summary").click()
    page.get_by_role("link", name="María Quispe").click()
    agent.evaluate("window.isTheSamePage = true")
    write(page, "Where is my order?")
    expect(row(agent, "María Quispe")).to_contain_text("Where is my order?", timeout=SOON_MS)
    expect(arrived(page)).to_contain_text(ANSWER)

    # She is handed over to the staff, in a team: it is counted in the title and in the menu, and her next words ring.
    conversation = Conversation.objects.get()
    sales = Team.objects.create(client=convo, name="Sales")
    takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now())
    by = {"actor": Actor("staff", "mona"), "now": timezone.now(), "client": convo}
    states.assign(conversation.pk, 0, team_id=sales.pk, **by)
    write(page, "I want to talk to a human")
    expect(row(agent, "María Quispe")).to_contain_text("I want to talk to a human", timeout=SOON_MS)
    expect(agent).to_have_title("(1) Inbox | Convo", timeout=SOON_MS)
    agent.wait_for_function(f"window.convoLive.rang > {rang}", timeout=SOON_MS)
    assert agent.evaluate("window.isTheSamePage") is True

    # She is found by her name, without its accent, and by four digits of her number.
    agent.keyboard.press("/")
    agent.keyboard.type("maria")
    expect(agent.locator(".ib-group").first).to_have_text("People")
    expect(row(agent, "María Quispe").first).to_be_visible()
    agent.keyboard.press("Control+k")
    agent.keyboard.type("0107")
    expect(agent.locator(".ib-link")).to_have_count(1)
    agent.keyboard.press("Enter")
    expect(row(agent, "María Quispe")).to_be_focused()
    agent.keyboard.press("Enter")

    # Replying takes over, and the reply is on her phone.
    expect(agent.get_by_label("Reply", exact=True)).to_be_focused()
    agent.keyboard.type("I am looking for it.")
    agent.keyboard.press("Enter")
    expect(agent.locator(".ib-title")).to_contain_text("You have it")
    expect(arrived(page).last).to_have_text("I am looking for it.")

    # A note that mentions a colleague reaches them, and not her.
    agent.keyboard.press("Escape")
    agent.keyboard.press("n")
    agent.keyboard.type("Did you send it, @m")
    expect(agent.locator(".ib-offers li").first).to_have_text("@max")
    agent.keyboard.press("Enter")
    agent.keyboard.type("?")
    agent.keyboard.press("Enter")
    expect(colleague.locator("[data-count=mentions]")).to_have_text("1", timeout=SOON_MS)
    expect(colleague).to_have_title("(1) Inbox | Convo", timeout=SOON_MS)

    # A picture that is dropped into the composer is sent.
    agent.keyboard.press("Escape")
    agent.keyboard.press("r")
    expect(agent.get_by_label("Reply", exact=True)).to_be_focused()
    agent.evaluate(DROP, base64.b64encode(picture(320, 240, form="PNG")).decode())
    expect(agent.locator(".ib-composer output")).to_have_text("parcel.png")
    agent.keyboard.press("Enter")
    on_the_phone = page.get_by_alt_text("Picture that arrived")
    expect(on_the_phone).to_have_js_property("naturalWidth", 320)
    expect(arrived(page).filter(has_text="Did you send it")).to_have_count(0)

    # It is closed by keyboard alone.
    agent.keyboard.press("Escape")
    agent.keyboard.press("c")
    agent.keyboard.type("Settled")
    agent.keyboard.press("Enter")
    expect(agent.get_by_text("accepts no more messages").first).to_be_visible()
    assert agent.evaluate("window.isTheSamePage") is True

    # Once its quarter of an hour is over, the report counts it.
    keeping.keep(timezone.now() + timedelta(minutes=16))
    agent.get_by_role("link", name="Reports").click()
    for title, words in (("Opened", "1"), ("Ended", "1"), ("Hand-overs", "1"), ("Messages in", "2"), ("Late", "0")):
        expect(agent.locator(f".rp-cards div:has(dt:text-is('{title}')) strong")).to_have_text(words)
    expect(agent.locator("[data-split=team] tbody tr")).to_contain_text("Sales")
    expect(agent.locator("[data-split=colleague]")).to_contain_text("agnes")
    assert faults == []
    stayed_at_home(page)
