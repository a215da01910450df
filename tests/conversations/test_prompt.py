"""Prompts from a conversation's own rows: what was delivered, who wrote, when it is, within the window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Assistant, Chunk, Client, Conversation, Message, Turn
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.replies import leases, pipeline
from conversations.services.replies.prompt_context import prompt_for, view_of
from conversations.services.staff_actions import corrections, seed_helpers, send
from memory.context import UNANSWERED, Prompt, build_prompt
from tests.conftest import Door, reply_to_all, send_all
from tests.fakes.meta import FakeMeta
from tests.memory.token_counts import BASE64, TELUGU, VOCABULARIES
from tests.prompts import heard, spoken

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(hours=25)


@pytest.fixture
def conversation(door: Door, account: Any) -> Conversation:
    """A conversation over WhatsApp in which the person wrote and nothing is owed."""
    door.says("Hello", channel="whatsapp", user_id="ann", phone="+51999999999")
    Conversation.objects.update(channel_account=account, reply_owed=False)
    return Conversation.objects.get()


def say(conversation: Conversation, text: str, actor: Actor = SYSTEM) -> Chunk:
    return send.send(conversation.pk, text, actor=actor, now=timezone.now())[0]


def prompt_of(conversation: Conversation, **more: Any) -> Prompt:
    related = ("assistant", "contact", "client", "rolling_summary")
    found = Conversation.objects.select_related(*related).get(pk=conversation.pk)
    return prompt_for(found, view_of(found, [], **more))


def states(chunk: Chunk, *statuses: str) -> None:
    """Give the chunk's messages these statuses, part by part; parts that are not there yet are added."""
    first = Message.objects.get(chunk=chunk, part=1)
    Message.objects.filter(chunk=chunk).update(parts=len(statuses), status=statuses[0])
    for part, status in enumerate(statuses[1:], start=2):
        Message.objects.create(
            conversation_id=first.conversation_id,
            chunk=chunk,
            part=part,
            parts=len(statuses),
            to_address=first.to_address,
            to_kind=first.to_kind,
            text="more",
            status=status,
        )


# --- what was delivered ----------------------------------------------------------------------------------------------
def test_it_says_that_a_message_could_not_be_sent(conversation: Conversation, meta: FakeMeta) -> None:
    say(conversation, "It is here.")
    assert spoken(prompt_of(conversation).messages) == ["It is here."], "it waits to be sent"
    meta.error_next(131026)
    send_all()
    assert Message.objects.get().status == "failed"
    assert spoken(prompt_of(conversation).messages) == ["[Not delivered: it could not be sent] It is here."]


def test_what_was_delivered_has_no_mark(conversation: Conversation, meta: FakeMeta) -> None:
    say(conversation, "It is here.")
    send_all()
    for status in ("sent", "delivered", "read"):
        Message.objects.update(status=status)
        assert spoken(prompt_of(conversation).messages) == ["It is here."]


@pytest.mark.parametrize(
    ("statuses", "mark"),
    [
        (["queued"], ""),
        (["claimed"], ""),
        (["sending"], ""),
        (["sent", "queued"], ""),
        (["failed"], "[Not delivered: it could not be sent] "),
        (["cancelled"], "[Not delivered: it was cancelled before it was sent] "),
        (["failed", "cancelled"], "[Not delivered: it could not be sent] "),
        (["unknown"], "[Delivery unknown] "),
        (["unknown", "queued"], "[Delivery unknown] "),
        (["read", "delivered", "failed", "cancelled"], "[Delivered in part: 2 of 4 parts] "),
        (["sent", "unknown"], "[Delivered in part: 1 of 2 parts] "),
    ],
)
def test_it_says_what_became_of_the_parts(conversation: Conversation, statuses: list[str], mark: str) -> None:
    states(say(conversation, "It is here."), *statuses)
    assert spoken(prompt_of(conversation).messages) == [f"{mark}It is here."]


def test_it_says_that_a_template_went_in_the_place_of_the_text(conversation: Conversation, meta: FakeMeta) -> None:
    Assistant.objects.update(template_name="we_are_back", template_language="es_PE")
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - LONG_AGO)
    say(conversation, "It is here.")
    send_all()
    assert [sent.template for sent in meta.sent] == ["we_are_back es_PE"]
    marked = "[Not delivered: the approved template we_are_back was sent instead] It is here."
    assert spoken(prompt_of(conversation).messages) == [marked]
    Message.objects.update(status="queued")
    assert spoken(prompt_of(conversation).messages) == ["It is here."], "it is to be sent again"


def test_on_the_web_nothing_is_marked(door: Door) -> None:
    conversation = seed_helpers.create_conversation(door.shop.pk, "ann", "web", "Help")
    say(conversation, "Hi")
    assert spoken(prompt_of(conversation).messages) == ["Hi"]


def test_it_reads_the_whole_window_in_one_statement(conversation: Conversation) -> None:
    queries = []
    for _ in range(2):
        for number in range(8):
            states(say(conversation, f"Message {number}"), "failed")
        with CaptureQueriesContext(connection) as seen:
            prompt_of(conversation)
        queries.append(len(seen))
    assert queries == [2, 2], "one for the conversation, one for its opening and the window"


# --- who wrote -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ({"first_name": "María", "last_name": "Gómez"}, "[Written by a human colleague, María Gómez] "),
        ({"first_name": "María"}, "[Written by a human colleague, María] "),
        ({}, "[Written by a human colleague] "),
    ],
)
def test_it_names_the_colleague_but_not_by_user_name_or_address(
    conversation: Conversation, name: dict[str, str], mark: str
) -> None:
    grace = get_user_model().objects.create_user("grace99", email="grace@shop.example", **name)
    say(conversation, "You get it on Monday.", Actor("staff", "grace99", grace.pk))
    prompt = prompt_of(conversation)
    assert spoken(prompt.messages) == [f"{mark}You get it on Monday."]
    assert "grace" not in str(prompt.messages)


# --- in turns --------------------------------------------------------------------------------------------------------
def test_a_draft_that_was_overtaken_and_sent_leaves_the_person_last(door: Door) -> None:
    """The third draft is committed although a newer message came: the next prompt ends with our own words."""
    for text in ("one", "two", "three"):
        door.says(text)
        [claim] = leases.claim(timezone.now(), 1)
        request, engine = pipeline.prepare(claim) or pytest.fail("not ours")
        door.says(f"{text}, and more")
        pipeline.commit(claim, Reply("Certainly.", engine), timezone.now())
    assert Chunk.objects.filter(role="ai").count() == 1
    assert Conversation.objects.get().reply_owed
    [claim] = leases.claim(timezone.now(), 1)
    request, _ = pipeline.prepare(claim) or pytest.fail("not ours")
    assert [message["role"] for message in request.prompt.messages] == ["system", "user", "assistant", "user"]
    assert heard(request.prompt.messages)[-1] == "three, and more"
    assert request.prompt.messages[-1]["content"] == UNANSWERED


def test_a_redaction_takes_one_message_out_of_a_joined_one(door: Door) -> None:
    for text in ("My name is Ann", "My password is tangerine4711", "Where is my parcel?"):
        door.says(text)
    reply_to_all()
    kept = Turn.objects.get()
    secret = Chunk.objects.get(content__contains="tangerine")
    [part] = [part for part in kept.prompt["parts"] if part["position"] == secret.position]
    content = kept.prompt["messages"][part["message"]]["content"]
    assert content[part["start"] : part["end"]] == secret.content

    corrections.redact(secret.conversation_id, secret.position, actor=SYSTEM, now=timezone.now())
    kept.refresh_from_db()
    assert "tangerine" not in str(kept.prompt)
    assert heard(kept.prompt["messages"]) == ["My name is Ann", "[redacted]", "Where is my parcel?"]
    shown = [part for part in kept.prompt["parts"] if part["name"] == "entry"]
    texts = [kept.prompt["messages"][part["message"]]["content"][part["start"] : part["end"]] for part in shown]
    assert texts == ["My name is Ann", "[redacted]", "Where is my parcel?"]


# --- date and time ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("UTC", "Tuesday, 1 December 2026, 02:30 (UTC, UTC+00:00)"),
        ("America/Lima", "Monday, 30 November 2026, 21:30 (America/Lima, UTC-05:00)"),
        ("Asia/Kolkata", "Tuesday, 1 December 2026, 08:00 (Asia/Kolkata, UTC+05:30)"),
        ("Not/There", "Tuesday, 1 December 2026, 02:30 (UTC, UTC+00:00)"),
    ],
)
def test_it_is_the_client_s_day(door: Door, zone: str, told: str) -> None:
    door.says("Are you open today?")
    Client.objects.update(time_zone=zone)
    messages = prompt_of(Conversation.objects.get(), now=datetime(2026, 12, 1, 2, 30, tzinfo=UTC)).messages
    assert told in messages[1]["content"]
    assert "2026" not in messages[0]["content"]


def test_the_clock_is_read_where_no_time_is_given(door: Door) -> None:
    door.says("What day is it?")
    reply_to_all()
    today = timezone.now()
    assert f"{today.day} {today:%B %Y}" in Turn.objects.get().prompt["messages"][1]["content"]


# --- within the window -----------------------------------------------------------------------------------------------
def counted(prompt: Prompt, counts: dict[str, int]) -> int:
    """Return the prompt's tokens: of its known messages as counted, and a token for two bytes of the English else."""
    total = 0
    for message in prompt.messages:
        content = message["content"]
        for text, tokens in counts.items():
            total += content.count(text) * tokens
            content = content.replace(text, "")
        total += len(content.encode()) // 2 + 4
    return total


@pytest.mark.parametrize("texts", [TELUGU, BASE64], ids=["Telugu", "base64"])
@pytest.mark.parametrize("vocabulary", range(len(VOCABULARIES)), ids=VOCABULARIES)
def test_a_long_conversation_stays_within_the_window_as_the_model_counts(
    door: Door, texts: tuple[tuple[str, tuple[int, ...]], ...], vocabulary: int
) -> None:
    door.says("Hello")
    conversation = Conversation.objects.get()
    Chunk.objects.bulk_create(
        Chunk(
            conversation=conversation,
            position=number,
            role="ai" if number % 2 else "user",
            content=texts[number % len(texts)][0],
        )
        for number in range(4, 305)
    )
    Conversation.objects.update(last_position=304, reply_owed=True)
    Assistant.objects.update(history_length=200)
    prompt = prompt_of(conversation, window=8_192, reserve=1_024)
    counts = {text: tokens[vocabulary] for text, tokens in texts}
    assert counted(prompt, counts) <= 8_192 - 1_024
    assert len(prompt.messages) > 30


def test_a_view_makes_smaller_prompts_for_a_model_that_counts_more(door: Door) -> None:
    door.says("word " * 1_500)
    conversation = Conversation.objects.select_related("assistant", "contact", "client").get()
    view = view_of(conversation, [], window=4_096, reserve=500, ratio=2.0)
    smaller, whole = build_prompt(view), prompt_of(conversation)
    assert sum(part.tokens for part in smaller.parts) <= (4_096 - 500) / 2
    assert sum(part.tokens for part in smaller.parts) < sum(part.tokens for part in whole.parts)
