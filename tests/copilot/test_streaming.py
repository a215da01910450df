"""Replies that are read while they are written: whatever the model, the reader and the processes do."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.models import Chunk, Conversation, Delta, Turn
from conversations.services.copilot.failures import SENTENCES
from conversations.services.copilot.feed import Reader, ReadPosition, ReplyPart
from conversations.services.replies.leases import StreamedTurn
from conversations.services.replies.streaming_writer import StreamedReply
from memory.redaction import CARDS_ONLY
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI
from tests.json_lines import json_lines
from tests.prompts import heard, spoken

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

LONG = "One two three four five six seven eight nine ten."


def test_a_reply_comes_word_by_word_and_is_kept(ann: Browser, model: FakeOpenAI) -> None:
    last_word = threading.Event()
    model.then("reply", text=LONG, every=0.05, hold=last_word)
    with ann.stream("POST", "/copilot", {"message": "Count, please", "role": "pm"}) as events:
        session = events.next("session").data
        first = events.next("delta")
        assert LONG.startswith(first.data["text"])
        assert not Chunk.objects.filter(role="ai").exists(), "it comes while it is written"
        last_word.set()
        rest = events.rest()
    done = rest[-1]
    assert done.name == "done"
    assert text_of([first, *rest]) == LONG
    assert done.data["finish_reason"] == "stop"
    assert done.data["usage"]["tokens_out"] == len(LONG) // 4
    assert done.data["message"]["html"] == f"<p>{LONG}</p>\n"
    said = ann.get(f"/copilot?session_id={session['session_id']}")["items"]
    assert [(each["role"], each["content"]) for each in said] == [("user", "Count, please"), ("ai", LONG)]
    assert Delta.objects.count() == 0
    [sent] = model.requests
    assert heard(sent.body["messages"]) == ["Count, please"]
    assert "You help as Project manager." in sent.body["messages"][0]["content"]


def test_a_session_goes_on_where_it_was(ann: Browser, model: FakeOpenAI) -> None:
    session_id = ann.ask("My roof is red.")[0].data["session_id"]
    for number in range(6):
        ann.ask(f"Message {number}", session_id=session_id)
    said = ["My roof is red.", *(f"Message {number}" for number in range(6))]
    assert heard(model.requests[-1].body["messages"]) == said, "each once, the newest last"
    [session] = ann.get("/copilot")["items"]
    assert (session["title"], session["role"]) == ("My roof is red.", "field")
    conversation = Conversation.objects.get()
    assert conversation.thread == str(conversation.pk)
    assert (conversation.is_guest, conversation.contact.is_guest) == (False, False)


def test_who_goes_away_finds_the_whole_reply(ann: Browser, model: FakeOpenAI) -> None:
    gone = threading.Event()
    model.then("reply", text=LONG, hold=gone)
    with ann.stream("POST", "/copilot", {"message": "Count"}) as events:
        session = events.next("session").data
        seen = [events.next("delta")]
    gone.set()
    with ann.stream("GET", f"/copilot/stream/{session['turn_id']}", **{"Last-Event-ID": seen[0].id}) as events:
        events.next("session")
        rest = events.rest()
    assert rest[-1].name == "done"
    assert rest[0].data["start"] == len(seen[0].data["text"]), "what was read does not come again"
    assert text_of([*seen, *rest]) == LONG
    assert Chunk.objects.get(role="ai").content == LONG


def test_two_windows_read_along_from_different_places(ann: Browser, model: FakeOpenAI) -> None:
    go_on = threading.Event()
    model.then("reply", text=LONG, hold=go_on)
    with ann.stream("POST", "/copilot", {"message": "Count"}) as one:
        turn = one.next("session").data["turn_id"]
        first = one.next("delta")
        with ann.stream("GET", f"/copilot/stream/{turn}") as other:
            other.next("session")
            second = other.next("delta")
            assert second.data["start"] == 0
            go_on.set()
            assert text_of([second, *other.rest()]) == text_of([first, *one.rest()]) == LONG
    status, envelope = ann.call("POST", "/copilot", {"message": "And again", "session_id": "nonsense"})
    assert (status, list(envelope["details"])) == (400, ["session_id"])


def test_a_reply_that_breaks_off_is_kept_marked_and_tried_again(ann: Browser, model: FakeOpenAI) -> None:
    model.then("cut", text=LONG, after=5)
    events = ann.ask("Count")
    error = events[-1].data
    assert (events[-1].name, error["code"], error["retryable"]) == ("error", "cut_off", True)
    assert text_of(events).strip() == "One two three four five"
    assert (error["message"]["content"], error["message"]["partial"]) == ("One two three four five", True)
    session_id = events[0].data["session_id"]
    model.then("reply", text=LONG)
    with ann.stream("POST", f"/copilot/sessions/{session_id}/retry") as retried:
        again = retried.rest()
    assert again[-1].name == "done"
    assert text_of(again) == LONG
    asked = model.requests[-1].body["messages"]
    assert heard(asked) == ["Count"]
    assert "One two three four five" not in spoken(asked)
    items = ann.get(f"/copilot?session_id={session_id}")["items"]
    assert [(each["content"], each["superseded"]) for each in items][1:] == [
        ("One two three four five", True),
        (LONG, False),
    ]
    assert ann.call("POST", f"/copilot/sessions/{session_id}/retry")[1]["code"] == "nothing_to_retry"


@pytest.mark.parametrize(
    ("kind", "options", "code"),
    [
        ("error", {"after": 3}, "provider_error"),
        ("silent", {"after": 3}, "timeout"),
        ("status", {"status": 401}, "unauthorized"),
        ("status", {"status": 400}, "bad_request"),
        ("status", {"status": 404, "code": "model_not_found"}, "model_not_found"),
        ("status", {"status": 400, "code": "context_length_exceeded", "times": 2}, "context_too_long"),
    ],
)
def test_errors_of_the_model_are_told_in_a_sentence(
    ann: Browser, model: FakeOpenAI, settings: Any, kind: str, options: dict[str, Any], code: str
) -> None:
    settings.OPENAI_TIMEOUT_SECONDS = 0.5 if kind == "silent" else 20
    model.then(kind, **({"text": LONG} if kind != "status" else {}), **options)
    error = ann.ask("Count")[-1]
    assert (error.name, error.data["code"]) == ("error", code)
    assert len(error.data["error"]) > 20
    assert (error.data["message"] is None) == (kind == "status")
    assert Turn.objects.get().status == "failed"


def test_a_model_that_stumbles_at_first_is_asked_again(ann: Browser, model: FakeOpenAI) -> None:
    model.then("status", times=2, status=503)
    model.then("reply", text=LONG)
    assert text_of(ann.ask("Count")) == LONG
    assert Turn.objects.get().attempt == 3


def test_a_very_long_reply_comes_whole(ann: Browser, model: FakeOpenAI) -> None:
    text = "".join(f"word{number} " for number in range(500)).strip()
    model.then("reply", text=text)
    assert text_of(ann.ask("All of it")) == text
    assert Chunk.objects.get(role="ai").content == text


def test_a_model_that_never_ends_is_stopped_and_what_it_said_is_kept(ann: Browser, model: FakeOpenAI) -> None:
    model.then("endless", text="la ", every=0.002)
    with ann.stream("POST", "/copilot", {"message": "Sing"}) as events:
        session_id = events.next("session").data["session_id"]
        events.next("delta")
        busy = ann.call("POST", "/copilot", {"message": "Well?", "session_id": session_id})
        assert (busy[0], busy[1]["code"]) == (409, "busy")
        assert ann.call("POST", f"/copilot/sessions/{session_id}/stop")[1]["data"] == {"stopping": True}
        done = events.rest()[-1]
    assert (done.name, done.data["finish_reason"]) == ("done", "stopped")
    assert done.data["message"]["content"].startswith("la la")
    assert (done.data["message"]["partial"], done.data["message"]["state"]) == (True, "stopped")
    assert ann.ask("Thanks", session_id=session_id)[-1].name == "done"


def test_a_message_that_is_sent_twice_is_said_once(ann: Browser) -> None:
    first = ann.ask("Hello", message_id="m1")
    again = ann.ask("Hello", message_id="m1")
    assert again[0].data == first[0].data
    assert text_of(again) == text_of(first)
    assert Chunk.objects.filter(role="user").count() == Conversation.objects.count() == 1


def test_what_cannot_be_stored_comes_as_a_mark(ann: Browser, model: FakeOpenAI) -> None:
    model.then("reply", text="a\x00b \ud83d c")
    assert text_of(ann.ask("Hello")) == "a\ufffdb \ufffd c"


def test_without_a_model_it_says_so(ann: Browser, settings: Any) -> None:
    settings.OPENAI_BASE_URL = ""
    assert "offline" in text_of(ann.ask("Hello"))


def test_no_card_number_is_streamed_or_kept(ann: Browser, roofers: Any, model: FakeOpenAI) -> None:
    """However the model cuts it into pieces."""
    roofers.redaction_patterns = [r"SECRET-\d+"]
    roofers.save()
    said = "You said 4111 1111 1111 1111 and SECRET-7 " + "and more and more " * 40
    model.then("reply", text=said, every=0.005)
    events = ann.ask("My card is 4111-1111-1111-1111")
    shown = text_of(events)
    assert "4111" not in shown + str([event.data for event in events])
    assert "SECRET-7" not in str([event.data for event in events])
    whole = events[-1].data["message"]["content"]
    assert whole.startswith("You said [card number removed] and [redacted] and more")
    assert whole.startswith(shown), "what was shown was right as far as it went"
    assert len(shown) > 200
    assert [chunk.content[:14] for chunk in Chunk.objects.filter(role="user")] == ["My card is [ca"]
    assert ann.get("/copilot")["items"][0]["title"] == "My card is [card number removed]"


def test_each_failure_of_a_model_has_a_sentence_of_its_own(roofers: Any) -> None:
    """The codes of memory/language_models/contract.py and of the engine; others say only that it failed."""
    codes = {
        *("bad_request", "unauthorized", "model_not_found", "parameter_refused", "no_tools", "context_too_long"),
        *("insufficient_quota", "refused", "no_room", "not_configured", "rate_limited", "overloaded", "timeout"),
        *("connect", "cut_off", "provider_error", "reasoning_shown", "too_many_calls"),
    }
    assert codes <= set(SENTENCES)
    for sentence in SENTENCES.values():
        assert sentence.endswith(".")
        assert not re.search(r"[_{}]|\bmodel\b|\bparameter\b|\btoken", sentence), "said to people who know none of it"


def test_what_is_logged_while_a_reply_is_streamed_names_its_conversation_and_turn(
    ann: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talkative:
        name = "openai"

        def reply(self, request: ReplyRequest) -> Reply:
            raise AssertionError("it streams")

        async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
            logging.getLogger("engine").warning("writing")
            yield "Hello"
            raise EngineError("It broke.", code="cut_off", retryable=False)

    monkeypatch.setitem(registry.ENGINES, "openai", Talkative())
    with json_lines() as lines:
        ann.ask("Hello?")
        turn = Turn.objects.get()
        for words in ("writing", "turn failed"):
            [line] = lines(words)
            assert (line["conversation"], line["turn"]) == (str(turn.conversation_id), str(turn.pk))


def test_each_piece_begins_where_the_one_before_ended() -> None:
    """A blank may be shown, and be held back again when a digit follows, with which a card number could begin."""
    turn = StreamedTurn(uuid4(), uuid4(), uuid4(), 1, recalls=False, calls=False, login_id=7, stopped=False)
    reply, reader = StreamedReply(turn), Reader(turn.turn_id, 7, ReadPosition())
    deltas: list[ReplyPart] = []
    for words in ("I have ", "4", " apples", " and", " ", "- ", "4111 1111 1111 1111", ", a card."):
        reply.append(words)
        if piece := reply.take_new_text():
            deltas.append(ReplyPart(1, piece.start, piece.text))
        for delta in deltas:
            if delta.start >= reader.wanted.characters:
                reader.give(delta)
    read = "".join(part.text for part in iter(reader.take, None) if isinstance(part, ReplyPart))
    assert read == CARDS_ONLY.clean(reply.text) == "I have 4 apples and - [card number removed], a card."


@pytest.mark.parametrize("place", [0, 3, 10, 12, 9_999_999])
def test_who_comes_back_at_any_place_reads_on_from_the_delta_that_holds_it(place: int) -> None:
    deltas = [ReplyPart(1, start, "ten letter") for start in (0, 10, 20)]
    reader = Reader(uuid4(), 7, ReadPosition(1, place))
    for delta in deltas:
        reader.give(delta)
    assert "".join(part.text for part in iter(reader.take, None)) == ("ten letter" * 3)[place:]
    assert reader.wanted.characters in (20, 30), "the whole is not read again"
