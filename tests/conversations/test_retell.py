"""Sessions whose replies are written by a Retell agent, over HTTP, against a server that speaks its protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from channels_out import retell as ours
from conversations.engines.registry import ask
from conversations.models import Chunk, Contact, Conversation, EngineChat, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.jobs import sweep
from conversations.services.replies import chat_endings, leases, pipeline
from conversations.services.staff_actions import corrections, send
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.retell_shop import answers_by_retell, due_now
from tests.fakes.retell import FakeRetell, agent, tool
from tests.fakes.server import Fault

PHONE = "+51999888777"
OUTREACH = {
    "channel": "whatsapp",
    "phone": "+51 999 888 777",
    "name": "Ana",
    "variables": {"customer_name": "Ana", "debt_amount": 120.5, "due_date": "2026-12-01"},
}


@pytest.fixture
def retell(shop: Any, settings: Any) -> Iterator[FakeRetell]:
    """Where the shop's agent is."""
    with FakeRetell() as fake:
        answers_by_retell(shop, settings, fake)
        yield fake


def told(retell: FakeRetell) -> list[str]:
    """What the agents were told, request by request."""
    return [each.json()["content"] for each in retell.calls("create-chat-completion")]


def said() -> list[str]:
    """What the person was answered, oldest first."""
    return list(Chunk.objects.filter(role="ai").order_by("id").values_list("content", flat=True))


# --- flow 1 and flow 2 ----------------------------------------------------------------------------------------------
def test_we_write_first_and_the_reply_finds_the_session_by_phone(door: Door, retell: FakeRetell) -> None:
    retell.answers = lambda chat, content: [agent(f"Hola {chat.variables['customer_name']}: {content}")]
    status, envelope = door.call("POST", "/conversations", OUTREACH)
    assert status == 201, envelope
    session = envelope["data"]
    assert session["variables"] == {"customer_name": "Ana", "debt_amount": "120.5", "due_date": "2026-12-01"}
    assert (reply_to_all(), send_all()) == (1, 1)

    [made] = retell.calls("create-chat")
    assert made.json()["agent_id"] == "agent_collections"
    assert made.json()["metadata"]["conversation_id"] == session["id"]
    assert made.json()["metadata"]["debt_amount"] == "120.5"
    assert made.json()["retell_llm_dynamic_variables"].items() >= session["variables"].items()
    assert told(retell) == ["Hola"]
    shown = door.get(f"/conversations/{session['id']}")
    assert shown["chat_id"] == "chat_1"
    assert shown["device"] == "51999888777"
    assert shown["chunks"][-1]["content"] == "Hola Ana: Hola"

    answered = door.says("No puedo pagar hoy", channel="whatsapp", user_id=Contact.objects.get().user_id)
    assert answered["conversation_id"] == session["id"]
    door.says("¿Y mañana?", channel="whatsapp", user_id=Contact.objects.get().user_id)
    reply_to_all()
    assert told(retell)[1:] == ["No puedo pagar hoy\n\n¿Y mañana?"]
    assert len(retell.chats) == 1, "one chat a session"
    assert door.call("POST", "/conversations", OUTREACH)[1]["code"] == "already_open"


def test_the_agent_s_own_first_words_are_the_greeting(door: Door, retell: FakeRetell) -> None:
    retell.begin_message = "Buenos días, le llamo por su deuda."
    door.call("POST", "/conversations", OUTREACH)
    reply_to_all()
    assert said() == ["Buenos días, le llamo por su deuda."]
    assert told(retell) == []
    door.says("Sí", channel="whatsapp", user_id=Contact.objects.get().user_id)
    reply_to_all()
    assert told(retell) == ["Sí"]


def test_of_two_contacts_with_one_phone_the_newest_session_is_found(door: Door, retell: FakeRetell) -> None:
    """Two programs know the person by ids of their own; WhatsApp knows the number alone."""
    from channels_out.kinds import AddressKind
    from conversations.services.contacts import contacts
    from conversations.services.core.person import Person

    for user_id in ("crm-1", "crm-2", "crm-3"):
        contact = factories.ContactFactory(client=door.shop, user_id=user_id, phone=PHONE, is_guest=False)
        if user_id == "crm-2":
            factories.ConversationFactory(client=door.shop, contact=contact, channel="whatsapp")
        if user_id == "crm-3":
            aged = timedelta(hours=3)
            factories.ConversationFactory(client=door.shop, contact=contact, channel="whatsapp", aged=aged)
    person = Person(address="51999888777", kind=AddressKind.PHONE, phone=PHONE)
    found, _ = contacts.find_or_create(door.shop, "whatsapp", person)
    assert found.user_id == "crm-2"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"phone": "12"}, "invalid"),
        ({"phone": None}, "invalid"),
        ({"channel": "web"}, "invalid"),
        ({"variables": {"due_date": None}}, "invalid"),
        ({"variables": {"due_date": {"day": 1}}}, "invalid"),
        ({"variables": {f"name {n}": "x" for n in range(51)}}, "invalid"),
        ({"variables": {" ": "x"}}, "invalid"),
        ({"variables": {"x": "y" * 2_001}}, "invalid"),
        ({"assistant": "nobody"}, "unknown_assistant"),
    ],
)
def test_an_outreach_that_makes_no_sense_is_refused(door: Door, change: dict[str, Any], code: str) -> None:
    status, envelope = door.call("POST", "/conversations", {**OUTREACH, **change})
    assert (status, envelope["code"]) == (400, code)
    assert not Conversation.objects.exists()


def test_another_assistant_can_write_and_nobody_has_to(door: Door, shop: Any) -> None:
    factories.AssistantFactory(client=shop, key="bea", name="Bea", system_prompt="You are Bea.", is_default=False)
    body = {**OUTREACH, "assistant": "bea", "greet": False, "user_id": "crm-7"}
    session = door.call("POST", "/conversations", body)[1]["data"]
    assert session["user_id"] == "crm-7"
    assert reply_to_all() == 0
    shown = door.get(f"/conversations/{session['id']}")
    assert (shown["assistant"], shown["chunks"][0]["content"]) == ("bea", "You are Bea.")


# --- what the agent answers ------------------------------------------------------------------------------------------
def test_case_18_only_the_agent_s_words_are_replies(door: Door, retell: FakeRetell) -> None:
    retell.answers = lambda chat, content: [
        *tool(), agent("One moment."), {"role": "node_transition"}, agent("  "), agent("Done.")
    ]  # fmt: skip
    door.says("Book it", phone=PHONE)
    reply_to_all()
    assert said() == ["One moment.\n\nDone."]
    assert (Turn.objects.get().engine, Turn.objects.get().model) == ("retell", "agent_collections")


def test_case_18_an_agent_that_says_nothing_leaves_it_to_staff(door: Door, retell: FakeRetell) -> None:
    retell.answers = lambda chat, content: tool()
    door.says("Hm", phone=PHONE)
    reply_to_all()
    assert said() == []
    session = Conversation.objects.get()
    assert (session.reply_owed, session.needs_staff_since is not None) == (False, True)
    retell.answers = lambda chat, content: [agent("Yes?")]
    door.says("Hello?")
    reply_to_all()
    assert (said(), told(retell)) == (["Yes?"], ["Hm", "Hello?"])


@pytest.mark.parametrize("how", ["by silence", "unknown"])
def test_case_18_a_chat_that_is_over_is_replaced_once_and_knows_what_was_said(
    door: Door, retell: FakeRetell, how: str
) -> None:
    door.says("My parcel is blue", phone=PHONE)
    reply_to_all()
    Conversation.objects.update(summary="Ana waits for a blue parcel.")
    retell.end("chat_1") if how == "by silence" else retell.chats.clear()
    door.says("Where is it?")
    reply_to_all()
    again = told(retell)[-1]
    assert again.endswith("Where is it?")
    assert "Ana waits for a blue parcel." in again
    assert "person: My parcel is blue" in again
    [*_, made] = retell.calls("create-chat")
    assert "Ana waits for a blue parcel." in made.json()["retell_llm_dynamic_variables"]["conversation_so_far"]
    chats = {chat.status for chat in EngineChat.objects.all()}
    assert "ongoing" in chats
    assert len(said()) == 2
    door.says("Thanks")
    reply_to_all()
    assert told(retell)[-1] == "Thanks", "the new chat goes on as any other"


def test_a_chat_that_is_refused_again_is_not_replaced_for_ever(door: Door, retell: FakeRetell, settings: Any) -> None:
    settings.REPLY_ATTEMPTS = 1
    gone = Fault(status=422, content={"status": "error", "message": "Cannot find requested asset"})
    retell.fail_next(Fault(), 1)  # create-chat
    retell.fail_next(gone, 2)  # completion, get-chat
    retell.fail_next(Fault(), 1)  # create-chat
    retell.fail_next(gone, 2)  # completion, get-chat
    door.says("Hello", phone=PHONE)
    reply_to_all()
    assert Turn.objects.get().code == "http_422"
    assert len(retell.calls("create-chat")) == 2
    assert Conversation.objects.get().needs_staff_since is not None


def test_a_wrong_key_or_agent_calls_staff_at_once(door: Door, retell: FakeRetell, settings: Any) -> None:
    settings.RETELL_API_KEYS = ["another"]
    door.says("Hello", phone=PHONE)
    reply_to_all()
    assert Turn.objects.get().code == "http_401"
    assert Conversation.objects.get().needs_staff_since is not None


# --- answers that get lost -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", ["after", "body", "hang", "status"])
def test_case_18_an_answer_that_was_lost_is_looked_up_and_nothing_is_said_twice(
    door: Door, retell: FakeRetell, settings: Any, cut: str
) -> None:
    settings.RETELL_TIMEOUT_SECONDS = 1 if cut == "hang" else 20
    door.says("Hello", phone=PHONE)
    reply_to_all()
    fault = {"hang": Fault(hang=2), "status": Fault(status=502)}.get(cut) or Fault(cut=cut)  # type: ignore[arg-type]
    retell.fail_next(fault)
    door.says("And now?")
    reply_to_all()
    due_now()
    reply_to_all()
    assert told(retell).count("And now?") == (2 if cut == "status" else 1), "a 502 did not pass it on here"
    assert retell.chats["chat_1"].heard() == ["Hello", "And now?"]
    assert said() == ["You said: Hello", "You said: And now?"]
    assert retell.calls("get-chat")


def test_case_18_an_agent_that_takes_longer_than_we_wait_is_waited_for(
    door: Door, retell: FakeRetell, settings: Any
) -> None:
    settings.RETELL_TIMEOUT_SECONDS = 1
    retell.answers = lambda chat, content: []
    retell.fail_next(Fault())
    retell.fail_next(Fault(hang=2))
    door.says("Hello", phone=PHONE)
    reply_to_all()
    assert Turn.objects.get().code == "still_writing"
    assert Conversation.objects.get().reply_owed
    retell.chats["chat_1"].add([agent("Here I am.")])
    door.says("Hm?")
    retell.answers = lambda chat, content: [agent(f"And: {content}")]
    due_now()
    reply_to_all()
    assert said() == ["Here I am.\n\nAnd: Hm?"]
    assert retell.chats["chat_1"].heard() == ["Hello", "Hm?"]


def test_a_dispatcher_that_died_after_asking_says_nothing_twice(door: Door, retell: FakeRetell) -> None:
    door.says("Hello", phone=PHONE)
    now = timezone.now()
    [claim] = leases.claim(now, 1)
    request, engine = pipeline.prepare(claim) or pytest.fail("not ours")
    ask(engine, request)  # and dies before it writes the answer down
    leases.recover(now + timedelta(hours=1))
    reply_to_all()
    assert said() == ["You said: Hello"]
    assert told(retell) == ["Hello"]


def test_case_18_a_draft_that_was_overtaken_is_said_with_the_answer_to_what_came_since(
    door: Door, retell: FakeRetell
) -> None:
    """The agent has said it already, as far as the agent knows."""

    retell.answers = lambda chat, content: [agent(f"About {content}")]
    door.says("Is it red?", phone=PHONE)
    [claim] = leases.claim(timezone.now(), 1)
    request, engine = pipeline.prepare(claim) or pytest.fail("not ours")
    draft = ask(engine, request)
    door.says("Or blue?")
    assert pipeline.commit(claim, draft, timezone.now()) == "overtaken"
    assert said() == []
    reply_to_all()
    assert said() == ["About Is it red?\n\nAbout Or blue?"]
    assert told(retell) == ["Is it red?", "Or blue?"]


def test_what_staff_said_meanwhile_is_told_to_the_agent(door: Door, retell: FakeRetell) -> None:
    door.says("Hello", phone=PHONE)
    reply_to_all()
    session = Conversation.objects.get()
    send.send(session.pk, "You get a refund.", actor=SYSTEM, now=timezone.now())
    door.says("Thanks, when?")
    reply_to_all()
    assert told(retell)[-1] == "[Said to the person in your place: You get a refund.]\n\nThanks, when?"


def test_a_redaction_forgets_what_retell_made_of_the_session(door: Door, retell: FakeRetell) -> None:
    door.says("My card is 4111", phone=PHONE)
    reply_to_all()
    EngineChat.objects.update(analysis={"chat_summary": "A card of 4111"})
    session = Conversation.objects.get()
    corrections.redact(session.pk, 3, actor=SYSTEM, now=timezone.now())
    assert EngineChat.objects.get().analysis is None


# --- its end ---------------------------------------------------------------------------------------------------------
def post(door: Door, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    door.key = ""
    return door.call("POST", "/webhooks/retell", body, **headers)


def test_closing_a_session_ends_its_chat(door: Door, retell: FakeRetell) -> None:
    opened = door.says("Hello", phone=PHONE)["conversation_id"]
    reply_to_all()
    retell.fail_next(Fault(status=503))
    door.call("POST", f"/conversations/{opened}/close", {})
    assert chat_endings.settle_due() == 0
    EngineChat.objects.update(due_at=timezone.now())
    assert chat_endings.settle_due() == 1
    assert retell.chats["chat_1"].status == "ended"
    assert (EngineChat.objects.get().status, chat_endings.is_pending()) == ("ended", False)


def test_an_agent_that_ends_the_chat_ends_the_session_after_its_last_words(door: Door, retell: FakeRetell) -> None:
    retell.answers = lambda chat, content: [agent("Goodbye."), *tool("end_call", "end_call")]
    door.says("Bye", phone=PHONE)
    reply_to_all()
    status, answer = post(door, *retell.webhook("chat_ended", retell.chats["chat_1"]))
    assert (status, answer["data"]) == (200, {"known": True})
    chat_endings.settle_due()
    assert Conversation.objects.get().status == "active", "its last words are still on their way"
    assert send_all() == 1
    EngineChat.objects.update(due_at=timezone.now())
    chat_endings.settle_due()
    session = Conversation.objects.get()
    assert (session.status, session.ended_by) == ("closed", "system")
    assert session.end_reason == "the Retell agent ended the chat"


def test_a_chat_that_ends_by_silence_is_noted_and_the_session_goes_on(door: Door, retell: FakeRetell) -> None:
    door.says("Hello", phone=PHONE)
    reply_to_all()
    retell.end("chat_1")
    for _ in range(2):
        assert post(door, *retell.webhook("chat_ended", retell.chats["chat_1"]))[0] == 200
    chat_endings.settle_due()
    session = Conversation.objects.get()
    assert session.status == "active"
    assert list(session.events.filter(kind="chat_ended").values_list("cause", flat=True)) == ["ended"]
    retell.chats["chat_1"].analysis = {"user_sentiment": "Positive", "chat_summary": "All is well."}
    post(door, *retell.webhook("chat_analyzed", retell.chats["chat_1"]))
    assert EngineChat.objects.get().analysis == retell.chats["chat_1"].analysis
    assert session.events.get(kind="chat_analyzed").cause == "sentiment: Positive"


def test_a_webhook_must_be_signed_and_about_a_chat(door: Door, retell: FakeRetell) -> None:
    body, headers = retell.webhook("chat_ended", {"chat_id": "somebody else's"})
    assert post(door, body, headers)[1]["data"] == {"known": False}
    for name, wrong in {
        "body": (body + b" ", headers),
        "none": (body, {}),
        "nonsense": (body, dict.fromkeys(headers, "v=1")),
    }.items():
        status, answer = post(door, *wrong)
        assert (status, answer["code"]) == (403, "invalid_signature"), name
    for shapeless in ({}, [], {"chat_id": 5}, {"chat_id": ""}):
        assert post(door, *retell.webhook("chat_ended", shapeless))[0] == 400
    odd = {"chat_id": "chat_9", "message_with_tool_calls": [None, 5, {"role": 7}], "chat_analysis": []}
    assert post(door, *retell.webhook("chat_analyzed", odd))[0] == 200
    assert door.call("GET", "/webhooks/retell")[0] == 405


def test_what_is_below_a_guest_s_session_goes_with_it(door: Door, retell: FakeRetell) -> None:
    door.says("Hello")
    reply_to_all()
    later = timezone.now() + timedelta(days=2)
    sweep.sweep(later)
    sweep.sweep(later + timedelta(minutes=5))
    assert not Conversation.objects.exists()
    assert not EngineChat.objects.exists()


def test_it_is_what_the_sdk_says(retell: FakeRetell, settings: Any) -> None:
    """Retell's own SDK reads our fake as it reads Retell, and signs and verifies as we do."""
    from retell import Retell
    from retell.lib.webhook_auth import symmetric, verify

    from channels_out import retell as ours
    from channels_out.errors import InboundError

    sdk = Retell(api_key=retell.key, base_url=retell.url, max_retries=0)
    retell.answers = lambda chat, content: [*tool(), agent("Yes.")]
    made = sdk.chat.create(agent_id="agent_x", metadata={"a": "b"}, retell_llm_dynamic_variables={"due": "Friday"})
    answered = sdk.chat.create_chat_completion(chat_id=made.chat_id, content="Hello")
    access = ours.Access(retell.key, retell.url)
    seen = ours.get_chat(access, made.chat_id)
    assert seen is not None
    assert [m.content for m in answered.messages if m.role == "agent"] == ours.words_of(seen.messages) == ["Yes."]
    assert [m.role for m in sdk.chat.retrieve(made.chat_id).message_with_tool_calls] == [m.role for m in seen.messages]
    sdk.chat.end(made.chat_id)
    ours.end_chat(access, made.chat_id)  # once more does no harm
    assert ours.get_chat(access, made.chat_id).status == sdk.chat.retrieve(made.chat_id).chat_status == "ended"
    theirs = {each.path: each.json() for each in retell.requests if each.method == "POST"}
    ours.create_chat(access, "agent_x", metadata={"a": "b"}, variables={"due": "Friday"})
    assert retell.requests[-1].json() == theirs["/create-chat"]

    body = json.dumps({"event": "chat_ended", "chat": {"chat_id": "ñ"}}, ensure_ascii=False)
    now = timezone.now().timestamp()
    ours.verify(body.encode(), symmetric["sign"](body, "key_test"), ["other", "key_test"], now)
    assert verify(body, "key_test", ours.sign(body.encode(), "key_test", now))
    old = ours.sign(body.encode(), "key_test", now - 301)
    assert not verify(body, "key_test", old)
    with pytest.raises(InboundError):
        ours.verify(body.encode(), old, ["key_test"], now)
    vector = "v=1700000000000,d=e959b86f516475b443a342db5428be368d9daa027323c425b4ef9a0143b40bc5"
    ours.verify(b'{"event":"chat_ended","chat":{"chat_id":"c1"}}', vector, ["key_test"], 1_700_000_000)


@pytest.mark.parametrize("event", ["call_started", "call_ended", "call_analyzed"])
def test_an_event_of_retell_s_phone_calls_is_none_of_ours_and_is_answered_so(door, retell, event):
    body = json.dumps({"event": event, "call": {"call_id": "c1", "call_status": "ended"}}).encode()
    signature = ours.sign(body, retell.key, time.time())
    status, answer = post(door, body, {ours.SIGNATURE: signature})
    assert (status, answer["data"]) == (200, {"known": False})
