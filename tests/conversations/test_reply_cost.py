"""The cost of an ordinary reply for PostgreSQL: its statements, and the transactions around them."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.contract import SendResult
from conversations.engines.contract import Reply
from conversations.engines.registry import ask
from conversations.models import Message
from conversations.services.delivery import claiming, read_marks, sending
from conversations.services.replies import leases, pipeline
from tests.conftest import Door

pytestmark = pytest.mark.django_db(transaction=True)

# See whose replies are due, claim, read the conversation and its messages, keep the prompt; commit; see which accounts
# have something to send, claim the message, begin to send it, record.
MOST_TRANSACTIONS = 10
MOST_STATEMENTS = 21  # one of them for whoever reads the events
AROUND = ("BEGIN", "COMMIT")


def _answer() -> list[str]:
    """Let the one owed reply be written and sent by the steps of a dispatcher, and return the statements."""
    with CaptureQueriesContext(connection) as seen:
        [turn] = leases.claim(timezone.now(), 10)
        prepared = pipeline.prepare(turn)
        assert prepared is not None
        request, engine = prepared
        if read_marks.has_marks(turn.channel):
            read_marks.mark_for_newest(turn.client_id, turn.conversation_id)
        reply = ask(engine, request)
        assert isinstance(reply, Reply)
        pipeline.commit(turn, reply, timezone.now())
        token, [claimed] = claiming.claim(timezone.now(), 10)
        ready = sending.begin(claimed, token, timezone.now())
        assert ready is not None
        result = sending.deliver(ready)
        assert isinstance(result, SendResult)
        sending.record_sent(ready, result, timezone.now())
        return [query["sql"].strip() for query in seen.captured_queries]


def _transactions(statements: list[str]) -> int:
    """Count the statements that commit by themselves, and the transactions that are begun and committed."""
    count, within = 0, False
    for statement in statements:
        within = statement == "BEGIN" or (within and statement != "COMMIT")
        count += not within
    return count


@pytest.mark.parametrize(("channel", "more"), [("sms", 0), ("whatsapp", 1)])  # on WhatsApp the read mark is looked up
def test_an_ordinary_reply_takes_so_many_transactions_and_statements(door: Door, channel: str, more: int) -> None:
    for words in ("Hello", "And another question"):
        door.says(words, channel=channel)
        statements = _answer()
        alone = [statement for statement in statements if statement not in AROUND]
        assert _transactions(statements) <= MOST_TRANSACTIONS + more
        assert len(alone) <= MOST_STATEMENTS + more, alone
    assert set(Message.objects.values_list("status", flat=True)) == {"delivered"}
