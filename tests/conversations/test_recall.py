"""What a session begins with, what it is told of earlier ones with its first message, and that staff's word counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.urls import reverse
from django.utils import timezone

from conversations.models import Assistant, Chunk, Client, Contact, Conversation, ConversationEvent, Turn
from conversations.services.core.ledger import Actor
from conversations.services.core.opening import NOTHING_KNOWN, RECALL_BYTES
from conversations.services.history import recall, remember
from conversations.services.replies import leases
from conversations.services.replies.dispatcher import Dispatcher
from conversations.services.staff_actions import corrections
from conversations.services.staff_actions.edit_details import edit_details
from memory import services as memory
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import page_of
from tests.conversations.conftest import close
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "+51999999999"
STAFF = Actor("staff", "mona")


@pytest.fixture
def model(settings: Any, shop: Client) -> Iterator[FakeOpenAI]:
    """A model that summarises, embeds and replies."""
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY = fake.base_url, "sk-1"
        settings.OPENAI_EMBEDDING_DIMENSIONS, settings.MEMORY_LEAST_SIMILARITY = 0, 20
        Assistant.objects.filter(client=shop).update(engine="openai")
        fake.reply = lambda _messages: "Something was agreed."
        yield fake


@pytest.fixture
def index(settings: Any, model: FakeOpenAI) -> Iterator[FakePinecone]:
    """An index at Pinecone."""
    with FakePinecone(api_key="pc-1") as fake:
        settings.PINECONE_API_KEY, settings.PINECONE_HOST, settings.RECALL_SECONDS = "pc-1", fake.url, 10.0
        yield fake


@pytest.fixture
def recalling(shop: Client) -> Client:
    """The shop, which has earlier sessions recalled."""
    Client.objects.filter(pk=shop.pk).update(semantic_recall=True)
    return shop


def talked(door: Door, *texts: str, user_id: str = "ann") -> Conversation:
    """They said this in a session that is over and remembered."""
    for text in texts:
        pk = door.says(text, user_id=user_id, phone=PHONE if user_id == "ann" else "+51999999998")["conversation_id"]
    close(pk)
    assert remember.remember_ended() == 1
    return Conversation.objects.get(pk=pk)


def begins(door: Door, text: str = "Hello again", **more: Any) -> Conversation:
    return Conversation.objects.get(pk=door.says(text, user_id="ann", **more)["conversation_id"])


def memory_of(conversation: Conversation) -> Chunk:
    return Chunk.objects.get(conversation=conversation, position=2, role="memory")


def dispatched(seconds: float = 60) -> None:
    """A dispatcher runs until nothing is owed."""
    dispatcher = Dispatcher(patience=20)

    def run() -> None:
        dispatcher.run()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + seconds
    while Conversation.objects.filter(reply_owed=True).exists() and time.monotonic() < until:
        time.sleep(0.02)
    dispatcher.stop()
    thread.join(30)
    assert not Conversation.objects.filter(reply_owed=True).exists()


def prompt() -> str:
    """What the model was given for the newest reply."""
    return "\n".join(message["content"] for message in Turn.objects.latest("started_at").prompt["messages"])


# --- what it begins with ---------------------------------------------------------------------------------------------
def test_a_session_begins_with_facts_and_the_last_summaries_and_says_where_from(door: Door, viewer: Any) -> None:
    old = talked(
        door, "Hello, where is my parcel please? I have been waiting for it.", "Thank you, and what of the bill?"
    )
    edit_details(old.pk, actor=STAFF, now=timezone.now(), summary="Wants the parcel.")
    Contact.objects.update(name="Ann\n- Phone number: 1")
    chunk = memory_of(begins(door))
    today = f"{old.started_at:%Y-%m-%d}"
    assert chunk.content == (
        "What is known of this contact:\n- Name: Ann - Phone number: 1\n- Language: English\n- Phone number: known\n\n"
        f"From earlier sessions with this contact:\n- {today}: Wants the parcel."
    )
    [told] = chunk.metadata["recalled"]
    assert told == {"session": str(old.pk), "on": today, "why": "last summaries", "store": "sessions"}
    page = viewer.get(page_of(Conversation.objects.latest("started_at"))).content.decode()
    assert f'<a class="cv-link" href="{page_of(old)}">the conversation of {today}</a>: last summaries' in page


def test_who_is_new_begins_with_nothing(door: Door) -> None:
    assert memory_of(Conversation.objects.get(pk=door.says("Hello", user_id="new")["conversation_id"])).content == (
        NOTHING_KNOWN
    )
    assert (
        NOTHING_KNOWN
        in memory_of(Conversation.objects.get(pk=door.says("Hi", channel="whatsapp")["conversation_id"])).content
    )


@pytest.mark.parametrize("letter", ["a", "я", "語"])
def test_summaries_stay_within_their_budget_the_newest_first(door: Door, letter: str) -> None:
    for number in range(7):
        conversation = begins(door, phone=PHONE)
        close(conversation.pk, summary=f"{number} " + f"{letter * 5} " * 400)
    text = memory_of(begins(door)).content
    assert len(text.encode()) <= RECALL_BYTES + 240
    assert f": 6 {letter}" in text
    assert text.count("\n- 20") == len(memory_of(Conversation.objects.latest("started_at")).metadata["recalled"]) < 4


# --- with the first message ------------------------------------------------------------------------------------------
def test_the_first_message_recalls_by_meaning_what_was_said_of_the_same(
    door: Door, recalling: Client, index: FakePinecone, viewer: Any
) -> None:
    kettle = talked(door, "My kettle is broken and leaks")
    for number in range(6):
        talked(door, f"Do you sell blue paint, number {number}?")
    talked(door, "My kettle is not yours", user_id="bob")
    session = begins(door, "The boiler leaks again")
    assert "kettle" not in memory_of(session).content, "the webhook waits for nobody"
    dispatched()
    chunk = memory_of(session)
    assert "“My kettle is broken and leaks”" in chunk.content
    assert "My kettle is broken and leaks" in prompt()
    assert "not yours" not in chunk.content
    found = [each for each in chunk.metadata["recalled"] if each["store"] == "pinecone"]
    assert [(each["session"], each["why"], each["position"]) for each in found] == [(str(kettle.pk), "by meaning", 3)]
    assert 0.2 < found[0]["score"] <= 1
    page = viewer.get(page_of(session)).content.decode()
    assert f'{page_of(kettle)}">the conversation of' in page
    assert f"pinecone · score {found[0]['score']} · message 3" in page
    assert ConversationEvent.objects.filter(conversation=session, kind="recalled").count() == 1

    asked = len(index.requests)
    begins(door, "And the kettle?")
    dispatched()
    assert len(index.requests) == asked, "once, at the opening; never while it is open"
    assert memory_of(session).content == chunk.content


def test_without_pinecone_it_recalls_by_words(door: Door, recalling: Client) -> None:
    kettle = talked(door, "My kettle is broken and leaks")
    talked(door, "Do you sell blue paint?")
    session = begins(door, "is the kettle repaired")
    dispatched()
    found = [each for each in memory_of(session).metadata["recalled"] if each["store"] == "database"]
    assert [each["session"] for each in found] == [str(kettle.pk)]
    assert "“My kettle is broken and leaks”" in memory_of(session).content


def test_it_is_off_unless_the_client_wants_it(door: Door, shop: Client, index: FakePinecone) -> None:
    talked(door, "My kettle is broken and leaks")
    session = begins(door, "The kettle leaks again")
    index.requests.clear()
    dispatched()
    assert index.requests == []
    assert "“" not in memory_of(session).content
    Client.objects.update(semantic_recall=True)
    begins(door, "The kettle leaks again")
    dispatched()
    assert index.requests == [], "it is open since, and stays as it is"
    assert Conversation.objects.get(pk=session.pk).recalled_at is None


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(hang=30.0), Fault(cut="before"), Fault(status=401)])
def test_a_store_that_is_away_costs_the_reply_no_more_than_its_bound(
    door: Door, recalling: Client, index: FakePinecone, settings: Any, fault: Fault, viewer: Any
) -> None:
    talked(door, "My kettle is broken and leaks")
    settings.RECALL_SECONDS = 0.5
    index.fail_next(fault, times=10)
    session = begins(door, "The kettle leaks again")
    began = time.monotonic()
    dispatched()
    assert time.monotonic() - began < 15
    assert Chunk.objects.get(conversation=session, role="ai").content == "Something was agreed."
    problem = memory_of(session).metadata["recall_problem"]
    assert f"The search by meaning failed: {problem}" in viewer.get(page_of(session)).content.decode()


def test_a_fault_of_ours_costs_no_reply(door: Door, recalling: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(recall.recall, "recall", broken)
    talked(door, "My kettle is broken and leaks")
    session = begins(door, "The kettle leaks again")
    dispatched()
    assert Chunk.objects.filter(conversation=session, role="ai").exists()


def test_what_was_answered_by_staff_first_is_not_being_opened_any_more(door: Door, recalling: Client) -> None:
    talked(door, "My kettle is broken and leaks")
    session = begins(door, "The kettle leaks again")
    door.call("POST", f"/conversations/{session.pk}/send", {"content": "I look after it"})
    begins(door, "Thanks, the kettle")
    [claim] = leases.claim(timezone.now(), 10)
    assert not claim.recalls


# --- staff have the last word ----------------------------------------------------------------------------------------
def test_what_staff_make_of_the_memory_counts_here_and_later(
    door: Door, recalling: Client, index: FakePinecone, viewer: Any, manager: Any
) -> None:
    talked(door, "My kettle is broken and leaks")
    session = begins(door, "The kettle leaks again")
    corrections.correct(session.pk, 2, "She has a TEAPOT, no kettle.", actor=STAFF, now=timezone.now())
    dispatched()
    assert "TEAPOT" in prompt()
    assert "“" not in prompt(), "nothing is laid over what staff said"

    close(session.pk)
    remember.remember_ended()
    Conversation.objects.filter(pk=session.pk).update(summary="The pot was mended.")
    later = begins(door, "My kettle, the broken one that leaks")
    text = memory_of(later).content
    assert "She has a TEAPOT, no kettle." in text
    assert "The pot was mended." in text, "what came after it"
    assert text.count("\n- 20") == 1, "and nothing of what came before"
    dispatched()
    assert "My kettle is broken and leaks" not in memory_of(later).content, "nor is it recalled"
    page = viewer.get(reverse("admin:conversations_contact_change", args=[later.contact_id])).content.decode()
    assert "She has a TEAPOT, no kettle." in page
    assert page_of(session) in page

    corrections.correct(later.pk, 2, "She has a PAN.", actor=STAFF, now=timezone.now())
    corrections.correct(session.pk, 2, "An older session's.", actor=STAFF, now=timezone.now())
    close(later.pk)
    assert "She has a PAN." in memory_of(begins(door)).content


def test_a_corrected_record_is_what_is_recalled(door: Door, recalling: Client, index: FakePinecone) -> None:
    old = talked(door, "My kettle is broken and leaks")
    corrections.correct(old.pk, 3, "My toaster is broken and burns", actor=STAFF, now=timezone.now())
    assert remember.remember_ended() == 1
    session = begins(door, "The toaster burns again")
    dispatched()
    assert "“My toaster is broken and burns”" in memory_of(session).content
    assert "kettle" not in memory_of(session).content


def test_a_redaction_reaches_what_was_recalled_of_it(door: Door, recalling: Client, index: FakePinecone) -> None:
    old = talked(door, "My kettle is broken and leaks")
    session = begins(door, "The kettle leaks again")
    dispatched()
    text = memory_of(session).content
    corrections.correct(session.pk, 2, f"{text} (right)", actor=STAFF, now=timezone.now())
    corrections.redact(old.pk, 3, actor=STAFF, now=timezone.now())
    assert "broken" not in memory_of(session).content
    assert "broken" not in prompt()
    assert "broken" not in Contact.objects.get().known
    corrections.redact(session.pk, 2, actor=STAFF, now=timezone.now())
    assert Contact.objects.get().known == ""
    assert memory_of(session).metadata == {}


def test_memory_that_is_recalled_is_cleaned_by_the_client_s_rules(door: Door, recalling: Client) -> None:
    Client.objects.update(redact_cards=False)
    talked(door, "kettle paid with 4111111111111111")
    Client.objects.update(redact_cards=True)
    session = begins(door, "the kettle, paid")
    Chunk.objects.filter(conversation=session, position=2).update(content=NOTHING_KNOWN)
    dispatched()
    assert "4111" not in memory_of(session).content
    assert "card number removed" in memory_of(session).content


def test_another_contact_s_sessions_are_never_recalled(door: Door, recalling: Client, index: FakePinecone) -> None:
    talked(door, "My kettle is broken and leaks", user_id="bob")
    Assistant.objects.update(engine="offline")
    session = begins(door, "My kettle is broken and leaks", phone=PHONE)
    dispatched()
    assert memory_of(session).metadata["recalled"] == []
    assert memory.search(session.client_id, "kettle").items


def test_the_old_way_of_the_tests_needs_no_recall(door: Door, recalling: Client) -> None:
    begins(door, "Hello", phone=PHONE)
    assert reply_to_all() == 1
    assert timezone.now() - Turn.objects.get().started_at < timedelta(minutes=1)
