"""Helpers of tests that work until nothing is due: they end, or say what goes on for ever."""

from __future__ import annotations

import pytest

from conversations.engines import registry
from conversations.engines.contract import EngineError
from conversations.models import Conversation, Message, Turn
from tests.bounds import rounds
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import post_whatsapp
from tests.fakes.server import Fault
from tests.races.threads import eventually


class Busy:
    """An engine that is busy whenever it is asked."""

    name = "offline"

    def reply(self, request):
        raise EngineError("busy", code="rate_limited", retryable=True)


@pytest.fixture
def endless(settings):
    """Make what fails due again at once, however often it failed."""
    settings.RETRY_BASE_SECONDS = settings.RETRY_MOST_SECONDS = 0
    settings.REPLY_ATTEMPTS = settings.SEND_ATTEMPTS = 30_000


def test_a_loop_that_ends_is_counted():
    done = []
    for number in rounds("Working", most=3):
        done.append(number)
        if number == 3:
            break
    assert done == [1, 2, 3], "the last round counts too"


@pytest.mark.parametrize(
    ("state", "said"), [(lambda: ["conversation 7"], r"\['conversation 7'\]"), (str, "nothing more is known")]
)
def test_a_loop_without_end_says_what_goes_on(state, said):
    with pytest.raises(AssertionError, match=f"^Working did not end within 3 rounds: {said}$"):
        for _ in rounds("Working", state, most=3):
            pass


def test_what_is_known_is_asked_when_it_is_needed():
    for _ in rounds("Working", lambda: pytest.fail("nobody asked"), most=1):
        break


@pytest.mark.django_db
def test_replies_that_are_due_for_ever_are_named(door, endless, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "offline", Busy())
    door.says("Hello")
    with pytest.raises(AssertionError) as caught:
        reply_to_all(most=5)
    said = str(caught.value)
    assert Turn.objects.count() == 5
    assert said.startswith("Replying did not end within 5 rounds: ")
    assert f"conversation {Conversation.objects.get().pk} (active, due " in said
    assert "turn 5 failed rate_limited" in said


@pytest.mark.django_db
@pytest.mark.parametrize("may_refuse", [True, False])
def test_messages_that_are_due_for_ever_are_named(meta, account, endless, may_refuse):
    post_whatsapp(meta.text_webhook("Hello", message_id="wamid.in1"))
    assert reply_to_all() == 1
    meta.fail_next(Fault(500, {"error": {"code": 131000, "message": "Something went wrong"}}), 5)
    with pytest.raises(AssertionError) as caught:
        send_all(may_refuse=may_refuse, most=5)
    said = str(caught.value)
    message = Message.objects.get()
    assert said.startswith("Sending did not end within 5 rounds: ")
    assert f"message {message.pk} of conversation {message.conversation_id} (queued, part 1, due " in said
    assert "attempt 5 131000" in said
    assert send_all(most=2) == 1, "the server is back"


@pytest.mark.django_db
def test_what_never_comes_true_is_named(db):
    with pytest.raises(AssertionError, match=r"^not within 0 s: it snows"):
        eventually(lambda: False, "it snows", seconds=0)
