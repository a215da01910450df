"""Staff edit a person, send what an assistant proposes, and look at what they send, in a real browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from conversations.models import Assistant, Chunk, Client, Contact, Conversation, Proposal
from conversations.services.contacts import details
from conversations.services.core.ledger import Actor
from conversations.services.desk import notes
from conversations.services.staff_actions import edit_contact
from tests import factories
from tests.browser.test_inbox import SOON_MS, people, quiet, row, violations  # noqa: F401 - a fixture
from tests.browser.test_transcript import sign_in
from tests.conftest import Door, reply_to_all
from tests.conversations.test_proposals import commit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SHOTS = os.environ.get("SHOTS")  # a folder for pictures of what is tested


def picture(page: Page, name: str) -> None:
    """Keep a picture of the window, where a folder for pictures is named."""
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def opened(page: Any, shop: Client, name: str, role: str = "agent") -> None:
    """Open the conversation of somebody in the inbox."""
    page.set_viewport_size({"width": 1440, "height": 900})
    sign_in(page, "agnes", shop, role)
    page.goto("/admin/inbox/")
    row(page, name).click()
    expect(page.locator(".ib-title h2")).to_contain_text(name)


def test_an_agent_edits_the_person_beside_the_conversation(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    opened(page, shop, "Maria")
    page.get_by_text("Edit the person").click()
    page.get_by_label("Name", exact=True).fill("Maria F. Díaz")
    page.get_by_label("Phone", exact=True).fill("+51 999 000 111")
    page.get_by_label("E-mail").fill("maria@example.com")
    page.get_by_label("Language").select_option("es")
    page.get_by_label("Name of the attribute").first.fill("Plan")
    page.get_by_label("Value of the attribute").first.fill("gold")
    page.get_by_role("button", name="Add another").click()
    expect(page.get_by_label("Name of the attribute").nth(2)).to_be_focused()
    page.get_by_role("button", name="Save the person").click()
    expect(page.locator(".ib-title h2")).to_have_text("Maria F. Díaz", timeout=SOON_MS)
    expect(row(page, "Maria F. Díaz")).to_be_visible(timeout=SOON_MS)
    aside = page.locator(".ib-person")
    for words in ("maria@example.com", "Spanish", "gold", "Maria Fernández"):
        expect(aside).to_contain_text(words)
    quiet(page)


def test_what_a_colleague_changed_meanwhile_is_told_and_nothing_is_lost(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    opened(page, shop, "Maria")
    page.get_by_text("Edit the person").click()
    page.get_by_label("Name", exact=True).fill("Mine")
    maria = Contact.objects.get(client=shop, name="Maria Fernández")
    edit_contact.edit(maria.pk, {"name": "Theirs"}, details.values_of(maria), client=shop)
    save = page.get_by_role("button", name="Save the person")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("A colleague has changed this meanwhile (name: “Theirs”)")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Mine")
    picture(page, "person-conflict-1440")
    save.click()
    expect(page.locator(".ib-title h2")).to_have_text("Mine", timeout=SOON_MS)
    page.faults[:] = [each for each in page.faults if "409" not in each]
    quiet(page)


def test_an_address_of_another_contact_leads_to_the_pair(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    factories.ContactFactory(client=shop, user_id="other", name="Mariana", email="maria@example.com")
    opened(page, shop, "Maria Fernández", "manager")
    page.goto(f"/admin/conversations/contact/{Contact.objects.get(name='Maria Fernández').pk}/change/")
    page.get_by_text("Edit the person").click()
    page.get_by_label("E-mail").fill("maria@example.com")
    page.get_by_role("button", name="Save the person").click()
    expect(page.get_by_role("alert")).to_contain_text("Mariana has this e-mail address.")
    picture(page, "person-taken-1440")
    page.get_by_role("link", name="Compare and merge the two").click()
    expect(page.locator("#main")).to_contain_text("a colleague entered")
    page.faults[:] = [each for each in page.faults if "409" not in each]
    quiet(page)


def test_a_proposal_arrives_is_edited_looked_at_and_sent(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    Assistant.objects.filter(client=shop).update(proposes=True)
    opened(page, shop, "Maria")
    page.wait_for_function("window.convoLive.isConnected")
    people.says("When are you open?", channel="whatsapp", user_id="maria")
    commit("We are open until **five**.")
    proposal = page.locator("[data-proposal]")
    expect(proposal).to_contain_text("We are open until **five**.", timeout=SOON_MS)
    expect(page).to_have_title("(1) Inbox | Convo", timeout=SOON_MS)
    picture(page, "proposal-1440")
    proposal.get_by_text("Edit and send").click()
    expect(page.get_by_label("Edited reply")).to_have_value("We are open until **five**.")
    page.get_by_label("Edited reply").fill("We are open until **six**, dear Maria.")
    proposal.get_by_role("button", name="Preview").click()
    expect(proposal.locator(".ib-preview")).to_contain_text("We are open until", timeout=SOON_MS)
    picture(page, "proposal-edit-1440")
    proposal.get_by_role("button", name="Send edited").click()
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("We are open until **six**, dear Maria.")
    expect(page.locator(".cv-ours").last).to_contain_text("proposal, edited by agnes")
    expect(proposal).to_have_count(0)
    expect(page).to_have_title("Inbox | Convo", timeout=SOON_MS)
    assert Conversation.objects.get(contact__user_id="maria").taken_over_at is None
    quiet(page)


def test_a_proposal_is_sent_once_by_a_double_click_and_another_is_discarded(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    Assistant.objects.filter(client=shop).update(proposes=True)
    people.says("When are you open?", channel="whatsapp", user_id="maria")
    commit("Until five.")
    before = Chunk.objects.filter(role="ai").count()
    opened(page, shop, "Maria")
    page.locator("[data-proposal]").get_by_role("button", name="Send", exact=True).dblclick()
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("Until five.")
    expect(page.locator("[data-proposal]")).to_have_count(0)
    assert Chunk.objects.filter(role="ai").count() == before + 1
    people.says("And on Sunday?", channel="whatsapp", user_id="maria")
    commit("Closed.")
    page.locator("[data-proposal]").get_by_role("button", name="Discard").click(timeout=SOON_MS)
    expect(page.locator("[data-proposal]")).to_have_count(0)
    assert Proposal.objects.filter(state="discarded").count() == 1
    assert Chunk.objects.filter(role="ai").count() == before + 1
    quiet(page)


def test_a_newer_message_makes_the_proposal_on_screen_out_of_date(
    page: Any,
    shop: Client,
    people: Door,  # noqa: F811
) -> None:
    Assistant.objects.filter(client=shop).update(proposes=True)
    people.says("When are you open?", channel="whatsapp", user_id="maria")
    commit("Until five.")
    opened(page, shop, "Maria")
    page.wait_for_function("window.convoLive.isConnected")
    people.says("On Sunday, I mean", channel="whatsapp", user_id="maria")
    expect(page.locator("[data-proposal]")).to_contain_text("Out of date", timeout=SOON_MS)
    expect(page.locator("[data-proposal]").get_by_role("button", name="Send", exact=True)).to_have_count(0)
    picture(page, "proposal-outdated-1440")
    reply_to_all()
    expect(page.locator("[data-proposal]")).to_contain_text("The assistant proposes", timeout=SOON_MS)
    quiet(page)


def test_the_composer_asks_once_before_it_takes_over(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    Client.objects.filter(pk=shop.pk).update(asks_before_takeover=True)
    opened(page, shop, "Maria")
    composer = page.get_by_label("Reply", exact=True)
    composer.fill("I am Agnes.")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Take this conversation over?")
    expect(dialog).to_be_visible()
    picture(page, "takeover-question-1440")
    assert violations(page) == []
    dialog.get_by_role("button", name="Do not send").click()
    expect(composer).to_have_value("I am Agnes.")
    assert Conversation.objects.get(contact__user_id="maria").taken_over_at is None
    composer.focus()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Send and take over").click()
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("I am Agnes.")
    expect(page.locator(".ib-title")).to_contain_text("You have it")
    composer.fill("And more.")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("And more.")
    quiet(page)


SLOWLY = """() => {
    const quick = window.fetch;
    const slowly = (...asked) => new Promise((go) => setTimeout(go, 1500)).then(() => quick(...asked));
    window.fetch = (...asked) => (String(asked[0]).includes("/reply/") ? slowly : quick)(...asked);
}"""


def test_words_typed_while_a_reply_is_on_its_way_are_kept(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    opened(page, shop, "Maria")
    page.evaluate(SLOWLY)
    composer = page.get_by_label("Reply", exact=True)
    composer.fill("I am Agnes.")
    page.keyboard.press("Enter")
    composer.press_sequentially(" And more.")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("I am Agnes.")
    expect(composer).to_have_value("And more.")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("And more.")
    expect(composer).to_have_value("")
    quiet(page)


def test_choices_a_dropped_file_and_the_preview(page: Any, shop: Client, people: Door) -> None:  # noqa: F811
    opened(page, shop, "Maria")
    composer = page.get_by_label("Reply", exact=True)
    composer.fill("When do you come? *Any* time")
    page.locator(".ib-composer").get_by_text("Offer choices").click()
    page.get_by_label("Choices, one in each line").fill("At 5\nAt 6")
    page.locator(".ib-composer").get_by_role("button", name="Preview").click()
    preview = page.locator(".ib-composer .ib-preview")
    expect(preview).to_contain_text("On WhatsApp", timeout=SOON_MS)
    expect(preview).to_contain_text("At 6")
    composer.fill("When?")
    expect(preview.locator(".ib-preview-part")).to_contain_text("When?", timeout=SOON_MS)
    page.evaluate(
        """() => {
          const files = new DataTransfer();
          files.items.add(new File(["Opening hours"], "hours.txt", { type: "text/plain" }));
          const where = document.querySelector("#ib-reply");
          for (const kind of ["dragover", "drop"])
            where.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files }));
        }"""
    )
    expect(page.locator(".ib-composer output")).to_have_text("hours.txt")
    picture(page, "composer-1440")
    composer.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".cv-ours").last).to_contain_text("hours.txt")
    expect(page.locator(".cv-ours").last).to_contain_text("At 6")
    expect(preview).to_be_hidden()
    expect(page.locator(".ib-composer output")).to_have_text("")
    quiet(page)


@pytest.mark.parametrize("width", [1440, 1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Any, shop: Client, people: Door, theme: str, width: int) -> None:  # noqa: F811
    Assistant.objects.filter(client=shop).update(proposes=True, disclosure="You write with a machine.")
    people.says("When are you open?", channel="whatsapp", user_id="maria")
    commit("We are open **until five**, every day but Sunday.\n\n- Monday\n- Tuesday")
    maria = Conversation.objects.get(contact__user_id="maria")
    wanted = {
        "name": "Maria F. Díaz",
        "email": "maria@example.com",
        "language": "es",
        "attribute:Customer number": "4711",
    }
    edit_contact.edit(maria.contact_id, wanted, details.values_of(maria.contact), client=shop)
    Contact.objects.filter(client=shop, pk=maria.contact_id).update(
        opted_out={"sms": {"since": "2026-11-01T10:00:00+00:00", "word": "stop", "by": "contact"}}
    )
    notes.add_note(maria.pk, "She called.", actor=Actor("staff", "max"), now=maria.started_at, client=shop)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    sign_in(page, "agnes", shop, "manager")
    page.goto(f"/admin/inbox/{maria.pk}/")
    expect(page.locator("[data-proposal]")).to_be_visible()
    picture(page, f"inbox-{theme}-{width}")
    assert violations(page) == []
    if page.locator(".ib-person-button").is_visible():
        page.locator(".ib-person-button").click()
    page.get_by_text("Edit the person").click()
    page.get_by_text("What the model knows").click()
    picture(page, f"person-{theme}-{width}")
    assert violations(page) == []
    page.locator(".ib-person").evaluate("pane => { pane.scrollTop = 700; }")
    picture(page, f"person-below-{theme}-{width}")
    page.goto(f"/admin/conversations/contact/{maria.contact_id}/change/")
    page.get_by_text("Edit the person").click()
    picture(page, f"contact-{theme}-{width}")
    assert violations(page) == []
    page.goto("/admin/conversations/proposal/")
    expect(page.locator("#main")).to_contain_text("until five")
    picture(page, f"proposals-{theme}-{width}")
    others = [
        each for each in violations(page) if each[0] != "landmark-unique"
    ]  # of unfold, where it has two scrollers
    assert others == []
    quiet(page)
