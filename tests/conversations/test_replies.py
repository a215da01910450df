"""Replies: what the engine is given, what overtakes it, and what happens when it fails."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, Usage
from conversations.models import Chunk, Conversation, ConversationEvent, Message, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import leases, pipeline
from conversations.services.tenants import setup
from conversations.services.transitions import closing
from tests.conftest import reply_to_all, send_all
from tests.fakes.openai import FakeOpenAI
from tests.prompts import heard

pytestmark = pytest.mark.django_db


class Double:
    """An engine that does what it is told, and between being asked and answering whatever `meanwhile` does."""

    name = "offline"

    def __init__(self, *answers, meanwhile=lambda: None):
        self.answers, self.meanwhile, self.asked = list(answers), meanwhile, []

    def reply(self, request):
        self.asked.append(request)
        self.meanwhile()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Reply(text=answer, engine=self.name, model="m", usage=(Usage("m", 3, 5),))


@pytest.fixture
def engine(monkeypatch):
    def install(*answers, meanwhile=lambda: None):
        double = Double(*answers, meanwhile=meanwhile)
        monkeypatch.setitem(registry.ENGINES, "offline", double)
        return double

    return install


def due_now():
    Conversation.objects.update(reply_due_at=timezone.now())


def test_a_reply_is_a_chunk_and_a_message_and_a_turn_that_says_what_it_cost(door, engine):
    engine("Hello Ann")
    conversation_id = door.says("Hello")["conversation_id"]
    assert reply_to_all() == 1

    conversation = Conversation.objects.get()
    chunk = Chunk.objects.get(role="ai")
    assert (chunk.content, chunk.position, conversation.last_position) == ("Hello Ann", 4, 4)
    assert (conversation.reply_owed, conversation.reply_attempts) == (False, 0)
    turn = Turn.objects.get()
    assert (turn.status, turn.chunk, turn.tokens_in, turn.tokens_out) == ("committed", chunk, 3, 5)
    assert turn.prompt["messages"][-1]["role"] == "user"
    assert heard(turn.prompt["messages"]) == ["Hello"]
    assert door.get(f"/conversations/{conversation_id}")["reply_owed"] is False
    assert send_all() == 1


def test_the_engine_sees_goal_summary_steps_memory_and_the_last_chunks(door, engine):
    double = engine("ok")
    conversation_id = door.says("first")["conversation_id"]
    Conversation.objects.update(summary="They moved house.", goal="Sell a roof")
    door.call("POST", f"/conversations/{conversation_id}/steps", {"description": "Ask the address"})
    done = door.call("POST", f"/conversations/{conversation_id}/steps", {"description": "Say hello"})[1]["data"]["id"]
    door.call("PATCH", f"/conversations/{conversation_id}/steps/{done}", {"status": "complete"})
    for number in range(12):
        door.says(f"message {number}")
        if number == 1:
            door.call("POST", f"/conversations/{conversation_id}/send", {"content": "An answer"})
    reply_to_all()

    messages = double.asked[0].prompt.messages
    system = messages[0]["content"]
    assert messages[0]["role"] == "system"
    assert "You are Ada, of the shop." in system
    assert "Sell a roof" in system
    assert "Ask the address" in system
    assert "Say hello" not in system
    everything = "\n".join(m["content"] for m in messages)
    assert "They moved house." in everything
    assert "message 11" in everything
    assert "message 1\n" not in everything, "only the last ten chunks"
    assert double.asked[0].pending_steps == ("Ask the address",)


def test_global_memory_is_not_touched_while_the_session_is_open(door, engine, django_assert_num_queries):
    """What an earlier session left is in the opening chunk; what ends meanwhile stays out until the next one."""
    double = engine("ok")
    old = door.says("old", user_id="bob", phone="+51999999998")["conversation_id"]
    closing.close(old, ended_by="system", actor=SYSTEM, now=timezone.now())
    Conversation.objects.filter(pk=old).update(summary="Wants a red roof.")
    door.says("new", user_id="bob")
    Conversation.objects.filter(pk=old).update(summary="SECRET OF LATER")
    reply_to_all()

    asked = double.asked[-1]
    everything = "\n".join(m["content"] for m in asked.prompt.messages)
    assert "Wants a red roof." in everything
    assert "SECRET OF LATER" not in everything


def test_preparing_a_prompt_reads_only_the_sessions_own_tables(door, engine):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    engine("ok")
    door.says("Hello")
    [claim] = leases.claim(timezone.now(), 1)
    with CaptureQueriesContext(connection) as seen:
        pipeline.prepare(claim)
    tables = {
        word.strip('"') for query in seen.captured_queries for word in query["sql"].split() if word.startswith('"')
    }
    named = {name.split('"."')[0] for name in tables}
    known = {table for table in connection.introspection.table_names() if table in named}
    allowed = {"conversations", "conversation_turns", "conversation_chunks", "conversation_steps", "assistants"}
    allowed |= {"chunk_corrections", "conversation_summaries", "contacts", "clients"}
    assert known <= allowed
    assert len(seen) <= 6


def test_a_message_during_the_reply_drops_the_draft(door, engine):
    said = iter(["and blue?"])

    def meanwhile():
        for text in said:
            door.says(text)

    double = engine("red!", "red and blue!", meanwhile=meanwhile)
    door.says("red?")
    assert reply_to_all() == 2

    assert [c.content for c in Chunk.objects.filter(role="ai")] == ["red and blue!"]
    assert [t.status for t in Turn.objects.order_by("started_at")] == ["overtaken", "committed"]
    assert Turn.objects.get(status="overtaken").draft == "red!"
    assert heard(double.asked[1].prompt.messages) == ["red?", "and blue?"]


def test_who_never_stops_writing_is_answered_on_the_third_draft(door, engine):
    count = iter(range(4))

    def meanwhile():
        for number in count:
            door.says(f"more {number}")
            return

    engine("draft", meanwhile=meanwhile)
    door.says("Hello")
    reply_to_all()

    assert [t.status for t in Turn.objects.order_by("started_at")] == [
        *("overtaken", "overtaken", "committed"),
        *("overtaken", "committed"),
    ]
    assert Conversation.objects.get().reply_owed is False


def test_nothing_is_said_after_a_close(door, engine):
    conversation_id = door.says("Hello")["conversation_id"]
    engine("late", meanwhile=lambda: door.call("POST", f"/conversations/{conversation_id}/close", {}))
    reply_to_all()

    assert not Chunk.objects.filter(role="ai").exists()
    turn = Turn.objects.get()
    assert (turn.status, turn.code, turn.draft) == ("dropped", "ended", "late")


def test_nothing_is_said_after_a_send_by_api(door, engine):
    conversation_id = door.says("Hello")["conversation_id"]
    engine("late", meanwhile=lambda: door.call("POST", f"/conversations/{conversation_id}/send", {"content": "mine"}))
    reply_to_all()

    assert [c.content for c in Chunk.objects.filter(role="ai")] == ["mine"]
    assert Turn.objects.get().code == "answered"


def test_nothing_is_said_after_a_takeover(door, engine):
    door.says("Hello")
    engine("late", meanwhile=lambda: Conversation.objects.update(taken_over_at=timezone.now()))
    reply_to_all()

    assert not Message.objects.exists()
    assert Turn.objects.get().code == "taken_over"
    assert door.says("Anybody?")["duplicate"] is False
    assert reply_to_all() == 0, "a person has it"


def test_a_failing_engine_is_tried_again_then_staff_are_called_and_the_fallback_said_once(door, engine, settings):
    settings.REPLY_ATTEMPTS = 3
    engine(EngineError("away", code="http_503", retryable=True))
    door.says("Hello")
    for _ in range(3):
        due_now()
        assert reply_to_all() == 1
    conversation = Conversation.objects.get()

    assert [t.status for t in Turn.objects.all()] == ["failed"] * 3
    assert [t.code for t in Turn.objects.all()] == ["http_503"] * 3
    assert conversation.reply_owed is False
    assert conversation.needs_staff_since is not None
    assert conversation.needs_staff_reason.startswith("The provider answered with status 503.")
    assert [c.content for c in Chunk.objects.filter(role="ai")] == [
        "Sorry, I cannot answer right now. A colleague will get back to you."
    ]

    door.says("Hello?")
    for _ in range(3):
        due_now()
        reply_to_all()
    assert Chunk.objects.filter(role="ai").count() == 1, "the fallback is said once"
    assert ConversationEvent.objects.filter(kind="fallback_said").count() == 1

    engine("I am back")
    door.says("Still there?")
    reply_to_all()
    assert Chunk.objects.filter(role="ai").last().content == "I am back"


def test_a_permanent_failure_is_not_tried_again(door, engine):
    engine(EngineError("no", code="unauthorized", retryable=False))
    door.says("Hello")
    assert reply_to_all() == 1
    assert Conversation.objects.get().needs_staff_since is not None


def test_an_engine_that_crashes_is_a_failed_turn(door, engine):
    engine(RuntimeError("the customer said: secret"))
    door.says("Hello")
    reply_to_all()
    turn = Turn.objects.get()
    assert (turn.status, turn.code) == ("failed", "engine_crashed")
    assert "secret" not in turn.reason


def test_the_wait_asked_for_is_kept(door, engine):
    engine(EngineError("slow down", code="rate_limited", retryable=True, retry_after=120))
    before = timezone.now()
    door.says("Hello")
    reply_to_all()
    assert Conversation.objects.get().reply_due_at >= before + timedelta(seconds=120)


def test_a_dead_dispatchers_turn_is_taken_over_when_its_lease_is_over(door, engine):
    engine("Hello")
    door.says("Hello")
    [lost] = leases.claim(timezone.now(), 10)
    assert leases.claim(timezone.now(), 10) == [], "one turn at a time"
    later = timezone.now() + timedelta(hours=1)
    assert leases.recover(later) == 1
    [again] = leases.claim(later, 10)
    assert again.turn_id != lost.turn_id
    assert pipeline.commit(lost, Reply("too late", "offline"), later) == "abandoned"
    assert not Chunk.objects.filter(role="ai").exists()


def test_a_turn_that_kills_its_process_is_stopped_by_its_own_count(door, engine, settings):
    settings.REPLY_ATTEMPTS = 2
    double = engine("never asked")
    door.says("Hello")
    now = timezone.now()
    for hours in range(2):
        assert len(leases.claim(now + timedelta(hours=hours), 10)) == 1
        leases.recover(now + timedelta(hours=hours, minutes=30))
    [claim] = leases.claim(now + timedelta(hours=3), 10)
    assert claim.exhausted
    pipeline.fail(claim, EngineError("stop", code="exhausted", retryable=False), now)
    assert double.asked == []
    assert Conversation.objects.get().needs_staff_since is not None


def test_openai_writes_the_reply_over_http(door, settings):
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.reply = lambda messages: f"You said: {heard(messages)[-1]}"
        setup.create_assistant(
            door.shop, "gpt", make_default=True, name="GPT", engine="openai", model="tiny", temperature=0.2
        )
        door.says("Hello")
        fake.then("status", status=500)
        assert reply_to_all() == 1
        due_now()
        assert reply_to_all() == 1

    assert Chunk.objects.get(role="ai").content == "You said: Hello"
    assert [t.code for t in Turn.objects.order_by("started_at")] == ["http_500", ""]
    assert fake.requests[-1].body["model"] == "tiny"
    assert fake.requests[-1].body["temperature"] == 0.2
    assert fake.requests[-1].body["messages"] == Turn.objects.get(status="committed").prompt["messages"]


def test_who_switched_replies_off_is_only_recorded(door):
    door.shop.auto_reply = False
    door.shop.save()
    door.says("Hello")
    door.says("Hello?")
    assert Conversation.objects.get().reply_owed is False
    assert reply_to_all() == 0
