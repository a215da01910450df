"""The question about satisfaction: when it is asked, how each channel offers it, and which message answers it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from conversations.models import Chunk, Contact, Conversation, ConversationEvent, Message, Rating, Survey
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.delivery import opt_outs
from conversations.services.jobs import sweep
from conversations.services.transitions import closing, rating_questions
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.meta_doors import post
from tests.fakes.messenger import PERSON
from tests.races.threads import together

pytestmark = pytest.mark.django_db
QUESTION = "How satisfied are you? Answer with a number from 1 to 5."

account, page = meta_doors.account, meta_doors.page


def survey(client: Any, channel: str = "sms", **more: Any) -> Survey:
    """The client asks on the channel."""
    return Survey.objects.create(**{"client": client, "channel": channel, "text": QUESTION, **more})


def close(conversation_id: Any, at: Any = None) -> None:
    closing.close(conversation_id, ended_by="staff", actor=SYSTEM, now=at or timezone.now())


def ended(door: Door, **who: Any) -> str:
    """A conversation with an answer, which has just been closed."""
    conversation_id: str = door.says("Where is it?", **who)["conversation_id"]
    reply_to_all()
    send_all()
    close(conversation_id)
    return conversation_id


def ask(at: Any = None) -> int:
    return rating_questions.ask_due(at or timezone.now())


def asked(door: Door, **who: Any) -> str:
    """A conversation that was closed and asked in; the question is sent."""
    conversation_id = ended(door, **who)
    assert ask() == 1
    send_all()
    return conversation_id


def score_of(conversation_id: str) -> int | None:
    return Rating.objects.get(conversation=conversation_id).score


# --- on each channel --------------------------------------------------------------------------------------------------
def test_a_number_by_sms_is_the_rating_and_opens_nothing(door, shop):
    survey(shop)
    conversation_id = asked(door)
    assert Message.objects.order_by("created_at").last().text == QUESTION
    answer = door.says("4", message_id="answer")
    assert answer == {**answer, "conversation_id": conversation_id, "status": "closed", "duplicate": False}
    assert score_of(conversation_id) == 4
    assert Conversation.objects.count() == 1
    assert Chunk.objects.get(message_id="answer").metadata["rating"] == 4
    assert ConversationEvent.objects.filter(kind="rated", data={"score": 4, "scale": "five"}).count() == 1
    assert (reply_to_all(), Conversation.objects.get().reply_owed) == (0, False)
    again = door.says("4", message_id="answer")
    assert (again["duplicate"], again["conversation_id"]) == (True, conversation_id)
    assert Chunk.objects.filter(message_id="answer").count() == 1
    opened = door.says("Thank you")
    assert opened["conversation_id"] != conversation_id
    assert reply_to_all() == 1


def test_on_whatsapp_one_to_five_is_a_list_and_a_press_is_the_rating(meta, account, shop):
    survey(shop, "whatsapp")
    post(meta.text_webhook("hello"), "whatsapp")
    reply_to_all()
    send_all()
    conversation = Conversation.objects.get()
    close(conversation.pk)
    assert ask() == 1
    send_all()
    interactive = meta.sent[-1].content["interactive"]
    assert (interactive["type"], interactive["body"]["text"]) == ("list", QUESTION)
    rows = interactive["action"]["sections"][0]["rows"]
    assert [row["title"] for row in rows] == ["1 ★", "2 ★★", "3 ★★★", "4 ★★★★", "5 ★★★★★"]
    press = whatsapp.list_reply(rows[1]["title"], rows[1]["id"], "")
    for _ in range(2):
        post(meta.webhook(messages=[press]), "whatsapp")
    assert score_of(conversation.pk) == 2
    assert Conversation.objects.count() == 1
    assert Chunk.objects.filter(role="user").count() == 2
    # A second press is kept and changes nothing; it wakes no assistant.
    post(meta.webhook(messages=[whatsapp.list_reply(rows[4]["title"], rows[4]["id"], "")]), "whatsapp")
    assert (score_of(conversation.pk), Conversation.objects.count(), reply_to_all()) == (2, 1, 0)


def test_thumbs_are_buttons_on_whatsapp_and_quick_replies_on_messenger(meta, account, page, shop):
    survey(shop, "whatsapp", scale="thumbs", days_between=0)
    survey(shop, "messenger", scale="thumbs", days_between=0)
    post(meta.text_webhook("hello"), "whatsapp")
    post(page.text_webhook("hello"), "messenger")
    reply_to_all()
    send_all()
    for each in Conversation.objects.all():
        close(each.pk)
    assert ask() == 2
    send_all()
    assert meta.sent[-1].content["interactive"]["type"] == "button"
    down = page.sent[-1].choices[1]
    post(page.webhook(composed.quick_reply(page.page, PERSON, *down)), "messenger")
    assert sorted(Rating.objects.values_list("conversation__channel", "score")) == [
        ("messenger", 1),
        ("whatsapp", None),
    ]


@pytest.mark.parametrize(("answer", "score"), [("1", 5), ("2", 1), ("👍", 5), ("👎🏽", 1), (" 👍🏿 ", 5)])
def test_thumbs_by_sms_are_numbers_or_thumbs(door, shop, answer, score):
    survey(shop, scale="thumbs", text="Were you satisfied?")
    conversation_id = asked(door)
    assert Message.objects.order_by("created_at").last().text == "Were you satisfied?\n\n1. 👍\n2. 👎"
    door.says(answer)
    assert (score_of(conversation_id), Conversation.objects.count()) == (score, 1)


# --- when it is asked -------------------------------------------------------------------------------------------------
def test_it_is_asked_once_and_not_again_within_the_days(door, shop):
    survey(shop, days_between=2)
    first = asked(door)
    assert (ask(), Rating.objects.count()) == (0, 1)
    second = ended(door)
    assert first != second
    assert ask() == 0
    Rating.objects.update(asked_at=timezone.now() - timedelta(days=2, seconds=1))
    assert ask() == 1


def test_the_end_has_it_asked_and_so_does_the_sweep(door, shop, monkeypatch):
    enqueued: list[str] = []
    monkeypatch.setattr(rating_questions, "enqueue", enqueued.append)
    ended(door, user_id="before")
    assert enqueued == []
    survey(shop)
    ended(door)
    assert enqueued == ["ask_for_ratings"]
    assert rating_questions.is_pending()


@pytest.mark.parametrize("wrong", [{"is_active": False}, {"channel": "orb"}])
def test_it_is_not_asked_where_the_client_does_not_want_it(door, shop, wrong):
    survey(shop, **wrong)
    ended(door)
    assert ask() == 0


def test_it_is_not_asked_where_nobody_answered(door, shop):
    survey(shop)
    close(door.says("Hello?")["conversation_id"])
    assert ask() == 0


def test_it_is_not_asked_of_what_ended_long_ago(door, shop):
    survey(shop)
    ended(door)
    assert ask(timezone.now() + timedelta(hours=1, seconds=5)) == 0
    assert ask() == 1


def test_it_is_not_asked_of_somebody_who_opted_out(door, shop):
    survey(shop)
    ended(door)
    by = {"reason": "by phone", "actor": Actor("staff", "mona")}
    opt_outs.opt_out(Contact.objects.get().pk, "sms", **by, now=timezone.now())
    assert ask() == 0


def test_it_is_not_asked_of_somebody_who_has_written_again(door, shop):
    survey(shop)
    ended(door)
    again = door.says("One more thing")["conversation_id"]
    assert ask() == 0
    close(again)
    assert ask() == 0, "nobody answered in the second, and it came after the first"


@pytest.mark.parametrize(
    "change", [{"status": "archived", "archived_at": timezone.now()}, {"channel_account": None}, {"is_guest": True}]
)
def test_it_is_not_asked_where_it_cannot_be_sent(door, shop, change):
    survey(shop)
    ended(door, phone="+51999000111")
    Conversation.objects.update(**{"status": "expired", "ended_by": "timeout", **change})
    assert ask() == 0
    assert Rating.objects.count() == 0


def test_an_expired_guest_is_not_asked_and_an_expired_customer_is(door, shop):
    survey(shop)
    door.says("Hello", user_id="guest")
    door.says("Hello", user_id="customer", phone="+51999000111")
    reply_to_all()
    before = timezone.now() - timedelta(hours=25)
    Conversation.objects.update(started_at=before, last_message_at=before)
    sweep.sweep(timezone.now())
    assert ask() == 1
    assert Rating.objects.get().conversation.contact.user_id == "customer"


def test_outside_the_reply_window_whatsapp_is_not_asked(meta, account, shop):
    survey(shop, "whatsapp")
    post(meta.text_webhook("hello"), "whatsapp")
    reply_to_all()
    send_all()
    conversation = Conversation.objects.get()
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - timedelta(hours=23, minutes=55))
    close(conversation.pk)
    assert ask() == 0
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - timedelta(hours=23, minutes=45))
    assert ask() == 1


def test_of_two_tasks_at_once_one_asks(door, shop, transactional_db):
    survey(shop)
    ended(door)
    assert sorted(together(*[ask] * 3)) == [0, 0, 1]
    assert Message.objects.filter(text=QUESTION).count() == 1


def test_of_two_conversations_that_end_at_once_one_is_asked_in(door, shop, transactional_db):
    survey(shop)
    survey(shop, "orb")
    phone = "+51999000111"
    ended(door, phone=phone)
    ended(door, phone=phone, channel="orb")
    assert Contact.objects.count() == 1
    together(ask, ask)
    assert Rating.objects.count() == 1


# --- which message answers it -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["6", "0", "42", "four", "4 because it was late", "👍", "-3", "4.5", "1/5"])
def test_what_is_no_answer_opens_a_conversation_as_always(door, shop, text):
    survey(shop)
    conversation_id = asked(door)
    assert door.says(text)["conversation_id"] != conversation_id
    assert score_of(conversation_id) is None


def test_a_number_is_an_answer_for_a_day_and_while_nothing_newer_was_said(door, shop):
    survey(shop, days_between=0)
    late = asked(door, user_id="late")
    Rating.objects.update(asked_at=timezone.now() - timedelta(hours=24, seconds=1))
    assert door.says("5", user_id="late")["conversation_id"] != late
    newer = asked(door, user_id="newer")
    between = door.says("A question", user_id="newer")["conversation_id"]
    assert door.says("5", user_id="newer")["conversation_id"] == between
    close(between)
    assert door.says("5", user_id="newer")["conversation_id"] not in (newer, between)
    assert {score_of(late), score_of(newer)} == {None}


def test_a_second_number_is_a_message_like_any_other(door, shop):
    survey(shop)
    conversation_id = asked(door)
    door.says("5")
    assert door.says("1")["conversation_id"] != conversation_id
    assert score_of(conversation_id) == 5


def test_nobody_answers_for_somebody_else_or_another_client(door, shop, neighbour):
    survey(shop)
    conversation_id = asked(door)
    rating = Rating.objects.get()
    for payload in (f"rating:{rating.pk}:5", f"rating:{rating.pk + 1}:5", f"rating:{rating.pk}:9", "rating:x:5", 7):
        door.says("5 ★★★★★", user_id="mallory", metadata={"payload": payload})
    assert score_of(conversation_id) is None
    door.says("5 ★★★★★", metadata={"payload": f"rating:{rating.pk}:5"})
    assert score_of(conversation_id) == 5


def test_a_number_of_choices_in_an_open_conversation_is_no_rating(door, shop):
    survey(shop)
    conversation_id = asked(door)
    other = door.says("Hello again")["conversation_id"]
    assert door.says("3")["conversation_id"] == other
    assert score_of(conversation_id) is None


def test_of_two_answers_at_once_one_is_the_rating_and_the_same_twice_is_kept_once(door, shop, transactional_db):
    survey(shop)
    conversation_id = asked(door)
    together(lambda: door.says("5", message_id="m"), lambda: door.says("5", message_id="m"))
    assert score_of(conversation_id) == 5
    assert Chunk.objects.filter(message_id="m").count() == 1
    assert Conversation.objects.count() == 1

    second = asked(door, user_id="bob")
    together(
        lambda: door.says("5", message_id="x", user_id="bob"), lambda: door.says("1", message_id="y", user_id="bob")
    )
    assert score_of(second) in (1, 5)
    assert Chunk.objects.filter(message_id__in=["x", "y"]).count() == 2
    assert ConversationEvent.objects.filter(conversation=second, kind="rated").count() == 1
    assert Conversation.objects.filter(contact__user_id="bob").count() == 2, "the other is a message like any other"


def test_a_usual_message_has_no_statement_more(door, shop):
    survey(shop)
    conversation_id = door.says("Hello")["conversation_id"]
    door.says("Hello")
    with CaptureQueriesContext(
        connection,
    ) as usual:
        assert door.says("Hello again")["conversation_id"] == conversation_id
    with CaptureQueriesContext(connection) as number:
        door.says("4")
    for seen in (usual, number):
        assert not [each["sql"] for each in seen.captured_queries if "ratings" in each["sql"]]
