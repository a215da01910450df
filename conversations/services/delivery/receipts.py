"""Receipts: providers report what became of a message. A message's status only moves forward, in whatever order they
come in.

A receipt may be faster than our own commit of the send. Then it is stored as an unprocessed event, and the commit
applies it (`apply_early`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from channels_out.contract import Adapter
from channels_out.events import Receipt, WatermarkReceipt
from channels_out.kinds import ReceiptStatus
from conversations import traces
from conversations.models import ChannelAccount, Conversation, ConversationEvent, InboundEvent, Message
from conversations.services.core import spans
from conversations.services.core.errors import NotFoundError
from conversations.services.core.event_notes import note_delivery
from conversations.services.core.ledger import SYSTEM, record, record_in
from conversations.services.core.locking import lock, lock_contact_of
from conversations.services.core.sql import PreparedSelect, row, rows
from conversations.services.delivery import opt_outs, outbox, reply_window
from conversations.services.tenants import channel_accounts

UNMATCHED = "receipt_unmatched"
EARLIER_PART = "earlier_part_failed"
QUEUED_AGAIN = (
    "message_resent",
    "message_waits",
    "template_instead",
)  # in the ledger, with the provider's id of the earlier attempt
S = Message.Status
# The order of the statuses; failed ends a message that has not arrived.
RANK = {S.QUEUED: 0, S.CLAIMED: 0, S.SENDING: 0, S.UNKNOWN: 0, S.CANCELLED: 0, S.SENT: 1, S.DELIVERED: 2}
FURTHEST = 3  # read, and failed: nothing follows either
TIMES = {
    ReceiptStatus.SENT: ["sent_at"],
    ReceiptStatus.DELIVERED: ["sent_at", "delivered_at"],
    ReceiptStatus.READ: ["sent_at", "delivered_at", "read_at"],
}


# The messages that were sent to a person until $5. The plan starts from the person's identity, not from the account,
# which may have sent millions.
_REACH = """
    WITH theirs AS (
        SELECT m.id
        FROM contact_identities i
        JOIN conversations s ON s.client_id = $1 AND s.contact_id = i.contact_id AND s.channel || '' = $2
        JOIN conversation_messages m ON m.client_id = s.client_id AND m.conversation_id = s.id
        WHERE i.client_id = $1 AND i.channel = $2 AND i.address = $3
          AND m.channel_account_id = $4 AND m.to_address = $3 AND m.status = ANY($6::text[])
          AND m.sending_at <= $5::timestamptz
        ORDER BY m.chunk_id, m.part
        FOR UPDATE OF m
    )
    UPDATE conversation_messages m
    SET status = $7::text, sent_at = COALESCE(m.sent_at, $5), delivered_at = COALESCE(m.delivered_at, $5),
        read_at = CASE WHEN $7::text = 'read' THEN $5::timestamptz END
    FROM theirs WHERE m.client_id = $1 AND m.id = theirs.id
    RETURNING m.id"""


def apply(account: ChannelAccount, receipt: Receipt, keep: Callable[[], object] = lambda: None) -> bool:
    """Move the message to the receipt's status, unless it is further already. Returns whether we know the message.

    keep: called to store the receipt for `apply_early` if we do not know the message yet
    """
    if _apply(account, receipt):
        _note_refusal(account, receipt)
        return True
    with transaction.atomic():
        # Our own commit of the send may be just coming: either it finds the stored receipt, or we find its message now.
        lock_provider_message(receipt.provider_message_id)
        if _apply(account, receipt):
            return True
        keep()
    return False


def _note_refusal(account: ChannelAccount, receipt: Receipt) -> None:
    """Keep the person's choice about marketing, if the receipt reports that it is why the message failed."""
    adapter = outbox.adapter_or_none(account)
    if receipt.status != ReceiptStatus.FAILED or adapter is None or receipt.code not in adapter.marketing_refusals:
        return
    if message := _find(Message.objects.filter(client=account.client_id, channel_account=account), receipt):
        opt_outs.note_marketing_refusal(account.client_id, message.conversation_id, receipt.code, timezone.now())


def apply_watermark(account: ChannelAccount, event: WatermarkReceipt, keep: Callable[[], object] = lambda: None) -> int:
    """Mark every message sent to the person until the event's time as delivered or read. Returns how many changed.

    keep: called to store the event for `apply_early` if a message to the person is just being sent: the provider gives
        a time and no ids, so the event may be about that message as well
    """
    before = [S.SENT.value] if event.status == ReceiptStatus.DELIVERED else [S.SENT.value, S.DELIVERED.value]
    with transaction.atomic():
        lock_provider_message(watermark_key(event.sender))
        moved = rows(
            _REACH,
            *(account.client_id, account.channel, event.sender, account.pk),
            *(event.until, before, event.status.value),
        )
        leaving = Message.objects.filter(
            client=account.client_id, channel_account=account, to_address=event.sender, status=S.SENDING
        )
        if leaving.filter(sending_at__lte=event.until).exists():
            keep()
    said = [(str(message_id), event.status.value) for (message_id,) in moved]
    spans.note_moved(account.client_id, account.pk, said, time.time())
    return len(moved)


def watermark_key(address: str) -> str:
    """Return the key that stands for a message id where an event is about all messages to the address."""
    return f"all to {address}"


def lock_provider_message(provider_message_id: str) -> None:
    """Lock the provider's message id until the transaction ends. Call it before the message's row is locked.

    The commit of a send and the storing of a receipt that is faster look for each other's rows. At the same moment
    neither would see the other's, and the receipt would be lost.
    """
    row("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", provider_message_id)


_EARLY = PreparedSelect(
    """
    SELECT {e} FROM inbound_events e
    WHERE e.channel_account_id = $1 AND e.message_id = ANY($2::text[]) AND e.reason = $3
    ORDER BY e.id
    """,
    e=InboundEvent,
)


def early_receipts(channel_account_id: UUID, about: Sequence[str]) -> list[InboundEvent]:
    """Return the stored receipts that came before their send was committed.

    about: provider message ids and watermark keys; call `lock_provider_message` for each first
    """
    return [event for (event,) in _EARLY.all(channel_account_id, list(about), UNMATCHED)]


def _apply(account: ChannelAccount, receipt: Receipt) -> bool:
    messages = Message.objects.filter(client=account.client_id, channel_account=account)
    with transaction.atomic():
        conversation = None
        if receipt.status == ReceiptStatus.FAILED and (found := _find(messages, receipt)):
            conversation = _lock_conversation(account.client_id, found.conversation_id, opted_out=receipt.opted_out)
        message = _find(messages.select_for_update(), receipt)
        if message is None:
            return False
        was_failed = message.status == S.FAILED
        advance(message, receipt)
        if conversation and receipt.opted_out and message.status == S.FAILED and not was_failed:
            opt_outs.apply_from_provider(conversation, receipt.code, timezone.now())
    return True


def _lock_conversation(client_id: UUID, conversation_id: UUID, *, opted_out: bool) -> Conversation | None:
    """Lock the conversation, and before it the contact if they opted out. Returns None if it was deleted.

    A failure is written into the ledger, which needs the conversation's row. It is locked before the message, as
    closing and deleting do; otherwise each would wait for the other.
    """
    if opted_out:
        lock_contact_of(conversation_id, client_id)
    try:
        return lock(conversation_id, client_id)
    except NotFoundError:
        return None


def lock_if_failed(client_id: UUID, conversation_id: UUID, kept: Sequence[InboundEvent]) -> Conversation | None:
    """Lock the conversation if one of the stored receipts reports a failure, and return it; else return None.

    Call it before the message is locked.
    """
    failures = [event.raw for event in kept if event.raw["status"] == ReceiptStatus.FAILED]
    if not failures:
        return None
    return _lock_conversation(client_id, conversation_id, opted_out=any(raw.get("opted_out") for raw in failures))


def replay(account: ChannelAccount, event: InboundEvent) -> bool:
    """Apply a stored receipt once more. Returns whether it found a message."""
    raw = event.raw
    if "until" in raw:
        until = datetime.fromisoformat(raw["until"])
        return (
            apply_watermark(
                account, WatermarkReceipt(raw["account"], raw["sender"], ReceiptStatus(raw["status"]), until)
            )
            > 0
        )
    return apply(account, _receipt(raw))


def _receipt(raw: dict[str, Any]) -> Receipt:
    at = raw.get("until") or raw.get("occurred_at")
    return Receipt(
        account=raw["account"],
        provider_message_id=raw.get("provider_message_id", ""),
        status=ReceiptStatus(raw["status"]),
        occurred_at=datetime.fromisoformat(at) if at else None,
        our_message_id=raw.get("our_message_id"),
        code=raw.get("code", ""),
        reason=raw.get("reason", ""),
        sequence=raw.get("sequence"),
        account_broken=raw.get("account_broken", False),
        opted_out=raw.get("opted_out", False),
        outside_window=raw.get("outside_window", False),
    )


def apply_early(message: Message, kept: Iterable[InboundEvent], conversation: Conversation | None) -> None:
    """Apply the receipts that came before the send was committed to the locked message, and delete their rows.

    conversation: from `lock_if_failed`
    """
    for event in kept:
        if receipt := _receipt_for(message, event.raw):
            advance(message, receipt)
            if conversation and receipt.opted_out and message.status == S.FAILED:
                opt_outs.apply_from_provider(conversation, receipt.code, timezone.now())
        event.delete()


def note_early(message: Message, kept: Iterable[InboundEvent], now: datetime) -> None:
    """Record the spans of receipts that came before the send was committed. Call it after that."""
    if traces.is_on() and message.channel_account_id:
        said = [(str(message.pk), str(event.raw["status"])) for event in kept if "until" not in event.raw]
        spans.note_moved(message.client_id, message.channel_account_id, said, now.timestamp())


def _receipt_for(message: Message, raw: dict[str, Any]) -> Receipt | None:
    """Return the stored event as a receipt of the message; None if it is only about earlier messages."""
    receipt = _receipt(raw)
    if "until" not in raw:
        return receipt
    until = receipt.occurred_at
    if until is None or message.sending_at is None or message.sending_at > until:
        return None
    return replace(receipt, provider_message_id=message.provider_message_id)


def advance(message: Message, receipt: Receipt) -> None:
    """Move a locked message forward to the receipt's status, and save it.

    If the provider numbers its receipts, the one with the highest number wins, in whatever order they come in: an older
    one is ignored after a newer one, and a newer one overrules a failure.
    """
    if _is_of_earlier_attempt(message, receipt):
        return
    overrules = False
    if receipt.sequence is not None and message.provider_message_id in ("", receipt.provider_message_id):
        if message.receipt_sequence is not None and receipt.sequence <= message.receipt_sequence:
            return
        overrules = message.status == S.FAILED and message.receipt_sequence is not None
        message.receipt_sequence = receipt.sequence
    at = receipt.occurred_at or timezone.now()
    if not message.provider_message_id:
        message.provider_message_id = receipt.provider_message_id
    if receipt.status == ReceiptStatus.FAILED:
        _fail(message, receipt, at)
    elif overrules or _rank(message.status) < _rank(receipt.status.value):
        if overrules:
            message.failed_at, message.code, message.reason = None, "", ""
        message.status = receipt.status.value
        for field in TIMES[receipt.status]:
            if getattr(message, field) is None:
                setattr(message, field, at)
        message.lease_token = message.lease_until = None
        note_delivery(message.client_id, message.pk, message.status)
    message.save()


def _rank(status: str) -> int:
    return RANK.get(Message.Status(status), FURTHEST)


def _fail(message: Message, receipt: Receipt, at: datetime) -> None:
    if message.status in (S.DELIVERED, S.READ, S.FAILED):
        return
    message.code, message.reason = receipt.code[:40], receipt.reason[:500]
    message.lease_token = message.lease_until = None
    if receipt.account_broken and _wait_for_account(message, receipt):
        return
    if receipt.outside_window and _send_template(message, receipt):
        return
    message.status = S.FAILED
    message.failed_at = at
    cancel_rest(message, EARLIER_PART)
    about = (message.client_id, message.conversation_id)
    record_in(*about, "message_failed", SYSTEM, cause=message.code, message_id=str(message.pk))


def _is_of_earlier_attempt(message: Message, receipt: Receipt) -> bool:
    """Return whether the receipt says that an earlier attempt was sent or failed, after which the message was queued
    again. Delivered and read count for any attempt.
    """
    if receipt.status not in (ReceiptStatus.SENT, ReceiptStatus.FAILED):
        return False
    if receipt.provider_message_id == message.provider_message_id:
        return False
    goes_again = bool(message.provider_message_id) or message.status in (S.QUEUED, S.CLAIMED)
    if goes_again and receipt.status == ReceiptStatus.FAILED:
        return True
    attempts = ConversationEvent.objects.filter(
        client=message.client_id, conversation=message.conversation_id, kind__in=QUEUED_AGAIN
    )
    return attempts.filter(data__contains=_attempt_key(message, receipt)).exists()


def _attempt_key(message: Message, receipt: Receipt) -> dict[str, str]:
    """Return the values by which the ledger identifies the attempt that the receipt is about."""
    return {"message_id": str(message.pk), "provider_message_id": receipt.provider_message_id}


def _wait_for_account(message: Message, receipt: Receipt) -> bool:
    """Mark the refused account as broken and queue the message until it is repaired. Returns whether it is queued.

    It is not queued, and fails, if it was cancelled or its conversation ended meanwhile.
    """
    conversation = message.conversation
    if message.status == S.CANCELLED or message.channel_account_id is None:
        return False
    account = channel_accounts.lock_usable(message.channel_account_id)
    if account and not (account.mended_at and message.sending_at and message.sending_at <= account.mended_at):
        channel_accounts.mark_broken(account, conversation, message.code, message.reason)
    if outbox.cancel_code(message, conversation):
        return False
    record(conversation, "message_waits", SYSTEM, cause=message.code, **_attempt_key(message, receipt))
    _queue_again(message)
    return True


def _send_template(message: Message, receipt: Receipt) -> bool:
    """Queue the message with a template in place of its text. Returns whether it is queued.

    It is not, and fails, if there is no template to send, or it was cancelled or its conversation ended meanwhile.
    """
    conversation, adapter = message.conversation, outbox.adapter_or_none(message.channel_account)
    if message.template or adapter is None or message.status == S.CANCELLED:
        return False
    if outbox.cancel_code(message, conversation):
        return False
    if not set_template(message, conversation, adapter):
        message.code = receipt.code[:40]
        return False
    record(conversation, "template_instead", SYSTEM, cause=receipt.code, **_attempt_key(message, receipt))
    _queue_again(message)
    return True


def set_template(message: Message, conversation: Conversation, adapter: Adapter) -> bool:
    """Give the message a template in place of the whole text. Returns False, with a reason on it, if there is none."""
    found = reply_window.template_for(conversation, message, adapter)
    if isinstance(found, str):
        message.code, message.reason = reply_window.CLOSED, found
        return False
    template, kept = found
    message.template, message.code, message.reason = outbox.template_to_text(template), "", ""
    message.content = {**(message.content or {}), outbox.TEMPLATE: kept}
    cancel_rest(message, reply_window.REPLACED, reply_window.TEMPLATE_SENT)
    return True


def _queue_again(message: Message) -> None:
    """Queue the message as if the attempt that failed had not been made."""
    message.status, message.due_at = S.QUEUED, timezone.now()
    message.attempts = max(message.attempts - 1, 0)
    message.sending_at = message.sent_at = message.receipt_sequence = None
    message.provider_message_id = ""


def cancel_rest(message: Message, code: str, reason: str = "") -> None:
    """Cancel the queued parts after this one."""
    rest = Message.objects.filter(
        client=message.client_id, chunk=message.chunk_id, part__gt=message.part, status=S.QUEUED
    )
    rest.update(status=S.CANCELLED, code=code, reason=reason)


def known_among(account: ChannelAccount, reported: Sequence[Receipt]) -> list[bool]:
    """Return for each receipt whether the account has its message."""
    ours = [_our_id(receipt) for receipt in reported]
    theirs = [receipt.provider_message_id for receipt in reported]
    messages = Message.objects.filter(channel_account=account)
    known = set(messages.filter(provider_message_id__in=theirs).values_list("provider_message_id", flat=True))
    known_ours = set(messages.filter(pk__in=[each for each in ours if each]).values_list("pk", flat=True))
    return [about in known or our in known_ours for about, our in zip(theirs, ours, strict=True)]


def _our_id(receipt: Receipt) -> UUID | None:
    try:
        return UUID(receipt.our_message_id) if receipt.our_message_id else None
    except ValueError:
        return None


def _find(messages: QuerySet[Message], receipt: Receipt) -> Message | None:
    known = messages.filter(provider_message_id=receipt.provider_message_id).first()
    our_id = _our_id(receipt)
    return known if known or not our_id else messages.filter(pk=our_id).first()
