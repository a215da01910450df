"""A session's page: what it shows, to whom, and what a reply does."""

from __future__ import annotations

import re
from html import escape

import pytest
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.models import Chunk, Conversation, ConversationEvent, Message
from conversations.services.staff_actions import seed_helpers
from tests.bounds import rounds
from tests.conftest import send_all
from tests.conversations.back_office import do, news, page_of, sign_in

pytestmark = pytest.mark.django_db

TRICKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[click](javascript:alert(1)) **bold**",
    "{{ 7|add:7 }} {% csrf_token %}",
]


def test_the_page_shows_who_said_what_and_what_became_of_it(viewer, session):
    html = viewer.get(page_of(session)).content.decode()
    assert "Where is my parcel?" in html
    assert "Ann" in html
    assert "+51999999999" in html
    assert 'data-status="delivered"' in html
    assert "What the assistant was told" in html
    assert re.search(r"<h1.*Ann on \w+.*</h1>", html, re.DOTALL), "the way to it ends with its name"
    assert html.count("cv-entry cv-theirs") == 1


def test_a_viewer_reads_and_does_nothing_else(viewer, session):
    assert b'data-action="reply"' not in viewer.get(page_of(session)).content
    for action in ("reply", "close"):
        assert do(viewer, session, action, text="Hello", reason="done")[0] == 403
    session.refresh_from_db()
    assert session.status == "active"
    assert not Chunk.objects.filter(content="Hello").exists()


def test_an_agents_reply_is_sent_and_in_the_ledger_under_their_name(agent, session):
    status, said = do(agent, session, "reply", text="It leaves\r\ntoday.")
    assert (status, said["said"]) == (200, "Your reply is on its way.")
    send_all()
    chunk = Chunk.objects.latest("id")
    assert (chunk.role, chunk.content, chunk.author.username) == ("ai", "It leaves\ntoday.", "agnes")
    assert Message.objects.get(chunk=chunk).status == "delivered"
    line = ConversationEvent.objects.latest("id")
    assert (line.kind, line.actor, line.actor_name) == ("sent", "staff", "agnes")


@pytest.mark.parametrize("text", ["", " \n ", "x" * 100_001])
def test_a_reply_says_something_and_not_too_much(agent, session, text):
    status, said = do(agent, session, "reply", text=text)
    assert status == 409
    assert said["said"]
    assert Chunk.objects.filter(author__isnull=False).count() == 0


def test_an_ended_session_says_why_nobody_can_reply(agent, session):
    assert do(agent, session, "close", reason="Parcel found")[0] == 200
    session.refresh_from_db()
    assert (session.status, session.ended_by, session.end_reason) == ("closed", "staff", "Parcel found")
    assert "accepts no more messages" in agent.get(page_of(session)).content.decode()
    status, said = do(agent, session, "reply", text="Too late")
    assert status == 409
    assert "closed" in said["said"]


def test_another_clients_session_does_not_exist(session, neighbour):
    stranger = sign_in("stan", neighbour, "manager")
    assert stranger.get(page_of(session)).status_code == 302
    assert news(stranger, session).status_code == 404
    assert stranger.get(reverse("admin:conversations_conversation_older", args=[session.pk])).status_code == 404
    path = reverse("admin:conversations_conversation_do", args=[session.pk, "close"])
    assert stranger.post(path).status_code == 404
    session.refresh_from_db()
    assert session.status == "active"


def test_who_is_not_staff_is_sent_to_the_door(session):
    assert HttpClient().get(page_of(session)).status_code == 302
    assert news(HttpClient(), session).status_code == 302


def test_an_unknown_deed_or_position_is_not_there(agent, session):
    unknown = reverse("admin:conversations_conversation_do", args=[session.pk, "explode"])
    assert agent.post(unknown).status_code == 404
    path = reverse("admin:conversations_conversation_older", args=[session.pk])
    for wrong in ("", "x", "-1", "9" * 40, "²"):
        assert agent.get(path, {"before": wrong}).json()["bubbles"] == []


def test_the_newest_are_shown_and_older_ones_come_in_stretches(viewer, session):
    for number in range(120):
        seed_helpers.append_chunk(session.pk, "user", f"message {number}")
    session.refresh_from_db()
    html = viewer.get(page_of(session)).content.decode()
    assert html.count("<article") == 50
    assert "message 70<" in html
    assert "message 69<" not in html
    path = reverse("admin:conversations_conversation_older", args=[session.pk])
    before, seen = session.last_position - 49, []
    for _ in rounds("Reading back"):
        older = viewer.get(path, {"before": before}).json()
        positions = [position for position, _ in older["bubbles"]]
        seen = positions + seen
        before = positions[0]
        if not older["more"]:
            break
    assert seen == list(range(1, session.last_position - 49))


def test_news_come_once(viewer, session):
    first = news(viewer, session, session.last_position).json()
    assert news(viewer, session, session.last_position, first["seen"]).status_code == 204
    seed_helpers.append_chunk(session.pk, "user", "And now?")
    second = news(viewer, session, session.last_position, first["seen"]).json()
    assert "And now?" in second["bubbles"][-1][1]
    assert "waits for a reply" in second["sections"]["head"]


def test_who_was_away_for_long_catches_up_in_several_goes(viewer, session):
    Chunk.objects.bulk_create(
        Chunk(conversation=session, position=session.last_position + n, role="user", content=str(n))
        for n in range(1, 501)
    )
    known = session.last_position
    Conversation.objects.update(last_position=known + 500)
    seen = set()
    for _ in rounds("Catching up"):
        answer = news(viewer, session, known).json()
        seen |= {position for position, _ in answer["bubbles"]}
        known = max(seen)
        if not answer["behind"]:
            break
    assert set(range(session.last_position + 1, session.last_position + 501)) <= seen


@pytest.mark.parametrize("trick", TRICKS)
def test_what_people_write_is_text(agent, door, trick):
    door.says(trick, name=trick, user_id="eve")
    session = Conversation.objects.get()
    seed_helpers.add_step(session.pk, trick)
    do(agent, session, "reply", text=trick)
    Conversation.objects.update(goal=trick, topic=trick, summary=trick)
    do(agent, session, "close", reason=trick)
    body = news(agent, session).json()
    pieces = [*body["sections"].values(), *(bubble for _, bubble in body["bubbles"])]
    for shown in (agent.get(page_of(session)).content.decode(), "".join(pieces)):
        assert shown.count(escape(trick)) >= 7  # name, two bubbles, step, goal, topic, summary
        assert "<" not in trick or trick not in shown


def test_what_turns_the_reading_direction_around_is_made_visible(viewer, door):
    door.says("invoice \u202egnp.exe", name="\u202enaV", user_id="eve")
    session = Conversation.objects.get()
    for html in (
        viewer.get(page_of(session)).content.decode(),
        viewer.get("/admin/conversations/conversation/").content.decode(),
    ):
        assert "invoice ⟨U+202E⟩gnp.exe" in html
        assert "⟨U+202E⟩naV" in html
    door.says("שלום \u200f!", user_id="eve")
    assert "שלום \u200f!" in viewer.get(page_of(session)).content.decode()


def test_the_page_costs_the_same_however_long_the_session_is(viewer, session, django_assert_max_num_queries):
    viewer.get(page_of(session))
    for number in range(300):
        seed_helpers.append_chunk(session.pk, "user" if number % 2 else "ai", f"message {number}")
        seed_helpers.add_step(session.pk, f"step {number}")
    with django_assert_max_num_queries(16):
        assert viewer.get(page_of(session)).status_code == 200
    with django_assert_max_num_queries(16):
        assert news(viewer, session).status_code == 200
