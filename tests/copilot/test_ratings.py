"""The question about satisfaction in the copilot: asked where a session has ended, answered in its panel."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, Rating, Survey
from conversations.services.core.ledger import SYSTEM
from conversations.services.transitions import closing, rating_questions
from tests.copilot.members import answered, http_of
from tests.copilot.reading import user

pytestmark = pytest.mark.django_db
QUESTION = "How satisfied are you?"


@pytest.fixture
def ann(firm: Client) -> Any:
    return user("ann", firm)


def ended(who: Any, **more: Any) -> Conversation:
    """A session of theirs that was closed and asked in."""
    session = answered(who, **more).session
    closing.close(session.pk, ended_by="staff", actor=SYSTEM, now=timezone.now())
    rating_questions.ask_due(timezone.now())
    return session


def read(who: Any, session: Conversation) -> Any:
    return http_of(who).get(f"/copilot?session_id={session.pk}").json()["data"]


def rate(who: Any, session: Conversation, **body: Any) -> tuple[int, Any]:
    path = f"/copilot/sessions/{session.pk}/rating"
    answer = http_of(who).put(path, body, content_type="application/json")
    return answer.status_code, answer.json()


def test_it_is_asked_in_an_ended_session_and_answered_there(firm, ann):
    Survey.objects.create(client=firm, channel="web", text=QUESTION, days_between=0)
    running = answered(ann, "Something else").session
    session = ended(ann, message="Where is the ladder?")
    shown = read(ann, session)
    assert shown["session"]["rating"]["takes_answer"]
    assert [each["score"] for each in shown["session"]["rating"]["choices"]] == [1, 2, 3, 4, 5]
    assert (shown["items"][-1]["content"], shown["items"][-1]["asks_rating"]) == (QUESTION, True)
    assert read(ann, running)["session"]["rating"] is None
    status, rated = rate(ann, session, score=5)
    assert (status, rated["data"]["score"]) == (200, 5)
    assert rate(ann, session, score=5)[0] == 200
    status, refused = rate(ann, session, score=1)
    assert (status, refused["code"]) == (409, "rated")
    assert Rating.objects.get(conversation=session.pk).score == 5
    assert Conversation.objects.filter(status="active").count() == 1, "the answer opens nothing"


def test_a_low_rating_is_asked_why_and_the_reason_is_kept(firm, ann):
    Survey.objects.create(client=firm, channel="web", text=QUESTION, why="Why?", thanks="Thank you.")
    session = ended(ann)
    rate(ann, session, score=1)
    shown = read(ann, session)
    assert shown["session"]["rating"]["takes_comment"]
    assert shown["items"][-1]["content"] == "Why?"
    assert rate(ann, session, score=1, comment="It was wrong")[0] == 200
    assert Rating.objects.get().comment == "It was wrong"
    assert read(ann, session)["items"][-1]["content"] == "Thank you."


def test_an_open_session_is_not_asked_in(firm, ann):
    Survey.objects.create(client=firm, channel="web", text=QUESTION)
    session = answered(ann).session
    assert rating_questions.ask_due(timezone.now()) == 0
    status, refused = rate(ann, session, score=5)
    assert (status, refused["code"]) == (409, "not_asked")
    assert not Chunk.objects.filter(content=QUESTION).exists()


def test_nobody_rates_for_somebody_else(firm, ann):
    Survey.objects.create(client=firm, channel="web", text=QUESTION)
    session = ended(ann)
    bob = user("bob", firm)
    assert rate(bob, session, score=1)[0] == 404
    assert Rating.objects.get().score is None
