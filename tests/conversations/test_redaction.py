"""Card numbers and what a client has removed are kept nowhere, by whichever door they come."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.models import Assistant, Chunk, Client, Conversation, InboundEvent, RollingSummary, Turn
from conversations.services.core import redaction
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import remember
from conversations.services.inbound import messages, replay
from conversations.services.replies import leases, pipeline, summaries
from conversations.services.staff_actions import corrections, seed_helpers
from conversations.services.staff_actions.edit_details import edit_details
from memory.redaction import CARD_REMOVED, REDACTED
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.back_office import do
from tests.conversations.meta_doors import account_at, post_whatsapp
from tests.conversations.test_plivo_calls import Phone
from tests.fakes.meta import FakeMeta
from tests.fakes.openai import FakeOpenAI
from tests.fakes.plivo import FakePlivo

pytestmark = pytest.mark.django_db

CARD = "4111 1111 1111 1111"
SAID = f"My card is {CARD}, my code SECRET-77."
CLEANED = f"My card is {CARD_REMOVED}, my code {REDACTED}."


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process is that was just started."""
    monkeypatch.setattr(redaction, "_unusual", {})


@pytest.fixture
def strict(shop: Client) -> Client:
    """The shop, which has more removed than card numbers."""
    Client.objects.filter(pk=shop.pk).update(redaction_patterns=[r"SECRET-\d+"])
    shop.refresh_from_db()
    return shop


@pytest.fixture
def model(settings: Any, shop: Client) -> Iterator[FakeOpenAI]:
    """A model that says the card again."""
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        Assistant.objects.filter(client=shop).update(engine="openai")
        fake.reply = lambda _messages: f"You said {CARD} and SECRET-78."
        yield fake


def everywhere(word: str) -> list[str]:
    """The tables that hold the word anywhere."""
    with connection.cursor() as cursor:
        found = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE %s', [f"%{word}%"])
            if cursor.fetchone()[0]:
                found.append(table)
    return found


def nothing_left() -> None:
    """No table holds a word of what is removed, however it was written."""
    for word in (CARD, CARD.replace(" ", ""), "1111 1111", "SECRET-7"):
        assert everywhere(word) == [], word


def said() -> list[str]:
    return list(Chunk.objects.filter(role__in=["user", "voice"]).order_by("id").values_list("content", flat=True))


# --- the doors -------------------------------------------------------------------------------------------------------
def test_our_own_json_keeps_no_card_from_the_first_message_to_the_archive(
    door: Door, strict: Client, model: FakeOpenAI
) -> None:
    door.says(SAID, phone="+51999999999", metadata={"note": SAID, "card": 4111111111111111})
    door.says(SAID)
    assert said() == [CLEANED, CLEANED]
    assert Chunk.objects.filter(metadata__note=CLEANED).count() == 1
    reply_to_all()
    send_all()
    assert Chunk.objects.get(role="ai").content == f"You said {CARD_REMOVED} and {REDACTED}."
    assert Turn.objects.get().draft == f"You said {CARD_REMOVED} and {REDACTED}."
    session = Conversation.objects.get()
    door.call("POST", f"/conversations/{session.pk}/send", {"content": SAID}, **{"Idempotency-Key": "k"})
    door.call("POST", f"/conversations/{session.pk}/steps", {"description": SAID})
    door.call("POST", f"/conversations/{session.pk}/close", {})
    assert remember.remember_ended() == 1
    nothing_left()
    assert CARD not in json.dumps([request.body for request in model.requests]), "the model was not told"


def test_the_back_office_keeps_none(strict: Client, manager: Any, session: Conversation) -> None:
    do(manager, session, "take-over")
    do(manager, session, "reply", text=SAID)
    corrections.correct(session.pk, 3, SAID, actor=SYSTEM, now=timezone.now())
    edit_details(session.pk, actor=SYSTEM, now=timezone.now(), summary=SAID, goal=SAID, topic=SAID)
    do(manager, session, "add-step", text=SAID)
    seed_helpers.append_chunk(session.pk, "user", SAID)
    nothing_left()
    assert Conversation.objects.get().summary == CLEANED


def test_a_provider_s_message_is_kept_without_it(strict: Client) -> None:
    with FakeMeta() as meta:
        account_at(meta, strict)
        post_whatsapp(meta.text_webhook(SAID, sender="51999999999"))
        post_whatsapp(meta.text_webhook(SAID, sender="51999999999"))
    assert said() == [CLEANED, CLEANED]
    nothing_left()


def test_raw_events_are_kept_without_it_and_can_be_replayed(strict: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = "411111111111116"  # whoever it is: addresses are no texts
    message = {"from": sender, "id": "w1", "timestamp": str(int(time.time())), "text": {"body": SAID}, "type": "text"}
    with FakeMeta() as meta:
        account_at(meta, strict)
        with monkeypatch.context() as broken:
            broken.setattr(messages, "settle", lambda *_: 1 / 0)
            post_whatsapp(meta.webhook(messages=[message]))
        kept = InboundEvent.objects.get()
        assert kept.reason == "processing_failed"
        assert CLEANED in json.dumps(kept.raw)
        assert sender in json.dumps(kept.raw)
        nothing_left()
        assert replay.replay(kept.pk, timezone.now()).settled
    assert said() == [CLEANED]


def test_what_is_told_on_the_phone_is_kept_without_it(strict: Client, settings: Any) -> None:
    from conversations.services.tenants import setup

    settings.PUBLIC_BASE_URL = "https://convo.example"
    settings.VOICE_REPLY_SECONDS = 0.0
    with FakePlivo() as plivo:
        setup.create_channel_account(
            strict, channel="voice", provider="plivo", address="+1 415 555 0000", credentials=plivo.credentials
        )
        phone = Phone(plivo)
        phone.dials()
        phone.says("it is 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")
    assert said() == [f"it is {CARD_REMOVED}"]


def test_agents_elsewhere_leave_none(door: Door, strict: Client) -> None:
    body = {"userId": "+51999999999", "subDomain": "shop", "metadata": {"note": SAID}}
    _, started = door.call("POST", "/api/v1/conversations", body)
    at = f"/api/v1/conversations/{started['data']['sessionId']}"
    door.call("POST", f"{at}/messages", {"subDomain": "shop", "role": "user", "content": SAID})
    door.call("PATCH", f"{at}/context", {"subDomain": "shop", "context": {"note": [SAID]}})
    assert said() == [CLEANED]
    nothing_left()


# --- rules that change -----------------------------------------------------------------------------------------------
def test_rules_hold_from_the_next_message_on_in_every_process(door: Door, shop: Client) -> None:
    """Whoever changed them: the statement itself says that the client's are others by now."""
    door.says(SAID)
    Client.objects.filter(pk=shop.pk).update(redaction_patterns=[r"SECRET-\d+"])
    door.says(SAID)
    Client.objects.filter(pk=shop.pk).update(redaction_patterns=[], redact_cards=False)
    door.says(SAID)
    door.says(SAID, user_id="bob")
    Client.objects.filter(pk=shop.pk).update(redact_cards=True)
    door.says("Hello 4111111111111111", user_id="bob")
    door.says("Hello 4111111111111111", user_id="carl")
    assert said() == [
        f"My card is {CARD_REMOVED}, my code SECRET-77.",
        CLEANED,
        SAID,
        SAID,
        *[f"Hello {CARD_REMOVED}"] * 2,
    ]


def test_it_costs_no_statement(door: Door, strict: Client) -> None:
    door.says("Hello")
    for text in (SAID, "and so on"):
        with CaptureQueriesContext(connection) as seen:
            door.says(text)
        assert len([query for query in seen.captured_queries if "conversation" in query["sql"]]) == 1


def test_what_was_kept_under_other_rules_is_not_shown_to_a_model(door: Door, shop: Client, model: FakeOpenAI) -> None:
    Client.objects.filter(pk=shop.pk).update(redact_cards=False)
    door.says(SAID, name="Ann")
    session = Conversation.objects.get()
    Conversation.objects.update(summary=SAID, goal=SAID, topic=SAID, variables={"number": CARD})
    Chunk.objects.filter(conversation=session, role="memory").update(content=SAID)
    seed_helpers.add_step(session.pk, SAID)
    Client.objects.filter(pk=shop.pk).update(redact_cards=True, redaction_patterns=[r"SECRET-\d+"])
    reply_to_all()
    shown = json.dumps([request.body for request in model.requests])
    assert CARD not in shown
    assert "SECRET-77" not in shown
    assert shown.count(CARD_REMOVED) >= 5
    assert CARD not in json.dumps(Turn.objects.get().prompt)


def test_notes_that_are_kept_on_the_way_are_clean(door: Door, strict: Client, model: FakeOpenAI) -> None:
    door.says("Hello")
    session = Conversation.objects.get()
    for number in range(5):
        seed_helpers.append_chunk(session.pk, "user", f"Message {number}")
    Chunk.objects.filter(content="Message 3").update(content=SAID)
    summaries.request_summary(Conversation.objects.get(), 8)
    assert summaries.summarise_due() == 1
    assert RollingSummary.objects.get().upto == 8
    assert Conversation.objects.get().summary == f"You said {CARD_REMOVED} and {REDACTED}."
    assert CARD not in json.dumps(model.requests[-1].body)


# --- where they are set ----------------------------------------------------------------------------------------------
def policies(**changes: str) -> dict[str, str]:
    usual = {"stale_after": "10 minutes", "expire_after": "24 hours", "archive_after": "30 days"}
    usual |= {"longest_wait": "6 seconds", "hand_back_after": "2 hours", "when_away": "ask"}
    usual |= {"default_goal": "Sell", "redact_cards": "on"}
    return usual | changes


def test_managers_set_the_patterns_and_no_bad_one(manager: Any, agent: Any, door: Door, shop: Client) -> None:
    path = reverse("admin:conversations_client_change", args=[shop.pk])
    refused = manager.post(path, policies(redaction_patterns="SECRET-\\d+\n(x"))
    assert "Pattern 2 is not a pattern of RE2" in refused.content.decode()
    assert manager.post(path, policies(redaction_patterns="SECRET-\\d+\r\n\r\nNO \\d+\n")).status_code == 302
    shop.refresh_from_db()
    assert (shop.redact_cards, shop.redaction_patterns) == (True, [r"SECRET-\d+", r"NO \d+"])
    page = manager.get(path).content.decode()
    assert "SECRET-\\d+\nNO \\d+" in page
    assert agent.post(path, policies(redaction_patterns="")).status_code == 403
    door.says(SAID)
    assert said() == [CLEANED]


def test_no_other_way_leads_in_what_cannot_be_patterns(shop: Client) -> None:
    shop.redaction_patterns = ["(x"]
    with pytest.raises(ValidationError):
        shop.full_clean()
    for wrong in ([7], {}, ["x"] * 21):
        with pytest.raises(IntegrityError), transaction.atomic():
            Client.objects.filter(pk=shop.pk).update(redaction_patterns=wrong)


def test_logs_hold_no_card() -> None:
    from convo_project.logs import PrivateFormatter

    record = logging.LogRecord("convo", logging.ERROR, "x.py", 1, "it was %s", (CARD,), None)
    assert PrivateFormatter().format(record) == f"it was {CARD_REMOVED}"


def test_a_turn_keeps_its_tools_calls_clean(door: Door, strict: Client, model: FakeOpenAI) -> None:
    Assistant.objects.filter(client=strict).update(uses_tools=True)
    door.says("Hello")
    [claim] = leases.claim(timezone.now(), 1)
    from conversations.engines.contract import Reply, ToolAction, ToolCall

    call = ToolCall("set_topic", json.dumps({"topic": SAID}), SAID)
    reply = Reply(SAID, "openai", tool_actions=(ToolAction("set_topic", {"topic": SAID}),), tool_calls=(call,))
    assert pipeline.commit(claim, reply, timezone.now()) == "committed"
    assert Conversation.objects.get().topic == CLEANED
    nothing_left()


def test_a_process_remembers_the_rules_that_it_read_last(shop: Client) -> None:
    default = redaction.rules_of(None)
    assert default.cards
    assert redaction.last_known_rules(shop.pk) == default
    shop.redaction_patterns = ["a"]
    assert redaction.remember_rules(shop) == redaction.last_known_rules(shop.pk) == redaction.rules_of(shop) != default
    shop.redact_cards, shop.redaction_patterns = False, ["b"]
    assert redaction.remember_rules(shop).patterns == redaction.last_known_rules(shop.pk).patterns == ("b",)
    assert not redaction.last_known_rules(shop.pk).cards
    shop.redact_cards, shop.redaction_patterns = True, []
    assert redaction.remember_rules(shop) == redaction.last_known_rules(shop.pk) == default


def test_so_many_clients_rules_are_remembered_and_all_of_them_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MOST_KNOWN", 2)
    clients = [Client(redaction_patterns=[f"p{number}"]) for number in range(3)]
    for client in clients[:2]:
        redaction.remember_rules(client)
        redaction.remember_rules(clients[0])
    assert [redaction.last_known_rules(client.pk).patterns for client in clients] == [("p0",), ("p1",), ()]
    redaction.remember_rules(clients[2])
    assert [redaction.last_known_rules(client.pk).patterns for client in clients] == [(), (), ("p2",)]
