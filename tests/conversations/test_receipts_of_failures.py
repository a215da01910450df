"""Receipts that are numbered, that report a failure, or that are about an earlier attempt."""

from __future__ import annotations

import pytest
from django.db import transaction

from conversations.models import (
    ChannelAccount,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    Message,
)
from conversations.services.core.sql import row
from conversations.services.delivery import receipts
from tests.conversations.reported import BOB, MOMENT, NOW, SECOND, conversation_with, message, receipt, state
from tests.races.threads import Lane, eventually

pytestmark = pytest.mark.django_db

WAITS_FOR_US = "SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"


@pytest.fixture
def account(shop: Client) -> ChannelAccount:
    return ChannelAccount.objects.get(client=shop, channel="messenger")


# --- numbered receipts ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "after"), [(4, "delivered"), (5, "delivered"), (6, "read")], ids=["older", "the same", "newer"]
)
def test_the_higher_number_wins(account, number, after):
    ours = message(account, status="delivered", receipt_sequence=5)
    receipts.apply(account, receipt(ours, "read", sequence=number))
    assert state(ours)[0] == after
    assert ours.receipt_sequence == max(number, 5)


def test_a_newer_number_overrules_a_failure_and_clears_its_reason(account):
    ours = message(account, status="failed", failed_at=NOW, code="30", reason="No.", receipt_sequence=1)
    receipts.apply(account, receipt(ours, "sent", sequence=2))
    assert state(ours) == ("sent", NOW, None, None)
    assert (ours.failed_at, ours.code, ours.reason) == (None, "", "")


@pytest.mark.parametrize(("before", "number"), [(None, 2), (1, None)], ids=["of our own", "without a number"])
def test_a_failure_that_is_not_numbered_or_by_a_receipt_that_is_not_stays(account, before, number):
    ours = message(account, status="failed", failed_at=NOW, code="30", receipt_sequence=before)
    receipts.apply(account, receipt(ours, "delivered", sequence=number))
    assert state(ours)[0] == "failed"
    assert (ours.failed_at, ours.code) == (NOW, "30")


def test_a_number_counts_for_the_attempt_that_it_is_about(account):
    ours = message(account, provider_message_id="m2", receipt_sequence=1)
    receipts.apply(account, receipt("m1", "delivered", our_message_id=str(ours.pk), sequence=9))
    assert state(ours)[0] == "delivered"
    assert ours.receipt_sequence == 1
    unnamed = message(account, BOB, provider_message_id="", status="unknown")
    receipts.apply(account, receipt("m3", "sent", our_message_id=str(unnamed.pk), sequence=4))
    unnamed.refresh_from_db()
    assert (unnamed.receipt_sequence, unnamed.provider_message_id) == (4, "m3")


# --- failures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", ["delivered", "read", "failed"])
def test_a_failure_changes_nothing_of_what_arrived_or_has_failed(account, status):
    ours = message(account, status=status, code="first")
    receipts.apply(account, receipt(ours, "failed", code="second", reason="No."))
    assert state(ours)[0] == status
    assert (ours.code, ours.reason) == ("first", "")
    assert not ConversationEvent.objects.exists()


def test_a_failure_says_why_cancels_the_parts_after_it_and_frees_the_message(account):
    ours = message(account, part=2, parts=5, lease_token=account.client_id, lease_until=NOW)
    parts = {
        number: Message.objects.create(
            conversation=ours.conversation,
            chunk=ours.chunk,
            part=number,
            parts=5,
            to_kind="psid",
            status=status,
            code="",
        )
        for number, status in ((1, "queued"), (3, "queued"), (4, "claimed"))
    }
    elsewhere = message(account, conversation=ours.conversation, part=3, parts=3, status="queued")
    receipts.apply(account, receipt(ours, "failed", code="c" * 50, reason="r" * 600, occurred_at=NOW + SECOND))
    assert state(ours)[0] == "failed"
    assert (ours.code, ours.reason, ours.failed_at) == ("c" * 40, "r" * 500, NOW + SECOND)
    assert (ours.lease_token, ours.lease_until) == (None, None)
    assert {number: state(each)[0] for number, each in parts.items()} == {1: "queued", 3: "cancelled", 4: "claimed"}
    assert parts[3].code == receipts.EARLIER_PART
    assert state(elsewhere)[0] == "queued"
    event = ConversationEvent.objects.get(kind="message_failed")
    assert (event.conversation_id, event.cause, event.actor) == (ours.conversation_id, "c" * 40, "system")
    assert event.data == {"message_id": str(ours.pk)}


def test_parts_are_cancelled_with_the_code_and_the_reason(account):
    ours = message(account, parts=2)
    rest = Message.objects.create(
        conversation=ours.conversation, chunk=ours.chunk, part=2, parts=2, to_kind="psid", status="queued"
    )
    receipts.cancel_rest(ours, "closed", "It ended.")
    rest.refresh_from_db()
    assert (rest.status, rest.code, rest.reason) == ("cancelled", "closed", "It ended.")


@pytest.mark.parametrize(
    ("status", "named", "opts_out"),
    [("sent", True, True), ("sent", False, False), ("failed", True, False), ("delivered", True, False)],
    ids=["it fails of it", "it fails of something else", "it has failed before", "it had arrived"],
)
def test_a_failure_because_of_an_opt_out_opts_out_once_it_fails(account, status, named, opts_out):
    ours = message(account, status=status)
    receipts.apply(account, receipt(ours, "failed", code="200", opted_out=named))
    assert (account.channel in Contact.objects.get(pk=ours.conversation.contact_id).opted_out) is opts_out


def test_an_opt_out_that_is_no_failure_is_none(account):
    ours = message(account)
    receipts.apply(account, receipt(ours, "delivered", opted_out=True))
    assert Contact.objects.get(pk=ours.conversation.contact_id).opted_out == {}


@pytest.mark.django_db(transaction=True)
def test_an_opt_out_does_not_wait_for_who_only_writes_rows_beside_the_contact(account):
    ours = message(account)
    contact = ours.conversation.contact
    lane = Lane()
    with transaction.atomic():
        ContactIdentity.objects.create(
            contact=contact, client=contact.client, channel="sms", kind="phone", address="51999999997"
        )
        lane.begin(lambda: receipts.apply(account, receipt(ours, "failed", code="200", opted_out=True)))
        assert lane.ended(30), "it waits for the contact's key"
    lane.close()
    assert account.channel in Contact.objects.get(pk=contact.pk).opted_out


@pytest.mark.django_db(transaction=True)
def test_an_opt_out_waits_for_who_changes_the_contact_and_both_changes_stay(account):
    ours = message(account)
    contact_id = ours.conversation.contact_id
    lane = Lane()
    with transaction.atomic():
        Contact.objects.select_for_update().get(pk=contact_id)
        lane.begin(lambda: receipts.apply(account, receipt(ours, "failed", code="200", opted_out=True)))
        eventually(lambda: row(WAITS_FOR_US), "the receipt waits for the contact")
        Contact.objects.filter(pk=contact_id).update(opted_out={"sms": {"word": "STOP"}})
    assert lane.ended(30)
    lane.close()
    assert set(Contact.objects.get(pk=contact_id).opted_out) == {"sms", account.channel}


# --- an account that is refused ---------------------------------------------------------------------------------------
def refused(about: Message) -> None:
    receipts.apply(about.channel_account, receipt(about, "failed", code="190", reason="Expired.", account_broken=True))


def test_a_refused_account_waits_for_staff_and_its_message_for_the_account(account):
    ours = message(account, attempts=2, sent_at=NOW, receipt_sequence=3, lease_until=NOW)
    first_id = ours.provider_message_id
    refused(ours)
    assert state(ours) == ("queued", None, None, None)
    assert (ours.attempts, ours.provider_message_id, ours.receipt_sequence) == (1, "", None)
    assert (ours.code, ours.reason, ours.sending_at, ours.failed_at, ours.lease_until) == (
        *("190", "Expired.", None),
        *(None, None),
    )
    assert ours.due_at > NOW - SECOND
    account.refresh_from_db()
    assert (account.health, account.health_reason) == ("broken", "190: Expired.")
    waits = ConversationEvent.objects.get(kind="message_waits")
    assert (waits.cause, waits.data) == ("190", {"message_id": str(ours.pk), "provider_message_id": first_id})


def test_a_message_that_was_never_tried_again_waits_without_a_try(account):
    ours = message(account, attempts=0)
    refused(ours)
    ours.refresh_from_db()
    assert (ours.status, ours.attempts) == ("queued", 0)


@pytest.mark.parametrize("mended", [NOW, NOW - MOMENT], ids=["after it was begun", "before it was begun"])
def test_a_refusal_of_what_was_begun_before_the_repair_breaks_nothing(account, mended):
    ChannelAccount.objects.filter(pk=account.pk).update(mended_at=mended)
    ours = message(account)
    refused(ours)
    assert state(ours)[0] == "queued"
    account.refresh_from_db()
    assert account.health == ("ok" if mended == NOW else "broken")


@pytest.mark.parametrize("how", ["it was cancelled", "its conversation ended", "it has no account any more"])
def test_what_does_not_go_again_fails_though_the_account_is_refused(account, how):
    ours = message(account, status="cancelled" if how == "it was cancelled" else "sent")
    if how == "its conversation ended":
        Conversation.objects.update(status="closed", ended_at=NOW, ended_by="staff")
    if how == "it has no account any more":
        with transaction.atomic():
            held = Message.objects.select_for_update().get(pk=ours.pk)
            held.channel_account = None
            receipts.advance(held, receipt(ours, "failed", code="190", account_broken=True))
    else:
        refused(ours)
    assert state(ours)[0] == "failed"
    account.refresh_from_db()
    assert account.health == ("broken" if how == "its conversation ended" else "ok")


# --- earlier attempts -------------------------------------------------------------------------------------------------
def test_a_failure_of_an_attempt_before_this_one_says_nothing_of_it(account):
    ours = message(account, provider_message_id="m2")
    receipts.apply(account, receipt("m1", "failed", our_message_id=str(ours.pk)))
    assert state(ours)[0] == "sent"


@pytest.mark.parametrize(
    ("status", "said", "after"),
    [
        ("queued", "failed", "queued"),
        ("claimed", "failed", "claimed"),
        ("unknown", "failed", "failed"),
        ("unknown", "sent", "sent"),
        ("queued", "sent", "sent"),
    ],
)
def test_what_waits_to_go_again_does_not_fail_by_the_attempt_before(account, status, said, after):
    ours = message(account, status=status, provider_message_id="")
    receipts.apply(account, receipt("m1", said, our_message_id=str(ours.pk)))
    assert state(ours)[0] == after


@pytest.mark.parametrize("kind", [*receipts.QUEUED_AGAIN, "message_unknown"])
@pytest.mark.parametrize("of", ["this attempt", "another attempt", "another message"])
def test_the_ledger_knows_the_attempts_after_which_a_message_was_queued_again(account, kind, of):
    ours = message(account, status="queued", provider_message_id="")
    data = {
        "message_id": str(account.pk if of == "another message" else ours.pk),
        "provider_message_id": "m0" if of == "another attempt" else "m1",
    }
    ConversationEvent.objects.create(conversation=ours.conversation, kind=kind, data=data, actor="system")
    receipts.apply(account, receipt("m1", "sent", our_message_id=str(ours.pk)))
    is_earlier = of == "this attempt" and kind in receipts.QUEUED_AGAIN
    assert state(ours)[0] == ("queued" if is_earlier else "sent")


def test_the_ledger_of_another_conversation_says_nothing_of_the_message(account):
    ours = message(account, status="queued", provider_message_id="")
    data = {"message_id": str(ours.pk), "provider_message_id": "m1"}
    elsewhere = conversation_with(account, BOB)
    ConversationEvent.objects.create(conversation=elsewhere, kind="message_resent", data=data, actor="system")
    receipts.apply(account, receipt("m1", "sent", our_message_id=str(ours.pk)))
    assert state(ours)[0] == "sent"
