"""Receipts: which rows a provider's word moves, how far, and what it leaves alone."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.db import transaction

from channels_out.events import Receipt, WatermarkReceipt
from channels_out.kinds import ReceiptStatus
from conversations.models import (
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    InboundEvent,
    Message,
)
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.delivery import receipts, receipts_bulk
from tests import factories

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SECOND, MOMENT = timedelta(seconds=1), timedelta(microseconds=1)
ANN, BOB = "51999999999", "51999999998"
TIMES = ("sent_at", "delivered_at", "read_at")


@pytest.fixture
def account(shop: Client) -> ChannelAccount:
    return ChannelAccount.objects.get(client=shop, channel="messenger")


def conversation_with(account: ChannelAccount, address: str) -> Conversation:
    contact = factories.ContactFactory(client=account.client)
    found = factories.ConversationFactory(
        client=account.client, contact=contact, channel=account.channel, channel_account=account
    )
    ContactIdentity.objects.create(
        contact=contact, client=account.client, channel=account.channel, kind="psid", address=address
    )
    return found


def message(account: ChannelAccount, address: str = ANN, conversation: Conversation | None = None, **more: Any) -> Any:
    conversation = conversation or conversation_with(account, address)
    chunk = Chunk.objects.create(conversation=conversation, position=Chunk.objects.count() + 3, role="ai", content="Hi")
    usual = {"conversation": conversation, "chunk": chunk, "channel_account": account, "to_address": address}
    sent = {"to_kind": "psid", "text": "Hi", "status": "sent", "provider_message_id": f"m{chunk.pk}"}
    return Message.objects.create(**{**usual, **sent, "sending_at": NOW, **more})


def receipt(about: Message | str, status: str, **more: Any) -> Receipt:
    named = about if isinstance(about, str) else about.provider_message_id
    return Receipt("sandbox", named, ReceiptStatus(status), **{"occurred_at": NOW, **more})


def state(message: Message) -> tuple[Any, ...]:
    message.refresh_from_db()
    return (message.status, *(getattr(message, name) for name in TIMES))


def in_bulk(account: ChannelAccount, *said: Receipt) -> set[str]:
    return finish(receipts_bulk.apply(THIS_THREAD, account.pk, said))


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
        found = receipts.lock_if_failed(sent.conversation_id, kept)
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
