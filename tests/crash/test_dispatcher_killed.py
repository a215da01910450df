"""kill -9 of a dispatcher, at every point of a reply's way; another one goes on with what the rows say."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import count

import pytest

from conversations.models import Chunk, Conversation, Message, Turn
from tests.crash.stage import Hold, eventually

numbers = count()


@pytest.fixture
def person() -> str:
    """Somebody new."""
    return f"5199999{next(numbers):04}"


@contextmanager
def the_engine(convo):
    hold = Hold()

    def reply(messages):
        hold()
        return "Hello from the model"

    convo.openai.reply = reply
    try:
        yield hold.reached
    finally:
        hold.go_on()


@contextmanager
def the_provider(convo, moment):
    hold = Hold()
    setattr(convo.meta, moment, hold)
    try:
        yield hold.reached
    finally:
        hold.go_on()


def the_database(table, when, convo):
    return convo.held(table, when)


# Where the dispatcher is held, and killed. Nothing has left for the provider yet.
BEFORE_IT_LEAVES = {
    "as it claims the reply": partial(the_database, "conversation_turns", "NEW.prompt IS NULL"),
    "as it keeps the prompt": partial(the_database, "conversation_turns", "NEW.prompt IS NOT NULL"),
    "while the model writes": the_engine,
    "as it commits the reply": partial(the_database, "conversation_chunks", "NEW.role = 'ai'"),
    "as it ends the turn": partial(the_database, "conversation_turns", "NEW.status = 'committed'"),
    "as it claims the message": partial(the_database, "conversation_messages", "NEW.status = 'claimed'"),
    "just before the bytes go": partial(the_database, "conversation_messages", "NEW.status = 'sending'"),
}
# The provider has the bytes.
AFTER_IT_LEFT = {
    "while the provider answers": partial(the_provider, moment="after"),
    "before it notes that the provider took it": partial(the_database, "conversation_messages", "NEW.status = 'sent'"),
}


@pytest.mark.parametrize("point", BEFORE_IT_LEAVES.values(), ids=BEFORE_IT_LEAVES)
def test_a_reply_that_had_not_left_is_written_and_sent_once(convo, dispatcher, person, point):
    with point(convo) as reached:
        convo.says("Hello", person)
        reached()
        dispatcher.kill()
        convo.begin_dispatcher()
    convo.becomes_quiet()

    [conversation] = Conversation.objects.filter(contact__phone=f"+{person}")
    [chunk] = Chunk.objects.filter(conversation=conversation, role="ai")
    [message] = Message.objects.filter(conversation=conversation)
    assert (message.status, message.text) == ("sent", chunk.content)
    assert convo.sent_to(person) == [chunk.content]
    assert Turn.objects.filter(conversation=conversation, status="committed").count() == 1
    convo.assert_everything_went_once()


@pytest.mark.parametrize("point", AFTER_IT_LEFT.values(), ids=AFTER_IT_LEFT)
def test_a_message_that_may_have_left_is_not_sent_again_and_a_receipt_settles_it(convo, dispatcher, person, point):
    with point(convo) as reached:
        convo.says("Hello", person)
        reached()
        dispatcher.kill()
        convo.begin_dispatcher()
    message = eventually(
        lambda: Message.objects.filter(conversation__contact__phone=f"+{person}", status="unknown").first(),
        "the message is known to be unclear",
    )
    assert message.code == "interrupted"
    convo.says("Are you there?", person)
    eventually(lambda: Message.objects.filter(to_address=person).count() == 2, "the second reply is written")
    assert len(convo.sent_to(person)) == 1, "sent again, or the second before the first is clear"
    convo.assert_everything_went_once()

    [taken] = [sent for sent in convo.meta.sent if sent.to == person]
    assert taken.our_message_id == str(message.pk)
    assert convo.post(convo.meta.status_webhook(taken, "delivered")).status_code == 200

    message.refresh_from_db()
    assert (message.status, message.provider_message_id) == ("delivered", taken.wamid)
    convo.becomes_quiet()
    assert len(convo.sent_to(person)) == 2
    convo.assert_everything_went_once()


def test_a_message_that_the_provider_never_took_is_shown_to_be_unclear_and_stays_unsent(convo, dispatcher, person):
    with the_provider(convo, "before") as reached:
        convo.says("Hello", person)
        reached()
        dispatcher.kill()
        convo.meta.before = convo.meta.handle = lambda *_: None  # what it held is lost with its connection
        convo.begin_dispatcher()
        eventually(
            lambda: Message.objects.filter(to_address=person, status="unknown").exists(),
            "the message is known to be unclear",
        )
    del convo.meta.handle
    convo.meta.before = lambda: None
    assert convo.sent_to(person) == []
    convo.becomes_quiet()
    convo.assert_everything_went_once()


def test_killed_again_and_again_whatever_it_is_doing_every_message_is_answered_once(convo, dispatcher):
    convo.openai.reply = lambda messages: "Hello"
    people = [f"5199998{number:04}" for number in range(12)]
    for person in people:
        convo.says("Hello", person)
    for _ in range(3):
        begun = Turn.objects.count()
        dispatcher.kill()
        dispatcher = convo.start_dispatcher()
        eventually(lambda begun=begun: Turn.objects.count() > begun or convo.nothing_is_due(), "it begins something")
    convo.becomes_quiet()

    for person in people:
        [message] = Message.objects.filter(to_address=person)
        assert message.status in ("sent", "unknown")
        assert Chunk.objects.filter(conversation=message.conversation, role="ai").count() == 1
        assert len(convo.sent_to(person)) == 1 or message.status == "unknown"
    convo.assert_everything_went_once()
