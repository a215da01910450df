"""The reason for a low rating: when it is asked for, which message gives it, who reads it, and where it goes."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from channels_out.simulators import whatsapp
from conversations.models import Chunk, Contact, Conversation, ConversationEvent, Message, Rating, Survey
from conversations.services.core.ledger import Actor
from conversations.services.export import transcripts
from conversations.services.retention import erasure
from conversations.services.staff_actions import corrections
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.back_office import page_of
from tests.conversations.meta_doors import post
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_ratings import ask, asked, close, survey
from tests.conversations.test_ratings_on_the_web import over, rate
from tests.conversations.test_reports import rows_of
from tests.races.threads import together

pytestmark = pytest.mark.django_db
WHY, THANKS = "What went wrong?", "Thank you. We read every comment."
WORDS = "It came a day late, heliotrope"
account, page = meta_doors.account, meta_doors.page


def with_reasons(shop: Any, channel: str = "sms", **more: Any) -> Survey:
    return survey(shop, channel, **{"why": WHY, "thanks": THANKS, **more})


def low(door: Door, answer: str = "2", **who: Any) -> str:
    """A conversation that was rated low; the question why is sent."""
    conversation_id = asked(door, **who)
    door.says(answer, **who)
    send_all()
    return conversation_id


def sent() -> list[str]:
    gone = Message.objects.exclude(status__in=["queued", "failed", "cancelled"])
    return list(gone.order_by("created_at").values_list("text", flat=True))


# --- asking, and the answer -------------------------------------------------------------------------------------------
def test_the_next_message_after_a_low_rating_is_the_comment_and_opens_nothing(door, shop):
    with_reasons(shop)
    conversation_id = low(door)
    assert sent()[-1] == WHY
    answer = door.says(WORDS, message_id="why")
    assert (answer["conversation_id"], answer["status"], answer["created"]) == (conversation_id, "closed", False)
    assert Rating.objects.get().comment == WORDS
    assert (Conversation.objects.count(), reply_to_all()) == (1, 0)
    send_all()
    assert sent()[-1] == THANKS
    again = door.says(WORDS, message_id="why")
    assert (again["duplicate"], again["conversation_id"]) == (True, conversation_id)
    assert door.says("And now something else")["conversation_id"] != conversation_id
    assert Rating.objects.get().comment == WORDS
    assert sent().count(THANKS) == 1


@pytest.mark.parametrize(
    ("answer", "scale", "asks"), [("1", "five", True), ("3", "five", False), ("👎", "thumbs", True)]
)
def test_it_is_asked_after_one_two_or_a_thumb_down(door, shop, answer, scale, asks):
    with_reasons(shop, scale=scale)
    low(door, answer)
    assert (sent()[-1] == WHY) is asks
    assert (Rating.objects.get().why_asked_at is not None) is asks


def test_without_the_client_s_wish_nothing_is_asked_and_the_next_message_opens_a_conversation(door, shop):
    survey(shop)
    conversation_id = low(door, "1")
    assert WHY not in sent()
    assert door.says(WORDS)["conversation_id"] != conversation_id
    assert Rating.objects.get().comment == ""


def test_after_half_an_hour_a_message_is_as_today(door, shop):
    with_reasons(shop)
    conversation_id = low(door)
    Contact.objects.update(comment_until=timezone.now() - timedelta(seconds=1))
    assert door.says(WORDS)["conversation_id"] != conversation_id
    assert Rating.objects.get().comment == ""


def test_whoever_has_a_conversation_open_goes_on_in_it(door, shop):
    with_reasons(shop)
    low(door)
    Contact.objects.update(comment_until=None)
    other = door.says("Hello again")["conversation_id"]
    Contact.objects.update(comment_until=timezone.now() + timedelta(minutes=20))
    assert door.says(WORDS)["conversation_id"] == other
    close(other)
    assert door.says("Once more")["conversation_id"] != other
    assert Rating.objects.get().comment == ""


def test_a_message_on_another_channel_is_no_comment(door, shop):
    with_reasons(shop)
    conversation_id = low(door, phone="+51999000111")
    said = door.says(WORDS, channel="orb", user_id="ann", phone="+51999000111")
    assert said["conversation_id"] != conversation_id
    assert Rating.objects.get().comment == ""


def test_stop_is_an_opt_out_and_no_comment(door, shop):
    with_reasons(shop)
    low(door)
    door.says("STOP")
    assert Rating.objects.get().comment == ""
    assert "sms" in Contact.objects.get().opted_out


def test_on_whatsapp_after_a_pressed_choice_also_where_many_arrive_at_once(meta, account, shop):
    with_reasons(shop, "whatsapp")
    post(meta.text_webhook("hello"), "whatsapp")
    reply_to_all()
    send_all()
    conversation = Conversation.objects.get()
    close(conversation.pk)
    assert ask() == 1
    send_all()
    row = meta.sent[-1].content["interactive"]["action"]["sections"][0]["rows"][0]
    post(meta.webhook(messages=[whatsapp.list_reply(row["title"], row["id"], "")]), "whatsapp")
    send_all()
    assert meta.sent[-1].text == WHY
    others = [whatsapp.text(f"Hello {number}", sender=f"5199900{number:04}") for number in range(12)]
    post(meta.webhook(messages=[*others, whatsapp.text(WORDS)]), "whatsapp")
    assert Rating.objects.get().comment == WORDS
    assert Conversation.objects.filter(contact=conversation.contact_id).count() == 1
    send_all()
    assert THANKS in [each.text for each in meta.sent]


def test_of_two_messages_at_once_one_is_the_comment_and_the_other_a_message(door, shop, transactional_db):
    with_reasons(shop)
    conversation_id = low(door)
    together(lambda: door.says("First", message_id="a"), lambda: door.says("Second", message_id="b"))
    assert Rating.objects.get().comment in ("First", "Second")
    assert Chunk.objects.filter(metadata__has_key="rating_comment").count() == 1
    assert Chunk.objects.filter(message_id__in=["a", "b"]).count() == 2
    assert Conversation.objects.exclude(pk=conversation_id).count() == 1
    assert ConversationEvent.objects.filter(kind="rating_commented").count() == 1


def test_on_the_web_it_comes_with_the_score_or_after_it(door, shop):
    with_reasons(shop, "web", days_between=0)
    conversation_id = over(door)
    status, rated = rate(door, conversation_id, 1)
    assert (status, rated["why"], rated["takes_comment"]) == (200, WHY, True)
    status, said = rate(door, conversation_id, 1, comment=WORDS)
    assert (status, said["comment"], said["takes_comment"]) == (200, WORDS, False)
    assert rate(door, conversation_id, 1, comment=WORDS) == (200, said)
    assert rate(door, conversation_id, 1, comment="Something else") == (409, "rated")
    said_there = list(Chunk.objects.filter(position__gt=4).order_by("position").values_list("role", "content"))
    assert said_there[1:] == [("user", "1 ★"), ("ai", WHY), ("user", WORDS), ("ai", THANKS)]
    assert Message.objects.count() == 0


def test_both_at_once_ask_nothing_more(door, shop):
    with_reasons(shop, "web")
    status, rated = rate(door, over(door), 1, comment=WORDS)
    assert (status, rated["comment"], rated["why"]) == (200, WORDS, "")
    assert not Chunk.objects.filter(content__in=[WHY, THANKS]).exists()


# --- who reads it, and where it goes ----------------------------------------------------------------------------------
@pytest.fixture
def commented(door: Door, shop: Any) -> Conversation:
    with_reasons(shop)
    conversation_id = low(door)
    door.says(WORDS)
    return Conversation.objects.get(pk=conversation_id)


def test_staff_read_it_in_the_conversation_and_in_the_rows_and_programs_in_the_api(commented, door, shop):
    http = signed_in(staff("mona", shop="manager"))
    assert WORDS in http.get(page_of(commented)).content.decode()
    answer = http.get("/admin/reports/each-conversation.csv")
    lines = rows_of(answer)
    assert lines[1][lines[0].index("comment")] == WORDS
    assert door.get(f"/conversations/{commented.pk}")["rating"]["comment"] == WORDS
    assert json.loads(b"".join(transcripts.as_json(commented)))["rating"]["comment"] == WORDS


def test_a_redaction_reaches_it_and_so_does_a_correction(commented, shop):
    position = Chunk.objects.get(pk=Rating.objects.get().comment_id).position
    by: dict[str, Any] = {"actor": Actor("staff", "mona"), "now": timezone.now(), "client": shop}
    corrections.correct(commented.pk, position, "It came late", **by)
    assert Rating.objects.get().comment == "It came late"
    corrections.redact(commented.pk, position, **by)
    assert "late" not in Rating.objects.get().comment


def test_it_outlives_the_messages_in_the_archive(commented):
    Chunk.objects.all().delete()
    assert Rating.objects.get().comment == WORDS


def test_it_is_erased_with_the_person(commented, shop):
    erasure.begin(commented.contact_id, actor=Actor("staff", "mona"), now=timezone.now())
    assert (Rating.objects.count(), Chunk.objects.filter(content__contains="heliotrope").count()) == (0, 0)


def test_its_words_are_in_no_log_and_no_ledger(door, shop, caplog):
    with_reasons(shop)
    low(door)
    with caplog.at_level(logging.DEBUG):
        door.says(WORDS)
        reply_to_all()
        send_all()
    ours = [each.getMessage() for each in caplog.records if each.name.startswith(("conversations", "channels_out"))]
    assert "heliotrope" not in "\n".join(ours)
    assert "heliotrope" not in str(list(ConversationEvent.objects.values()))


def test_the_client_s_patterns_clean_it(door, shop):
    with_reasons(shop)
    low(door)
    door.says("My card is 4111 1111 1111 1111")
    assert "4111" not in Rating.objects.get().comment


def test_the_question_and_the_thanks_come_together_or_not_at_all(shop):
    for given in ({"why": WHY}, {"thanks": THANKS}):
        with pytest.raises(IntegrityError), transaction.atomic():
            survey(shop, **given)
    with_reasons(shop).full_clean()
