"""An assistant's policy holds for replies that are streamed as for those that are sent."""

from __future__ import annotations

import pytest
from django.utils import timezone

from conversations.models import Assistant, Chunk, Client, ClientDay, Conversation, Turn
from conversations.services.replies.failures import explain
from conversations.services.tenants import day_quotas
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("position").values_list("content", flat=True))


def test_a_draft_that_the_model_is_unsure_of_is_never_shown_and_a_colleague_answers(
    ann: Browser, model: FakeOpenAI
) -> None:
    Assistant.objects.update(human_below_confidence=0.5)
    model.then("reply", text="Perhaps on Mars?", confidence=0.3)
    events = ann.ask("Where is my parcel?")
    assert text_of(events) == ""
    assert (events[-1].name, events[-1].data["finish_reason"]) == ("done", "taken_over")
    turn, conversation = Turn.objects.get(), Conversation.objects.get()
    assert (turn.status, turn.code, turn.draft) == ("dropped", "low_confidence", "Perhaps on Mars?")
    assert turn.confidence == pytest.approx(0.3)
    assert conversation.taken_over_at is not None
    assert conversation.needs_staff_reason == "low confidence"
    assert said() == ["A colleague will take it from here."]


def test_a_draft_that_it_is_sure_of_is_shown_when_it_is_whole(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(human_below_confidence=0.5)
    model.then("reply", text="It comes on Monday.", confidence=0.9)
    events = ann.ask("Where is my parcel?")
    assert text_of(events) == "It comes on Monday."
    assert (events[-1].name, events[-1].data["finish_reason"]) == ("done", "stop")
    assert Turn.objects.get().confidence == pytest.approx(0.9)
    assert said() == ["It comes on Monday."]


def test_what_was_held_back_is_not_kept_where_the_model_fails(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(human_below_confidence=0.5)
    model.then("cut", text="Perhaps on Mars, or elsewhere?", times=10)
    events = ann.ask("Where is my parcel?")
    assert text_of(events) == ""
    assert events[-1].name == "error"
    assert said() == []


def test_a_goodbye_ends_the_conversation_after_the_last_words(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(goodbye_phrases="bye")
    [first, *_] = ann.ask("Bye!")
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.ended_by, conversation.end_reason) == ("closed", "user", "said goodbye")
    assert said() == ["You said: Bye!"]
    status, refused = ann.call(
        "POST", "/copilot", {"message": "One more thing", "session_id": first.data["session_id"]}
    )
    assert (status, refused["code"]) == (409, "ended")


def test_a_goodbye_whose_answer_was_stopped_ends_nothing(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(goodbye_phrases="bye")
    model.then("endless", text="bye ", every=0.002)
    with ann.stream("POST", "/copilot", {"message": "Bye"}) as events:
        session_id = events.next("session").data["session_id"]
        events.next("delta")
        assert ann.call("POST", f"/copilot/sessions/{session_id}/stop")[0] == 200
        assert events.rest()[-1].data["finish_reason"] == "stopped"
    assert Conversation.objects.get().status == "active"


def test_after_so_many_failures_a_colleague_has_the_conversation(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(human_after_failures=2)
    model.then("status", times=2, status=400)
    [first, *rest] = ann.ask("Where is my parcel?")
    assert rest[-1].name == "error"
    assert Conversation.objects.get().taken_over_at is None
    session_id = first.data["session_id"]
    with ann.stream("POST", f"/copilot/sessions/{session_id}/retry") as events:
        assert events.rest()[-1].name == "error"
    conversation = Conversation.objects.get()
    assert conversation.replies_failed == 2
    assert conversation.needs_staff_reason == f"2 replies in a row failed. {explain('bad_request')}"
    assert conversation.taken_over_at is not None
    assert ann.ask("And now?", session_id=session_id)[-1].data["finish_reason"] == "taken_over"


def test_a_reply_that_succeeds_forgets_the_failures(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(human_after_failures=2)
    model.then("status", status=400)
    [first, *_] = ann.ask("Where is my parcel?")
    session_id = first.data["session_id"]
    ann.ask("Hello?", session_id=session_id)
    conversation = Conversation.objects.get()
    assert (conversation.replies_failed, conversation.taken_over_at) == (0, None)


def test_where_a_quota_of_the_day_is_used_up_the_user_is_told_so_and_may_ask_again_the_next_day(
    ann: Browser, model: FakeOpenAI, roofers: Client
) -> None:
    Client.objects.update(tokens_per_day=1, quota_sentence="We are back tomorrow.")
    ClientDay.objects.create(client=roofers, day=day_quotas.day_of(roofers, timezone.now()), tokens=1)
    events = ann.ask("Where is my parcel?")
    assert text_of(events) == ""
    assert (events[-1].name, events[-1].data["code"]) == ("error", "quota_used_up")
    assert events[-1].data["error"].startswith("The assistant has used up what it may use today.")
    assert events[-1].data["retryable"] is False
    assert (said(), model.requests) == ([], [])
    assert Chunk.objects.filter(role="user").count() == 1
    assert Conversation.objects.get().needs_staff_since is None
    ClientDay.objects.all().delete()
    assert text_of(ann.ask("Where is my parcel now?", session=events[0].data["session_id"])) != ""
    assert ClientDay.objects.get().tokens > 0, "streamed replies count"
