"""The question about satisfaction where nobody sends a message: on the web, and for programs on every channel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, ConversationEvent, Message, QuarterFigures, Rating
from conversations.services.figures import counting
from conversations.services.tenants import api_keys
from tests.conftest import Door, reply_to_all
from tests.conversations.test_events_feed import read
from tests.conversations.test_ratings import QUESTION, ask, asked, close, survey
from tests.races.threads import together

pytestmark = pytest.mark.django_db
FIVE = [{"score": score, "title": f"{score} {'★' * score}"} for score in (1, 2, 3, 4, 5)]
NOWHERE = "5f0c7a52-0000-4000-8000-000000000000"


def spoken(door: Door, phone: str = "+51999999999") -> str:
    """A conversation on a website, kept by the agent that answered there."""
    begun = {"userId": phone, "subDomain": "shop", "metadata": {"platform": "web"}}
    _status, opened = door.call("POST", "/api/v1/conversations", begun)
    path = f"/api/v1/conversations/{opened['data']['sessionId']}/messages"
    for role, content in (("user", "Where is it?"), ("bot", "On its way.")):
        assert door.call("POST", path, {"role": role, "content": content})[0] < 300
    return str(opened["data"]["sessionId"])


def over(door: Door) -> str:
    """The same, after its end, and asked in."""
    conversation_id = spoken(door)
    assert door.call("POST", f"/api/v1/conversations/{conversation_id}/end", {})[0] == 200
    assert ask() == 1
    return conversation_id


def rate(door: Door, conversation_id: str, score: int, **more: Any) -> tuple[int, Any]:
    status, answer = door.call("POST", f"/conversations/{conversation_id}/rating", {"score": score, **more})
    return status, answer.get("data") or answer["code"]


def test_a_widget_sees_the_question_and_passes_the_answer_on(door, shop):
    survey(shop, "web")
    conversation_id = over(door)
    assert Message.objects.count() == 0, "nothing is sent"
    told = [each["data"] for each in read(door, types="message.out")]
    [event] = [each for each in told if "rating_question" in each["message"]["metadata"]]
    assert (event["conversation_id"], event["message"]["content"]) == (conversation_id, QUESTION)
    offered = event["message"]["metadata"]["choices"]["options"]
    assert [each["title"] for each in offered] == [each["title"] for each in FIVE]
    found = door.get(f"/conversations/{conversation_id}/rating")
    assert (found["question"], found["choices"], found["scale"]) == (QUESTION, FIVE, "five")
    assert (found["score"], found["takes_answer"], found["comment"]) == (None, True, "")

    status, rated = rate(door, conversation_id, 4)
    assert (status, rated["score"], rated["takes_answer"]) == (200, 4, False)
    again = rate(door, conversation_id, 4)
    assert again == (200, rated)
    assert rate(door, conversation_id, 1) == (409, "rated")
    assert Rating.objects.get().score == 4
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.reply_owed, reply_to_all()) == ("closed", False, 0)
    answers = Chunk.objects.filter(conversation=conversation, metadata__has_key="rating")
    assert list(answers.values_list("content", flat=True)) == ["4 ★★★★"]
    assert [each["data"]["facts"]["score"] for each in read(door, types="conversation.rated")] == [4]
    assert door.get(f"/conversations/{conversation_id}")["rating"]["score"] == 4


def test_a_rating_on_the_web_is_in_the_figures_as_any_other(door, shop):
    survey(shop, "web")
    conversation_id = over(door)
    rate(door, conversation_id, 5)
    now = timezone.now()
    counting.count_client(shop.pk, counting.quarter_of(now - timedelta(minutes=15)), now + timedelta(minutes=15))
    found = QuarterFigures.objects.filter(label_id=0, team_id=0, channel="web")
    assert sum(each.asked for each in found) == 1
    assert [sum(getattr(each, name) for each in found) for name in ("ratings", "satisfied", "rating_sum")] == [1, 1, 5]


def test_another_clients_conversation_is_not_there(door, shop, neighbours_key):
    survey(shop, "web")
    conversation_id = over(door)
    other = Door(shop, neighbours_key)
    for pk in (conversation_id, NOWHERE):
        assert other.call("GET", f"/conversations/{pk}/rating")[0] == 404
        assert rate(other, pk, 1) == (404, "not_found")
    assert Rating.objects.get().score is None


def test_a_private_session_needs_a_key_that_sees_private_ones(door, shop):
    survey(shop, "web")
    conversation_id = over(door)
    Conversation.objects.update(thread=conversation_id)
    assert door.call("GET", f"/conversations/{conversation_id}/rating")[0] in (403, 404)
    assert rate(door, conversation_id, 3)[0] in (403, 404)
    seeing = api_keys.create_api_key(shop, "all", scopes=["messages:write", "conversations:read", "private:read"])[1]
    assert rate(Door(shop, seeing), conversation_id, 3)[0] == 200


def test_a_key_needs_the_scope_of_messages(door, shop):
    survey(shop, "web")
    conversation_id = over(door)
    reader = Door(shop, api_keys.create_api_key(shop, "reads", scopes=["conversations:read"])[1])
    assert reader.call("GET", f"/conversations/{conversation_id}/rating")[0] == 200
    assert rate(reader, conversation_id, 3)[0] == 403


def test_what_was_not_asked_cannot_be_answered(door, shop):
    conversation_id = spoken(door)
    status, refused = door.call("GET", f"/conversations/{conversation_id}/rating")
    assert (status, refused["code"]) == (404, "not_asked")
    assert rate(door, conversation_id, 5) == (409, "not_asked")


@pytest.mark.parametrize("score", [0, 6, None, "five", 2.5])
def test_an_answer_is_a_score_of_the_question(door, shop, score):
    survey(shop, "web")
    assert rate(door, over(door), score)[0] == 400


def test_thumbs_are_a_five_and_a_one(door, shop):
    survey(shop, "web", scale="thumbs")
    conversation_id = over(door)
    assert door.get(f"/conversations/{conversation_id}/rating")["choices"] == [
        {"score": 5, "title": "👍"},
        {"score": 1, "title": "👎"},
    ]
    assert rate(door, conversation_id, 3) == (400, "no_such_score")
    assert rate(door, conversation_id, 1)[0] == 200


def test_after_a_week_it_is_too_late_but_the_same_answer_again_is_not(door, shop):
    survey(shop, "web")
    conversation_id = over(door)
    Rating.objects.update(asked_at=timezone.now() - timedelta(days=7, seconds=1))
    assert rate(door, conversation_id, 4) == (409, "too_late")
    assert not door.get(f"/conversations/{conversation_id}/rating")["takes_answer"]
    Rating.objects.update(asked_at=timezone.now())
    assert rate(door, conversation_id, 4)[0] == 200
    Rating.objects.update(asked_at=timezone.now() - timedelta(days=30))
    assert rate(door, conversation_id, 4)[0] == 200


def test_it_is_not_asked_while_the_same_person_goes_on_writing(door, shop):
    survey(shop, "web")
    first = spoken(door)
    assert door.call("POST", f"/api/v1/conversations/{first}/end", {})[0] == 200
    assert spoken(door) != first
    assert ask() == 0


def test_a_program_answers_on_other_channels_too_and_no_message_follows(door, shop):
    survey(shop)
    conversation_id = asked(door)
    sent = Message.objects.count()
    assert rate(door, conversation_id, 2)[0] == 200
    assert (Rating.objects.get().score, Message.objects.count(), Conversation.objects.count()) == (2, sent, 1)


def test_the_same_key_gets_the_first_answer(door, shop):
    survey(shop, "web")
    path, body = f"/conversations/{over(door)}/rating", {"score": 3}
    first = door.call("POST", path, body, **{"Idempotency-Key": "k1"})
    assert door.call("POST", path, body, **{"Idempotency-Key": "k1"}) == first
    assert first[0] == 200


def test_of_two_answers_at_once_one_counts(door, shop, transactional_db):
    survey(shop, "web")
    conversation_id = over(door)
    answers = together(lambda: rate(door, conversation_id, 1), lambda: rate(door, conversation_id, 5))
    assert sorted(status for status, _ in answers) == [200, 409]
    assert Rating.objects.get().score in (1, 5)
    assert ConversationEvent.objects.filter(kind="rated").count() == 1
    assert Chunk.objects.filter(metadata__has_key="rating").count() == 1


def test_an_answer_in_a_call_s_or_an_open_conversation_is_refused(door, shop):
    survey(shop)
    conversation_id = door.says("Hello")["conversation_id"]
    assert rate(door, conversation_id, 5) == (409, "not_asked")
    close(conversation_id)
    assert rate(door, conversation_id, 5) == (409, "not_asked")


def test_the_table_takes_the_web(shop: Client) -> None:
    survey(shop, "web").full_clean()
