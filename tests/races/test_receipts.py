"""What providers say of a message, in any order and while we are still writing down that it went."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from itertools import permutations

import pytest
from django.utils import timezone

from channels_out.contract import InboundRequest, SendResult
from channels_out.errors import SendError
from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.models import Conversation, InboundEvent, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, receipts_bulk, sending
from conversations.services.inbound import settling, unprocessed
from conversations.services.jobs import sweep
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.races import doors
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

ORDERS = list(permutations(["sent", "delivered", "read"]))
REFUSED = SendError("The provider is busy.", code="http_503", retryable=True)


@pytest.fixture
def being_sent(account):
    """Makes a message whose bytes are on their way; returns it and what its dispatcher holds of it."""
    says, people = doors.provider(account), iter(range(1_000))

    def make():
        conversation_id = says("Hello", user_id=f"5199999{next(people):04}")["conversation_id"]
        _, [message] = send.send(conversation_id, "Hi", actor=SYSTEM, now=timezone.now())
        token, [claimed] = claiming.claim(timezone.now(), 1)
        assert claimed.message_id == message.pk
        return message, sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())

    return make


@pytest.fixture
def arrives(request, account, monkeypatch):
    """What the webhook does with a receipt whose signature was verified."""
    if getattr(request, "param", "") == "one by one":
        monkeypatch.setattr(receipts_bulk, "simple_receipts", lambda said: [])

    def settle(message, status, *, names_ours, code=""):
        receipt = Receipt(
            account=account.address,
            provider_message_id=f"wamid.{message.pk}",
            status=ReceiptStatus(status),
            our_message_id=str(message.pk) if names_ours else None,
            code=code,
        )
        adapter, webhook = sending.adapter_of(account), InboundRequest("POST", "", {}, {}, b"{}")
        return settling.settle_all(adapter, webhook, [receipt], {account.address: account})

    return settle


def taken(message, held):
    """The provider's answer is written down."""
    sending.record_sent(held, SendResult(f"wamid.{message.pk}"), timezone.now())


def assert_read(message):
    message.refresh_from_db()
    assert message.status == "read"
    assert message.provider_message_id == f"wamid.{message.pk}"
    assert message.sent_at
    assert message.delivered_at
    assert message.read_at
    assert message.lease_token is None
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("arrives", ["at once", "one by one"], indirect=True)
@pytest.mark.parametrize("names_ours", [True, False], ids=["with our id", "with the provider's id alone"])
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_a_message_never_goes_backwards(being_sent, arrives, order, names_ours):
    message, held = being_sent()
    if order[0] != "sent":
        arrives(message, order[0], names_ours=names_ours)  # faster than our own commit
    taken(message, held)
    reached = []
    for status in order:
        arrives(message, status, names_ours=names_ours)
        message.refresh_from_db()
        reached.append(message.status)

    rank = ["sent", "delivered", "read"]
    assert reached == [rank[max(rank.index(status) for status in order[: n + 1])] for n in range(3)]
    assert_read(message)


@pytest.mark.parametrize("names_ours", [True, False], ids=["with our id", "with the provider's id alone"])
def test_receipts_that_come_at_the_same_moment_as_our_own_commit_all_count(being_sent, arrives, names_ours):
    for round_ in range(times(len(ORDERS), 100)):
        message, held = being_sent()
        together(
            *shuffled(
                [
                    partial(taken, message, held),
                    *(
                        partial(arrives, message, status, names_ours=names_ours)
                        for status in [*ORDERS[round_ % len(ORDERS)], "delivered"]
                    ),
                ]
            )
        )
        assert_read(message)
    assert_sound()


def test_a_receipt_between_its_look_and_its_being_kept_is_not_overtaken_by_our_commit(being_sent, arrives, monkeypatch):
    message, held = being_sent()
    keep = unprocessed.store_receipt
    our_commit = threading.Thread(target=together, args=(partial(taken, message, held),), daemon=True)

    def slowly(*arguments):
        our_commit.start()  # just now; it ends at once, or waits for us
        our_commit.join(0.5)
        keep(*arguments)

    monkeypatch.setattr(unprocessed, "store_receipt", slowly)
    arrives(message, "delivered", names_ours=False)
    our_commit.join(30)

    message.refresh_from_db()
    assert message.status == "delivered"
    assert not InboundEvent.objects.exists()


def test_a_failure_that_the_provider_reports_while_we_commit_is_kept(being_sent, arrives):
    for _ in range(times(4, 50)):
        message, held = being_sent()
        together(
            *shuffled(
                [partial(taken, message, held), partial(arrives, message, "failed", names_ours=True, code="131026")]
            )
        )
        message.refresh_from_db()
        assert (message.status, message.code) == ("failed", "131026")
        assert message.lease_token is None
    assert_sound()


def test_a_late_failure_while_its_session_is_deleted_is_no_deadlock(being_sent, arrives):
    for _ in range(times(4, 50)):
        message, held = being_sent()
        taken(message, held)
        long_ago = timezone.now() - timedelta(hours=25)
        Conversation.objects.update(started_at=long_ago, last_message_at=long_ago)
        results = outcomes(
            shuffled(
                [
                    partial(sweep.sweep, timezone.now()),
                    partial(arrives, message, "failed", names_ours=True, code="131026"),
                ]
            )
        )
        assert not [result for result in results if isinstance(result, Exception)]


def test_a_send_that_was_refused_as_its_session_was_closed_is_not_tried_again(being_sent):
    for _ in range(times(4, 50)):
        message, held = being_sent()
        together(
            *shuffled(
                [
                    partial(sending.record_failed, held, REFUSED, timezone.now()),
                    partial(closing.close, message.conversation_id, ended_by="staff", actor=SYSTEM, now=timezone.now()),
                ]
            )
        )
        message.refresh_from_db()
        assert message.status == "cancelled"
    assert_sound()


def test_a_send_that_is_refused_after_its_session_expired_is_not_tried_again(being_sent):
    message, held = being_sent()
    long_ago = timezone.now() - timedelta(hours=25)
    Conversation.objects.update(is_guest=False, started_at=long_ago, last_message_at=long_ago)
    sweep.sweep(timezone.now())
    sending.record_failed(held, REFUSED, timezone.now())

    message = Message.objects.get()
    assert (message.status, message.code) == ("cancelled", "expired")
