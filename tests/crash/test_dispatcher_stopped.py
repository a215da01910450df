"""SIGTERM to a dispatcher at work: it ends what it began, gives back what it cannot end, and nothing is doubled."""

from __future__ import annotations

import pytest

from conversations.models import Chunk, Conversation, Message, Turn
from tests.crash.stage import Hold, eventually

VARIABLES = {"LEASE_SECONDS": "30"}
ANN, BEN, CLEO = "51999990001", "51999990002", "51999990003"


@pytest.fixture(autouse=True)
def _nobody_yet(convo, web):
    yield
    for dispatcher in convo.dispatchers():
        dispatcher.kill()
    Conversation.objects.all().delete()
    convo.meta.sent.clear()


def test_it_ends_what_it_began_and_begins_nothing_more(convo):
    model, provider = Hold(), Hold()
    convo.openai.reply = lambda messages: "Hello"
    convo.meta.before = provider
    dispatcher = convo.start_dispatcher("--patience", "60")
    convo.says("one", ANN)
    provider.reached()  # Ann's answer is on its way
    convo.openai.reply = lambda messages: model() or "Hello"
    convo.says("two", BEN)
    model.reached()  # Ben's is being written
    dispatcher.terminate()
    convo.says("three", CLEO)
    assert dispatcher.is_alive
    provider.go_on()
    model.go_on()

    assert dispatcher.wait() == 0
    assert "Traceback" not in dispatcher.log.read_text()
    assert not Turn.objects.exclude(status="committed").exists()
    assert convo.sent_to(ANN) == ["Hello"]
    assert Chunk.objects.filter(role="ai", conversation__contact__phone=f"+{BEN}").count() == 1
    assert Conversation.objects.get(reply_owed=True).contact.phone == f"+{CLEO}"
    assert not Message.objects.exclude(status__in=["sent", "queued"]).exists()

    convo.begin_dispatcher()
    convo.becomes_quiet()
    assert [convo.sent_to(person) for person in (ANN, BEN, CLEO)] == [["Hello"]] * 3
    convo.assert_everything_went_once()


def test_what_takes_longer_than_its_patience_is_given_back_at_once(convo):
    model = Hold()
    convo.openai.reply = lambda messages: model() or "Hello"
    dispatcher = convo.start_dispatcher("--patience", "0.3")
    convo.says("one", ANN)
    model.reached()

    assert dispatcher.stop() == 0
    assert "Traceback" not in dispatcher.log.read_text()
    [turn] = Turn.objects.all()
    assert (turn.status, turn.code) == ("abandoned", "stopped")
    assert Conversation.objects.get().reply_owed

    convo.begin_dispatcher()
    convo.becomes_quiet()  # long before the lease of 30 seconds is over, or this would not end in time on its own
    model.go_on()
    assert convo.sent_to(ANN) == ["Hello"]
    convo.assert_everything_went_once()


def test_a_send_that_takes_longer_than_its_patience_becomes_unclear_and_is_not_repeated(convo):
    provider = Hold()
    convo.openai.reply = lambda messages: "Hello"
    convo.meta.after = provider
    dispatcher = convo.start_dispatcher("--patience", "0.3")
    convo.says("one", ANN)
    provider.reached()

    assert dispatcher.stop() == 0
    assert Message.objects.get().status == "sending"
    Message.objects.update(lease_until="2020-01-01T00:00:00+00:00")  # half a minute later
    convo.begin_dispatcher()
    eventually(lambda: Message.objects.get().status == "unknown", "the message is known to be unclear")
    provider.go_on()
    assert convo.sent_to(ANN) == ["Hello"]
    convo.assert_everything_went_once()
