"""The database did what it was asked for and its answer was lost; or it went away and came back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from conversations.engines.contract import EngineError, Reply
from conversations.models import Chunk, Conversation, InboundEvent, Message, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.sql import row, with_retry
from conversations.services.delivery import claiming, recovery, sending
from conversations.services.inbound import messages as inbound
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import send
from tests.fakes.meta import FakeMeta
from tests.races import doors
from tests.races.invariants import assert_sound
from tests.races.threads import together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def answer_of_commit_is_lost(monkeypatch):
    """The next COMMIT is done, and then the connection breaks."""
    commit = BaseDatabaseWrapper._commit
    lost = []

    def commit_and_break(self):
        commit(self)
        if not lost:
            lost.append(True)
            self.connection.close()
            raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", commit_and_break)
    return lost


@pytest.fixture
def claimed(account):
    """A message that is claimed: its id and the claim's token."""
    conversation_id = doors.provider(account)("Hello")["conversation_id"]
    send.send(conversation_id, "Hi", actor=SYSTEM, now=timezone.now())
    token, [claimed] = claiming.claim(timezone.now(), 1)
    return claimed, token


def test_a_connection_that_the_server_ended_is_replaced_before_it_is_used():
    """As when PostgreSQL was restarted while nothing was asked."""
    row("SELECT 1")
    ended = row("SELECT pg_backend_pid()")[0]
    together(lambda: row("SELECT pg_terminate_backend($1, 10000)", ended))
    connection.close_if_unusable_or_obsolete()  # what every request, and every look of a dispatcher, begins with

    assert row("SELECT 1") == (1,)
    assert row("SELECT pg_backend_pid()") != (ended,)


def test_a_message_whose_beginning_was_written_unheard_is_sent(claimed, answer_of_commit_is_lost):
    held = with_retry(sending.begin, *claimed, timezone.now())

    assert answer_of_commit_is_lost
    assert held is not None, "nothing left yet, and it would be unknown for ever"
    assert Message.objects.get().status == "sending"


def test_a_send_whose_outcome_was_written_unheard_is_written_once(claimed, answer_of_commit_is_lost):
    answer_of_commit_is_lost.append("not yet")
    held = sending.begin(*claimed, timezone.now())
    answer_of_commit_is_lost.clear()
    with_retry(sending.record_sent, held, SendResult("wamid.1"), timezone.now())

    assert answer_of_commit_is_lost
    assert Message.objects.get().status == "sent"
    assert_sound()


def test_a_refusal_that_was_written_unheard_counts_once(claimed, answer_of_commit_is_lost):
    answer_of_commit_is_lost.append("not yet")
    held = sending.begin(*claimed, timezone.now())
    answer_of_commit_is_lost.clear()
    with_retry(sending.record_failed, held, SendError("Later.", code="http_503", retryable=True), timezone.now())

    message = Message.objects.get()
    assert (message.status, message.attempts, message.code) == ("queued", 1, "http_503")


def test_a_reply_that_was_committed_unheard_is_said_once(own_json, answer_of_commit_is_lost):
    answer_of_commit_is_lost.append("not yet")
    own_json("Hello")
    [turn] = leases.claim(timezone.now(), 1)
    answer_of_commit_is_lost.clear()
    with_retry(pipeline.commit, turn, Reply("Hi", "offline"), timezone.now())

    assert answer_of_commit_is_lost
    assert Chunk.objects.filter(role="ai").count() == 1
    assert Turn.objects.get().status == "committed"
    assert not Conversation.objects.get().reply_owed
    assert_sound()


def test_a_fallback_that_was_committed_unheard_is_said_once(own_json, answer_of_commit_is_lost):
    answer_of_commit_is_lost.append("not yet")
    own_json("Hello")
    [turn] = leases.claim(timezone.now(), 1)
    answer_of_commit_is_lost.clear()
    with_retry(pipeline.fail, turn, EngineError("No.", code="x", retryable=False), timezone.now())

    assert Chunk.objects.filter(role="ai").count() == 1
    assert_sound()


def test_a_message_that_was_stored_unheard_is_not_stored_again(says, answer_of_commit_is_lost):
    messages = [{"message_id": "m1"}, {"message_id": "m2", "phone": "+51999999999", "name": "Ann"}]
    unheard = 0
    for message in messages:
        try:
            says("Hello", **message)
        except (OperationalError, AssertionError):  # the second at the latest: its phone is learned in a transaction
            unheard += 1
    assert unheard == 1
    connection.close()
    for message in messages:
        says("Hello", **message)

    assert Conversation.objects.get().inbound_sequence == 2
    assert_sound()


def test_a_send_that_never_left_is_tried_again_though_its_lease_ended_meanwhile(claimed, settings):
    """The database was away for longer than the lease, and another process was the first to look."""
    held = sending.begin(*claimed, timezone.now())
    recovery.recover(timezone.now() + timedelta(seconds=settings.LEASE_SECONDS + 1))
    assert Message.objects.get().status == "unknown"
    sending.record_failed(held, SendError("Nobody there.", code="connect", retryable=True), timezone.now())

    assert (Message.objects.get().status, Message.objects.get().code) == ("queued", "connect")


def test_an_unclear_send_stays_unclear_though_its_lease_ended_meanwhile(claimed, settings):
    held = sending.begin(*claimed, timezone.now())
    recovery.recover(timezone.now() + timedelta(seconds=settings.LEASE_SECONDS + 1))
    sending.record_failed(held, SendError("No answer.", code="timeout", ambiguous=True), timezone.now())

    assert Message.objects.get().status == "unknown"


def test_an_answer_that_comes_after_the_lease_ended_counts(claimed, settings):
    held = sending.begin(*claimed, timezone.now())
    recovery.recover(timezone.now() + timedelta(seconds=settings.LEASE_SECONDS + 1))
    sending.record_sent(held, SendResult("wamid.1"), timezone.now())

    assert Message.objects.get().status == "sent"
    assert_sound()


def test_a_provider_is_told_to_come_back_when_its_message_cannot_get_through_the_crowd(account, monkeypatch, client):
    monkeypatch.setattr(inbound, "TRIES", 0)
    with FakeMeta(account.address, app_secret="secret") as meta:
        webhook = meta.text_webhook("Hello")
    answer = client.post(
        "/webhooks/whatsapp/inbound", webhook.body, content_type="application/json", headers=dict(webhook.headers)
    )

    assert answer.status_code == 503, "an answer of 200 would be the last that is heard of the message"
    assert not InboundEvent.objects.exists()
