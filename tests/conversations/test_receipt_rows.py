"""Receipts: which rows a provider's word moves, how far, and what it leaves alone."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
import pytest
from django.db import transaction

from channels_out.events import Receipt, WatermarkReceipt
from channels_out.kinds import ReceiptStatus
from conversations.models import (
    ChannelAccount,
    Client,
    Contact,
    InboundEvent,
)
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.delivery import receipts, receipts_bulk
from tests import factories
from tests.conversations.reported import ANN, BOB, MOMENT, NOW, SECOND, conversation_with, message, receipt, state

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(shop: Client) -> ChannelAccount:
    return ChannelAccount.objects.get(client=shop, channel="messenger")


def in_bulk(account: ChannelAccount, *said: Receipt) -> set[str]:
    return finish(receipts_bulk.apply(THIS_THREAD, account.client_id, account.pk, said))


# --- until a moment ---------------------------------------------------------------------------------------------------
def seen(account: ChannelAccount, status: str = "read", until: datetime = NOW, sender: str = ANN) -> WatermarkReceipt:
    return WatermarkReceipt(account.address, sender, ReceiptStatus(status), until)


def test_what_was_sent_until_the_very_moment_is_read_and_nothing_after_it(account):
    talk = conversation_with(account, ANN)
    then, after = message(account, conversation=talk), message(account, conversation=talk, sending_at=NOW + MOMENT)
    assert receipts.apply_watermark(account, seen(account)) == 1
    assert state(then) == ("read", NOW, NOW, NOW)
    assert state(after) == ("sent", None, None, None)


def test_times_that_are_known_stay(account):
    known = {"sent_at": NOW - 3 * SECOND, "delivered_at": NOW - 2 * SECOND}
    both = message(account, **known, sending_at=NOW - 4 * SECOND)
    receipts.apply_watermark(account, seen(account))
    assert state(both) == ("read", *known.values(), NOW)


def test_what_was_delivered_is_not_read(account):
    delivered = message(account)
    receipts.apply_watermark(account, seen(account, "delivered"))
    assert state(delivered) == ("delivered", NOW, NOW, None)
    assert receipts.apply_watermark(account, seen(account, "delivered", NOW + SECOND)) == 0


@pytest.mark.parametrize("status", ["queued", "claimed", "sending", "unknown", "failed", "cancelled", "read"])
def test_a_moment_says_nothing_of_what_was_not_sent_or_is_read_already(account, status):
    other = message(account, status=status)
    assert receipts.apply_watermark(account, seen(account, until=NOW + SECOND)) == 0
    assert state(other)[0] == status


def test_a_moment_is_about_one_person_over_one_account(account, shop):
    other_account = factories.SandboxFactory(client=shop, channel="messenger", address="second")
    theirs = message(account, BOB)
    talk = conversation_with(account, ANN)
    ours = message(account, conversation=talk)
    by_another = message(other_account, ANN, conversation=talk)
    to_another_address = message(account, "52", conversation=talk)
    assert receipts.apply_watermark(account, seen(account)) == 1
    assert [state(each)[0] for each in (ours, theirs, by_another, to_another_address)] == ["read", *["sent"] * 3]


def test_a_moment_is_about_the_conversation_on_its_channel_alone(account, shop):
    """The person's address on this channel happens to be theirs on another one too."""
    talk = conversation_with(account, ANN)
    elsewhere = factories.ConversationFactory(client=shop, contact=talk.contact, channel="sms", channel_account=account)
    other = message(account, conversation=elsewhere)
    assert receipts.apply_watermark(account, seen(account)) == 0
    assert state(other)[0] == "sent"


@pytest.mark.parametrize(
    ("sending", "is_kept"),
    [
        ({}, True),
        ({"sending_at": NOW + MOMENT}, False),
        ({"status": "claimed"}, False),
        ({"to_address": BOB}, False),
        ({"channel_account": None}, False),
    ],
    ids=["to them", "begun after it", "not being sent", "to somebody else", "over no account"],
)
def test_a_moment_is_kept_where_a_message_to_the_person_is_just_being_sent(account, sending, is_kept):
    message(account, **{"status": "sending", "provider_message_id": "", **sending})
    kept: list[bool] = []
    receipts.apply_watermark(account, seen(account), lambda: kept.append(True))
    assert kept == [True] * is_kept


@pytest.mark.parametrize("until", [NOW, NOW - MOMENT])
def test_a_kept_moment_counts_for_what_was_begun_until_then(account, until):
    sent = message(account, status="sent")
    raw = orjson.loads(orjson.dumps(asdict(seen(account, until=until))))
    event = InboundEvent.objects.create(
        channel_account=account, provider="sandbox", kind="watermark", reason=receipts.UNMATCHED, raw=raw
    )
    receipts.apply_early(sent, [event], None)
    assert state(sent)[0] == ("read" if until == NOW else "sent")
    assert not InboundEvent.objects.exists()


def test_a_kept_moment_says_nothing_of_what_never_began(account):
    sent = message(account, sending_at=None)
    raw = orjson.loads(orjson.dumps(asdict(seen(account))))
    event = InboundEvent.objects.create(
        channel_account=account, provider="sandbox", kind="watermark", reason=receipts.UNMATCHED, raw=raw
    )
    receipts.apply_early(sent, [event], None)
    assert state(sent)[0] == "sent"


# --- early receipts ---------------------------------------------------------------------------------------------------
def keep(account: ChannelAccount, about: str, raw: dict[str, Any], reason: str = receipts.UNMATCHED) -> InboundEvent:
    return InboundEvent.objects.create(
        channel_account=account, provider="sandbox", kind="receipt", reason=reason, message_id=about, raw=raw
    )


def test_early_receipts_are_those_of_the_account_about_the_message_in_their_order(account, shop):
    first, second = keep(account, "m1", {}), keep(account, "m2", {})
    keep(account, "m3", {})
    keep(account, "m1", {}, "unknown_type")
    keep(ChannelAccount.objects.get(client=shop, channel="sms"), "m1", {})
    assert receipts.early_receipts(account.pk, ["m2", "m1"]) == [first, second]


def test_a_kept_failure_that_says_no_more_breaks_no_account_and_opts_nobody_out(account):
    """Receipts that were kept by an earlier release have fewer fields."""
    unclear = message(account, status="unknown", provider_message_id="")
    raw = {"account": "sandbox", "provider_message_id": "m1", "status": "failed", "our_message_id": str(unclear.pk)}
    assert receipts.replay(account, keep(account, "m1", raw))
    unclear.refresh_from_db()
    assert (unclear.status, unclear.code, unclear.reason, unclear.receipt_sequence) == ("failed", "", "", None)
    assert unclear.failed_at is not None
    account.refresh_from_db()
    assert account.health == "ok"
    assert Contact.objects.get(pk=unclear.conversation.contact_id).opted_out == {}


def test_a_kept_receipt_is_replayed_with_all_that_it_said(account):
    unclear = message(account, status="unknown", provider_message_id="")
    said = receipt("m1", "failed", our_message_id=str(unclear.pk), code="131026", reason="No.", sequence=7)
    assert receipts.replay(account, keep(account, "m1", orjson.loads(orjson.dumps(asdict(said)))))
    unclear.refresh_from_db()
    assert (unclear.status, unclear.code, unclear.reason) == ("failed", "131026", "No.")
    assert (unclear.failed_at, unclear.receipt_sequence, unclear.provider_message_id) == (NOW, 7, "m1")


def test_a_replayed_moment_says_whether_it_found_a_message(account):
    raw = orjson.loads(orjson.dumps(asdict(seen(account))))
    assert not receipts.replay(account, keep(account, "", raw))
    sent = message(account)
    assert receipts.replay(account, keep(account, "", raw))
    assert state(sent)[0] == "read"


@pytest.mark.parametrize(("said", "is_locked"), [(["sent", "failed"], True), (["sent", "read"], False), ([], False)])
def test_the_conversation_is_locked_first_where_a_kept_receipt_is_a_failure(account, said, is_locked):
    sent = message(account)
    kept = [keep(account, "m1", orjson.loads(orjson.dumps(asdict(receipt("m1", each))))) for each in said]
    with transaction.atomic():
        found = receipts.lock_if_failed(sent.client_id, sent.conversation_id, kept)
    assert (found == sent.conversation) is is_locked
    assert found is None or is_locked


# --- one receipt ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("in_which", ["general", "bulk"])
@pytest.mark.parametrize(
    ("before", "said", "after"),
    [
        ("sending", "sent", "sent"),
        ("unknown", "sent", "sent"),
        ("sent", "sent", "sent"),
        ("sent", "delivered", "delivered"),
        ("sending", "read", "read"),
        ("delivered", "sent", "delivered"),
        ("delivered", "delivered", "delivered"),
        ("delivered", "read", "read"),
        ("read", "delivered", "read"),
        ("read", "sent", "read"),
    ],
)
def test_both_forms_move_a_message_forward_alone(account, in_which, before, said, after):
    ours = message(account, status=before, lease_token=account.client_id, lease_until=NOW)
    if in_which == "bulk":
        assert in_bulk(account, receipt(ours, said)) == {ours.provider_message_id}
    else:
        assert receipts.apply(account, receipt(ours, said))
    moved = before != after
    count = {"sent": 1, "delivered": 2, "read": 3}[after] if moved else 0
    assert state(ours) == (after, *[NOW] * count, *[None] * (3 - count))
    assert (ours.lease_token is None, ours.lease_until is None) == (moved, moved)


@pytest.mark.parametrize("in_which", ["general", "bulk"])
def test_both_forms_leave_the_times_that_are_known(account, in_which):
    ours = message(account, sent_at=NOW - SECOND, delivered_at=NOW - SECOND)
    if in_which == "bulk":
        in_bulk(account, receipt(ours, "read"))
    else:
        receipts.apply(account, receipt(ours, "read"))
    assert state(ours) == ("read", NOW - SECOND, NOW - SECOND, NOW)


@pytest.mark.parametrize("status", ["queued", "claimed", "failed", "cancelled"])
def test_the_bulk_form_leaves_what_is_not_on_its_way_to_the_general_one(account, status):
    ours = message(account, status=status)
    assert in_bulk(account, receipt(ours, "read")) == set()
    assert state(ours)[0] == status


def test_the_bulk_form_takes_each_time_from_the_earliest_receipt_that_says_so(account):
    ours, other = message(account), message(account, BOB)
    times = [("read", 9), ("delivered", 5), ("delivered", 6), ("sent", 3), ("read", 8)]
    said = [receipt(ours, status, occurred_at=NOW + at * SECOND) for status, at in times]
    found = in_bulk(account, *said, receipt(other, "delivered", occurred_at=NOW + SECOND))
    assert found == {ours.provider_message_id, other.provider_message_id}
    assert state(ours) == ("read", NOW + 3 * SECOND, NOW + 5 * SECOND, NOW + 8 * SECOND)
    assert state(other) == ("delivered", NOW + SECOND, NOW + SECOND, None)


def test_the_bulk_form_knows_its_account_s_messages_by_a_real_id_alone(account, shop):
    unclear = message(account, status="unknown", provider_message_id="")
    theirs = message(ChannelAccount.objects.get(client=shop, channel="sms"), BOB, provider_message_id="m1")
    assert in_bulk(account, receipt("", "sent"), receipt("m1", "sent")) == set()
    assert [state(each)[0] for each in (unclear, theirs)] == ["unknown", "sent"]


@pytest.mark.parametrize(
    ("said", "simple"),
    [
        ([("a", "sent", None), ("b", "read", None)], "ab"),
        ([("a", "failed", None), ("a", "sent", None), ("b", "read", None)], "b"),
        ([("a", "sent", 1), ("b", "read", None)], "b"),
        ([("a", "failed", 0)], ""),
    ],
)
def test_failures_and_numbered_receipts_take_all_of_their_message_to_the_general_form(said, simple):
    given = [receipt(about, status, sequence=sequence) for about, status, sequence in said]
    assert [each.provider_message_id for each in receipts_bulk.simple_receipts(given)] == list(simple)


def test_a_receipt_is_kept_once_the_message_is_not_found_and_not_otherwise(account):
    kept: list[str] = []
    assert not receipts.apply(account, receipt("m1", "sent"), lambda: kept.append("unknown"))
    assert receipts.apply(account, receipt(message(account), "sent"), lambda: kept.append("known"))
    assert kept == ["unknown"]


@pytest.mark.parametrize("our_id", [None, "", "not-a-uuid", "00000000-0000-0000-0000-000000000000"])
def test_a_receipt_finds_no_message_by_an_id_that_is_none_of_ours(account, our_id):
    ours = message(account, provider_message_id="")
    assert not receipts.apply(account, receipt("m1", "read", our_message_id=our_id))
    assert receipts.known_among(account, [receipt("m1", "read", our_message_id=our_id)]) == [False]
    assert state(ours)[0] == "sent"


def test_a_message_is_known_by_its_own_account_alone_by_either_id(account, shop):
    other_account = ChannelAccount.objects.get(client=shop, channel="sms")
    ours, theirs = message(account, provider_message_id="m1"), message(other_account, BOB, provider_message_id="m2")
    said = [
        receipt("m1", "sent"),
        receipt("m9", "sent", our_message_id=str(ours.pk)),
        receipt("m2", "sent"),
        receipt("m9", "sent", our_message_id=str(theirs.pk)),
        receipt("m9", "sent"),
    ]
    assert receipts.known_among(account, said) == [True, True, False, False, False]
    assert [receipts.apply(account, each) for each in said] == [True, True, False, False, False]


def test_the_provider_s_id_decides_where_ours_names_another_message(account):
    named, other = message(account, provider_message_id="m1"), message(account, BOB, status="sending")
    receipts.apply(account, receipt("m1", "read", our_message_id=str(other.pk)))
    assert [state(each)[0] for each in (named, other)] == ["read", "sending"]


def test_a_message_keeps_the_provider_s_first_id(account):
    ours = message(account, provider_message_id="m1")
    receipts.apply(account, receipt("m2", "delivered", our_message_id=str(ours.pk)))
    assert state(ours)[0] == "delivered"
    assert ours.provider_message_id == "m1"
