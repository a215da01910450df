"""Drafts: what is noted of one, what is said and done with it, and what a failure leaves."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from conversations.engines.contract import EngineError, Reply, ToolAction, ToolCall, Usage
from conversations.models import Assistant, Chunk, Contact, Conversation, ConversationEvent, Message, Turn
from conversations.models import ToolCall as MadeCall
from conversations.services.replies import drafts, failures, leases, pipeline
from memory.context import Prompt
from tests import factories
from tests.conversations.meta_doors import account_at, post
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
BROKEN = EngineError("No.", code="http_400", retryable=False)
PERSON_WANTED = ToolAction("ask_for_human", {"reason": "wants a refund"})
GOODBYE = ToolAction("end_conversation")


@pytest.fixture
def conversation(door: Any) -> Conversation:
    """An open conversation whose message is to be answered."""
    door.says("Hello")
    return Conversation.objects.get()


def claim() -> leases.OwedTurn:
    [claimed] = leases.claim(timezone.now() + HOUR, 10)
    return claimed


def streamed(conversation: Conversation) -> leases.StreamedTurn:
    """Return an attempt at a reply that somebody reads along."""
    now = timezone.now()
    Conversation.objects.update(reply_owed=False)
    turn = {"conversation": conversation, "attempt": 0, "inbound_sequence": 1, "lease_until": now, "streamed": True}
    Turn.objects.create(**turn)
    [claimed] = leases.claim_streamed(now, 1)
    return claimed


def commit(text: str = "Certainly.", turn: Any = None, code: str = "", **more: Any) -> Turn:
    ours = turn or claim()
    pipeline.commit(ours, Reply(text, more.pop("engine", "offline"), **more), timezone.now(), code=code)
    return Turn.objects.get(pk=ours.turn_id)


def fail(error: EngineError = BROKEN) -> Conversation:
    pipeline.fail(claim(), error, timezone.now())
    return Conversation.objects.get()


def owe_again() -> None:
    Conversation.objects.update(reply_owed=True, reply_due_at=timezone.now())


# --- what is noted ----------------------------------------------------------------------------------------------------
def test_all_that_is_known_of_a_draft_is_noted_on_its_turn(conversation):
    call = ToolCall("set_topic", '{"topic": "x"}', "Done.")
    turn = commit(
        *("Certainly.",),
        engine="openai",
        model="gpt-x",
        usage=(Usage("gpt-x", 3, 5, 2), Usage("gpt-x", 30, 50, 20)),
        finish_reason="length",
        calls=2,
        prompt=Prompt(({"role": "user", "content": "smaller"},), ()),
        first_token_ms=7,
        last_token_ms=9,
        confidence=0.25,
        called_back=True,
        tool_calls=(call,),
    )
    assert (turn.draft, turn.engine, turn.model, turn.finish_reason) == ("Certainly.", "openai", "gpt-x", "length")
    assert (turn.tokens_in, turn.tokens_out, turn.tokens_cached, turn.calls) == (33, 55, 22, 2)
    assert (turn.first_token_ms, turn.last_token_ms, turn.confidence, turn.called_back) == (7, 9, 0.25, True)
    assert turn.tool_calls == [asdict(call)]
    assert turn.prompt["messages"] == [{"role": "user", "content": "smaller"}]
    assert turn.ended_at is not None


def test_what_an_engine_does_not_say_stays_as_it_was_prepared(conversation):
    ours = claim()
    pipeline.prepare(ours)
    Turn.objects.update(model="prepared", calls=1)
    before = Turn.objects.get()
    turn = commit(turn=ours, engine="", calls=2)
    assert (turn.engine, turn.model, turn.calls) == (before.engine, "prepared", 3)
    assert turn.prompt == before.prompt
    assert turn.tool_calls is None


def test_a_draft_is_cleaned_before_it_is_noted_or_said(conversation):
    turn = commit("Yours is 4111 1111 1111 1111")
    assert "4111" not in turn.draft
    assert Chunk.objects.get(role="ai").content == turn.draft


# --- what is said -----------------------------------------------------------------------------------------------------
def test_an_answer_ends_the_count_of_what_failed_before(conversation):
    failed = {"reply_attempts": 1, "reply_crashes": 1, "drafts_overtaken": 1, "replies_failed": 2}
    Conversation.objects.update(**failed, fallback_sent=True)
    assert commit().status == "committed"
    found = Conversation.objects.get()
    assert {getattr(found, name) for name in failed} == {0}
    assert (found.fallback_sent, found.reply_owed, found.burst_began_at) == (False, False, None)
    assert (found.needs_staff_since, found.taken_over_at, found.status) == (None, None, "active")


def test_half_an_answer_leaves_the_count_of_what_failed_before(conversation):
    Conversation.objects.update(replies_failed=2, fallback_sent=True)
    turn = commit(turn=streamed(conversation), code="stopped")
    found = Conversation.objects.get()
    assert (turn.status, turn.code) == ("committed", "stopped")
    assert (found.replies_failed, found.fallback_sent) == (2, True)


def test_silence_is_told_to_staff_and_to_nobody_else(conversation):
    long_ago = timezone.now() - HOUR
    commit("")
    found = Conversation.objects.get()
    assert found.needs_staff_since is not None
    assert found.needs_staff_reason == "The assistant said nothing to the last message."
    assert not found.reply_owed
    assert not Chunk.objects.filter(role="ai").exists()
    assert ConversationEvent.objects.get(kind="nothing_said").actor == "assistant"
    Conversation.objects.update(needs_staff_since=long_ago)
    owe_again()
    commit("")
    assert Conversation.objects.get().needs_staff_since == long_ago, "they have waited since then"


def test_who_does_something_is_not_silent(conversation):
    commit("", tool_actions=(ToolAction("set_topic", {"topic": "Parcels"}),))
    found = Conversation.objects.get()
    assert (found.topic, found.needs_staff_since) == ("Parcels", None)
    assert not found.reply_owed, "no decision of staff came meanwhile"
    assert not ConversationEvent.objects.filter(kind="nothing_said").exists()


def test_an_overtaken_answer_quotes_the_newest_message_of_a_person_that_it_has_seen(meta: FakeMeta, shop):
    """Neither a colleague's word nor another conversation's message is quoted."""
    account_at(meta, shop)
    post(meta.text_webhook("Question", message_id="wamid.q"), "whatsapp")
    conversation = Conversation.objects.get()
    Conversation.objects.update(drafts_overtaken=pipeline.DRAFTS_DROPPED_AT_MOST)
    ours = claim()
    post(meta.text_webhook("And", message_id="wamid.and"), "whatsapp")
    at = Conversation.objects.get().last_position
    Chunk.objects.create(conversation=conversation, position=at + 1, role="system", content="A note")
    Conversation.objects.update(last_position=at + 1)
    other = factories.ConversationFactory(client=shop, last_position=99)
    Chunk.objects.create(conversation=other, position=99, role="user", content="Elsewhere", message_id="wamid.other")
    commit("Answer", ours)
    assert Message.objects.get().reply_to == "wamid.q"
    found = Conversation.objects.get(pk=conversation.pk)
    assert (found.reply_owed, found.drafts_overtaken) == (True, 0)


def test_what_no_provider_delivered_is_not_quoted(conversation, door):
    Conversation.objects.update(drafts_overtaken=pipeline.DRAFTS_DROPPED_AT_MOST)
    ours = claim()
    door.says("And")
    commit("Answer", ours)
    assert Message.objects.get().reply_to == ""


# --- a person, and the end --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["A colleague will help.", ""])
def test_a_person_who_is_wanted_is_called_and_the_last_words_may_leave(conversation, text):
    turn = commit(text, tool_actions=(PERSON_WANTED,))
    found = Conversation.objects.get()
    assert (turn.status, turn.code) == ("committed", "")
    assert found.taken_over_at is not None
    assert (found.needs_staff_reason, found.status) == ("wants a refund", "active")
    [said] = Chunk.objects.filter(role="ai")
    assert said.content == (text or Assistant.objects.get().takeover_sentence)
    assert Message.objects.get().unconditional


def test_a_person_may_be_wanted_without_a_reason(conversation):
    commit(tool_actions=(ToolAction("ask_for_human", {"reason": ""}),))
    assert Conversation.objects.get().needs_staff_reason == "the assistant asks for a person"


@pytest.mark.parametrize(("actions", "code"), [((PERSON_WANTED,), "human_wanted"), ((), "")])
def test_a_reader_is_told_that_a_person_is_wanted(conversation, actions, code):
    assert commit(turn=streamed(conversation), tool_actions=actions).code == code


@pytest.mark.parametrize("how", ["the model ends it", "a rule of the assistant's"])
def test_after_a_goodbye_the_conversation_ends_with_the_last_words(conversation, how):
    ours = claim()
    if how == "a rule of the assistant's":
        Turn.objects.update(rule="goodbye")
    commit("Goodbye!", ours, tool_actions=(GOODBYE,) if how == "the model ends it" else ())
    found = Conversation.objects.get()
    assert (found.status, found.ended_by) == ("closed", "user")
    assert Message.objects.get().status == "queued"
    ended = ConversationEvent.objects.filter(to_status="closed").get()
    assert (ended.actor, ended.data.get("reason", ended.cause)) == ("contact", "said goodbye")


@pytest.mark.parametrize("why", ["something was said since", "it was stopped", "another rule matched"])
def test_there_is_no_end_where(conversation, door, why):
    if why == "it was stopped":
        commit("Good", streamed(conversation), code="stopped", tool_actions=(GOODBYE,))
    elif why == "another rule matched":
        ours = claim()
        Turn.objects.update(rule="human")
        commit("Goodbye!", ours)
    else:
        Conversation.objects.update(drafts_overtaken=pipeline.DRAFTS_DROPPED_AT_MOST)
        ours = claim()
        door.says("Wait")
        commit("Goodbye!", ours, tool_actions=(GOODBYE,))
    assert Conversation.objects.get().status == "active"


# --- failures ---------------------------------------------------------------------------------------------------------
def test_a_reply_that_is_given_up_is_owed_no_more_and_counted(conversation):
    Conversation.objects.update(reply_crashes=1)
    found = fail()
    assert (found.replies_failed, found.reply_owed, found.reply_attempts, found.reply_crashes) == (1, False, 0, 0)
    assert found.needs_staff_since is not None
    assert found.taken_over_at is None


@pytest.mark.parametrize(
    ("most", "before", "reason"),
    [(0, 5, None), (2, 0, None), (2, 1, "2 replies in a row failed. "), (1, 0, "A reply failed. ")],
)
def test_after_so_many_failures_a_person_answers(conversation, most, before, reason):
    Assistant.objects.update(human_after_failures=most)
    Conversation.objects.update(replies_failed=before)
    found = fail()
    assert (found.taken_over_at is not None) is (reason is not None)
    if reason:
        assert found.needs_staff_reason == f"{reason}{failures.explain('http_400')}"[:200]
        assert Message.objects.get().unconditional, "the fallback leaves all the same"


def test_a_conversation_without_an_assistant_gives_no_reply_to_a_person(conversation):
    Conversation.objects.update(assistant=None, replies_failed=9)
    assert fail().taken_over_at is None


def test_what_takes_processes_down_is_a_person_s_at_once(conversation, settings):
    settings.REPLY_ATTEMPTS = 1
    Conversation.objects.update(reply_crashes=2)
    found = fail(EngineError("It died.", code="crashed", retryable=False))
    assert found.taken_over_at is not None
    assert found.needs_staff_reason.startswith("A reply failed. ")


@pytest.mark.parametrize("made", [True, False])
def test_staff_hear_that_a_tool_was_called_of_which_the_person_knows_nothing(conversation, made):
    MadeCall.objects.create(
        client=conversation.client,
        conversation=conversation,
        name="refund",
        key="k",
        status="answered" if made else "refused",
        changes_something=True,
    )
    found = fail()
    assert found.needs_staff_reason.startswith(drafts.TOOL_CALLED) is made
    assert len(found.needs_staff_reason) <= 200


def test_a_call_that_was_approved_for_a_reply_that_is_given_up_is_not_made(conversation):
    approved = MadeCall.objects.create(
        client=conversation.client, conversation=conversation, name="refund", key="k", status="approved"
    )
    fail()
    approved.refresh_from_db()
    assert approved.status != "approved"


def test_an_overtaken_draft_is_counted_and_costs_no_try(conversation, door):
    Conversation.objects.update(reply_crashes=1)
    ours = claim()
    door.says("And")
    turn = commit("Answer", ours)
    found = Conversation.objects.get()
    assert (turn.status, turn.draft) == ("overtaken", "Answer")
    assert (found.drafts_overtaken, found.reply_attempts, found.reply_crashes, found.reply_owed) == (1, 0, 0, True)


@pytest.mark.parametrize(("what", "owed"), [("opted_out", False), ("taken_over", True)])
def test_to_who_opted_out_nothing_is_owed_and_after_a_takeover_it_is(conversation, what, owed):
    now = timezone.now()
    Conversation.objects.update(reply_crashes=1)
    ours = claim()
    if what == "opted_out":
        Contact.objects.update(opted_out={"sms": {"since": now.isoformat(), "word": "stop", "by": "contact"}})
    else:
        Conversation.objects.update(taken_over_at=now, taken_over_until=now + HOUR, taken_over_name="grace")
    turn = commit("Answer", ours)
    found = Conversation.objects.get()
    assert (turn.status, turn.code, turn.draft) == ("dropped", what, "Answer")
    assert (found.reply_owed, found.reply_crashes) == (owed, int(owed))


def test_a_code_and_a_reason_are_kept_as_far_as_they_have_room(conversation):
    ours = claim()
    with transaction.atomic():
        drafts.end(Turn.objects.get(pk=ours.turn_id), "failed", timezone.now(), "c" * 41, "r" * 501)
    turn = Turn.objects.get()
    assert (turn.status, turn.code, turn.reason) == ("failed", "c" * 40, "r" * 500)


def test_the_cost_is_that_of_all_calls(conversation, monkeypatch):
    monkeypatch.setattr(drafts, "cost_of", lambda usage: Decimal(len(usage)))
    assert commit(usage=(Usage("m", 1, 1), Usage("m", 1, 1))).cost == 2
