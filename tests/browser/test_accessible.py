"""The back office's own pages, by keyboard alone and through axe-core, light and dark, wide and narrow."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from conversations.admin.access import Role
from conversations.models import (
    Assistant,
    Chunk,
    Client,
    Conversation,
    Membership,
    ModelProvider,
    ProviderModel,
)
from conversations.services.simulator import accounts
from conversations.services.staff_actions import seed_helpers
from tests import factories
from tests.browser.test_back_office import sign_in
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.back_office import page_of
from tests.conversations.staff import staff

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def session(shop: Client, key: str) -> Conversation:
    """Ann's session, answered, with steps, which waits for a person."""
    door = Door(shop, key)
    pk = door.says("Where is my parcel? " * 120, phone="+51999999999", name="Ann")["conversation_id"]
    reply_to_all()
    send_all()
    done = seed_helpers.add_step(pk, "Ask the number")
    seed_helpers.update_step(done.pk, "complete")
    seed_helpers.add_step(pk, "Find the parcel")
    door.says("Hello?")
    door.call("POST", f"/conversations/{pk}/takeover", {"name": "Maria"})
    return Conversation.objects.get()


def pages(shop: Client, session: Conversation) -> list[str]:
    """The pages that are ours, rather than the library's."""
    reply = Chunk.objects.filter(conversation=session, role="ai").first()
    playable = accounts.set_up(shop)[0]
    provider = model_provider(shop)
    return [
        reverse("admin:index"),
        "/admin/inbox/",
        f"/admin/inbox/{session.pk}/",
        "/admin/conversations/conversation/?waits=person",
        "/admin/conversations/feedback/",  # an empty list
        "/admin/conversations/message/",
        page_of(session),
        reverse("admin:conversations_conversation_clock", args=[session.pk]),
        reverse("admin:conversations_conversation_receipt", args=[session.pk, reply.position if reply else 0]),
        "/admin/conversations/conversation/new/",
        reverse("admin:conversations_contact_change", args=[session.contact_id]),
        reverse("admin:simulator_play", args=[playable.pk]),
        reverse("admin:conversations_client_retention", args=[shop.pk]),
        reverse("admin:conversations_modelprovider_change", args=[provider.pk]),
        reverse("admin:conversations_modelprovider_add"),
        reverse(
            "admin:conversations_assistant_change",
            args=[Assistant.objects.get(client=shop, model_provider=provider).pk],
        ),
    ]


def model_provider(shop: Client) -> ModelProvider:
    """A provider of the shop whose models end, were learned of, or are only listed; its assistant uses one."""
    provider = factories.ModelProviderFactory(client=shop, name="House")
    learned = {"tools": {"value": False, "at": "2026-11-29T10:00:00Z", "why": "unsupported_parameter"}}
    for name, facts in (("gpt-4.1-nano", learned), ("gpt-6-luna", {}), ("gpt-4o", {})):
        of = {"provider": provider, "client": shop, "last_listed_at": timezone.now()}
        ProviderModel.objects.create(model=name, learned=facts, **of)
    Assistant.objects.create(client=shop, key="nano", name="Nano", model_provider=provider, model="gpt-4.1-nano")
    return provider


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 390)])
def test_axe_finds_nothing(page: Any, shop: Client, session: Conversation, theme: str, width: int) -> None:
    staff("mona", shop=Role.MANAGER)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    sign_in(page, "mona")
    found = {}
    for path in pages(shop, session):
        page.goto(path)
        violations = Axe().run(page, {"exclude": [["#nav-sidebar"]]}).response["violations"]
        wrong = [(each["id"], [node["html"][:160] for node in each["nodes"]][:3]) for each in violations]
        if wrong:
            found[path] = wrong
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    assert not found, found
    assert page.faults == []


def test_an_agent_needs_no_mouse(page: Any, shop: Client, session: Conversation) -> None:
    staff("agnes", shop=Role.AGENT)
    Membership.objects.filter(user__username="agnes").update(sees_receipts=True)
    sign_in(page, "agnes")
    tab_to(page, "Inbox")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    tab_to(page, "Ann")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Maria has it")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.keyboard.press("Escape")  # leaves the reply
    tab_to(page, "Take over")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You have it")).to_be_visible()
    tab_to(page, "Reply")
    page.keyboard.press("Enter")  # from the tab into the text
    page.keyboard.type("It is on its way.")
    tab_to(page, "Send")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-bubble", has_text="It is on its way.")).to_be_visible()
    tab_to(page, "Hand back to the assistant")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The assistant replies here.")).to_be_visible()
    tab_to(page, "Show the person")
    page.keyboard.press("Enter")
    tab_to(page, "Complete")
    page.keyboard.press("Enter")
    expect(page.locator(".cv-step-complete")).to_have_count(2)
    focused = "document.activeElement.closest('[data-section]')?.dataset.section"
    assert page.evaluate(focused) == "steps", "whoever goes on from there is still there"
    assert page.faults == []


NAMED = """() => {
    const at = document.activeElement;
    if (at === document.body || at.id === "content") return "";
    const label = at.getAttribute("aria-label") || at.labels?.[0]?.innerText || at.innerText || "";
    return label.trim();
}"""


def tab_to(page: Page, name: str, most: int = 120) -> None:
    """Press Tab until what has the focus is called so."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        called = page.evaluate(NAMED)
        seen.append(called)
        if name in called.splitlines():  # a link of the menu has its icon's name before its own
            return
    pytest.fail(f"{name} is not reached by Tab: {seen}")
