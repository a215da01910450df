"""What providers say became of what we sent. Forward only, whatever the order it comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from channels_out.events import Receipt, WatermarkReceipt
from channels_out.kinds import ReceiptStatus
from conversations.models import ChannelAccount, Contact, Conversation, ConversationEvent, InboundEvent, Message
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import lock
from conversations.services.core.sql import PreparedSelect, row, rows
from conversations.services.delivery import opt_outs, outbox
from conversations.services.tenants import channel_accounts

UNMATCHED = "receipt_unmatched"
EARLIER_PART = "earlier_part_failed"
QUEUED_AGAIN = ("message_resent", "message_waits")  # in the ledger, with the provider's id of the try before
S = Message.Status
# How far along a message is; failed ends it where it has not arrived.
RANK = {S.QUEUED: 0, S.CLAIMED: 0, S.SENDING: 0, S.UNKNOWN: 0, S.CANCELLED: 0, S.SENT: 1, S.DELIVERED: 2}
FURTHEST = 3  # read; a failed message goes nowhere either
REACHED = {
    ReceiptStatus.SENT: ["sent_at"],
    ReceiptStatus.DELIVERED: ["sent_at", "delivered_at"],
    ReceiptStatus.READ: ["sent_at", "delivered_at", "read_at"],
}


# All that was sent to a person until then. Read by way of the person, not along all that the account ever sent.
_REACH = """
    WITH theirs AS (
        SELECT m.id
        FROM contact_identities i
        JOIN conversations s ON s.contact_id = i.contact_id AND s.channel || '' = $2
        JOIN conversation_messages m ON m.conversation_id = s.id
        WHERE i.client_id = $1 AND i.channel = $2 AND i.address = $3
          AND m.channel_account_id = $4 AND m.to_address = $3 AND m.status = ANY($6::text[])
          AND m.sending_at <= $5::timestamptz
        ORDER BY m.chunk_id, m.part
        FOR UPDATE OF m
    )
    UPDATE conversation_messages m
    SET status = $7::text, sent_at = COALESCE(m.sent_at, $5), delivered_at = COALESCE(m.delivered_at, $5),
        read_at = CASE WHEN $7::text = 'read' THEN COALESCE(m.read_at, $5) END
    FROM theirs WHERE m.id = theirs.id
    RETURNING m.id"""


def apply(account: ChannelAccount, receipt: Receipt, keep: Callable[[], object] = lambda: None) -> bool:
    """The message is as far along as the receipt says, or further. False: we know of no such message yet; `keep` was
    called to keep the receipt for `apply_early`.
    """
    if _apply(account, receipt):
        return True
    with transaction.atomic():
        # Our own commit of the send may be just coming: either it finds what is kept, or we find its message now.
        lock_provider_message(receipt.provider_message_id)
        if _apply(account, receipt):
            return True
        keep()
    return False


def reach(account: ChannelAccount, event: WatermarkReceipt, keep: Callable[[], object] = lambda: None) -> int:
    """Every message that left for the person until then is delivered, or read. Returns how many moved.

    A provider that tells the time and no ids means a message of which our own commit may be just coming: then `keep`
    was called to keep the event for `apply_early`.
    """
    before = [S.SENT.value] if event.status == ReceiptStatus.DELIVERED else [S.SENT.value, S.DELIVERED.value]
    with transaction.atomic():
        lock_provider_message(about_person(event.sender))
        moved = rows(
            _REACH,
            *(account.client_id, account.channel, event.sender, account.pk),
            *(event.until, before, event.status.value),
        )
        leaving = Message.objects.filter(channel_account=account, to_address=event.sender, status=S.SENDING)
        if leaving.filter(sending_at__lte=event.until).exists():
            keep()
    return len(moved)


def about_person(address: str) -> str:
    """In the place of a message's id, where an event is about all messages to a person."""
    return f"all to {address}"


def lock_provider_message(provider_message_id: str) -> None:
    """Until the transaction ends nobody else who lines up for this message goes on. To be called before it is locked.

    The commit of a send and the keeping of a receipt that is faster look for each other's rows: at the same moment
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


def early(channel_account_id: UUID, about: Sequence[str]) -> list[InboundEvent]:
    """The receipts that are here before the send they are about is committed. Line up first."""
    return [event for (event,) in _EARLY.all(channel_account_id, list(about), UNMATCHED)]


def _apply(account: ChannelAccount, receipt: Receipt) -> bool:
    messages = Message.objects.filter(channel_account=account)
    with transaction.atomic():
        session = None
        if receipt.status == ReceiptStatus.FAILED and (found := _find(messages, receipt)):
            session = _locked_session(found.conversation_id, opted_out=receipt.opted_out)
        message = _find(messages.select_for_update(), receipt)
        if message is None:
            return False
        was_failed = message.status == S.FAILED
        advance(message, receipt)
        if session and receipt.opted_out and message.status == S.FAILED and not was_failed:
            opt_outs.apply_from_provider(session, receipt.code, timezone.now())
    return True


def _locked_session(conversation_id: UUID, *, opted_out: bool) -> Conversation | None:
    """A failure is written into the ledger, which needs the session's row: it is locked before the message, as by those
    who end and delete sessions, else each would wait for the other. And before it the contact, where that changes."""
    if opted_out:
        person = Conversation.objects.filter(pk=conversation_id).values("contact")
        Contact.objects.select_for_update(no_key=True).filter(pk__in=person).first()
    try:
        return lock(conversation_id)
    except NotFoundError:
        return None


def lock_for(conversation_id: UUID, kept: Sequence[InboundEvent]) -> Conversation | None:
    """The conversation, locked, where one of the kept receipts says that its message failed: to be called before the
    message is locked."""
    failures = [event.raw for event in kept if event.raw["status"] == ReceiptStatus.FAILED]
    if not failures:
        return None
    return _locked_session(conversation_id, opted_out=any(raw.get("opted_out") for raw in failures))


def replay(account: ChannelAccount, event: InboundEvent) -> bool:
    """What was kept is tried once more. Whether it found a message."""
    raw = event.raw
    if "until" in raw:
        until = datetime.fromisoformat(raw["until"])
        return reach(account, WatermarkReceipt(raw["account"], raw["sender"], ReceiptStatus(raw["status"]), until)) > 0
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
    )


def apply_early(message: Message, kept: Iterable[InboundEvent], session: Conversation | None) -> None:
    """What receipts said of the locked message before its send was committed counts now. `session` as from lock_for."""
    for event in kept:
        if receipt := _kept_receipt(message, event.raw):
            advance(message, receipt)
            if session and receipt.opted_out and message.status == S.FAILED:
                opt_outs.apply_from_provider(session, receipt.code, timezone.now())
        event.delete()


def _kept_receipt(message: Message, raw: dict[str, Any]) -> Receipt | None:
    """What the kept event says of the message, None if it is about earlier ones alone."""
    receipt = _receipt(raw)
    if "until" not in raw:
        return receipt
    until = receipt.occurred_at
    if until is None or message.sending_at is None or message.sending_at > until:
        return None
    return replace(receipt, provider_message_id=message.provider_message_id)


def advance(message: Message, receipt: Receipt) -> None:
    """Move a locked message forward.

    Where the provider counts its receipts, an older one says nothing after a newer one, and a newer one overrules a
    failure: whatever the order they come in, the message ends where the newest says.
    """
    if _is_past(message, receipt):
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
        for field in REACHED[receipt.status]:
            if getattr(message, field) is None:
                setattr(message, field, at)
        message.lease_token = message.lease_until = None
    message.save()


def _rank(status: str) -> int:
    return RANK.get(Message.Status(status), FURTHEST)


def _fail(message: Message, receipt: Receipt, at: datetime) -> None:
    if message.status in (S.DELIVERED, S.READ, S.FAILED):
        return
    message.code, message.reason = receipt.code[:40], receipt.reason[:500]
    message.lease_token = message.lease_until = None
    if receipt.account_broken and _waits_for_the_account(message, receipt):
        return
    message.status = S.FAILED
    message.failed_at = at
    cancel_rest(message, EARLIER_PART)
    record(message.conversation_id, "message_failed", SYSTEM, cause=message.code, message_id=str(message.pk))


def _is_past(message: Message, receipt: Receipt) -> bool:
    """Whether the receipt says of an earlier try of the message, which was queued again since, that it went or failed.
    That it arrived after all would count."""
    if receipt.status not in (ReceiptStatus.SENT, ReceiptStatus.FAILED):
        return False
    if receipt.provider_message_id == message.provider_message_id:
        return False
    goes_again = bool(message.provider_message_id) or message.status in (S.QUEUED, S.CLAIMED)
    if goes_again and receipt.status == ReceiptStatus.FAILED:
        return True
    tries = ConversationEvent.objects.filter(conversation=message.conversation_id, kind__in=QUEUED_AGAIN)
    return tries.filter(data__contains=_try(message, receipt)).exists()


def _try(message: Message, receipt: Receipt) -> dict[str, str]:
    """How the ledger names the try that the receipt is about."""
    return {"message_id": str(message.pk), "provider_message_id": receipt.provider_message_id}


def _waits_for_the_account(message: Message, receipt: Receipt) -> bool:
    """The account is refused, and not this message, which is queued again as if its send had been refused: it goes once
    the account is mended. False: it failed for good, as its session ended meanwhile, or it was cancelled.
    """
    conversation = message.conversation
    if message.status == S.CANCELLED or message.channel_account_id is None:
        return False
    account = channel_accounts.lock_usable(message.channel_account_id)
    if account and not (account.mended_at and message.sending_at and message.sending_at <= account.mended_at):
        channel_accounts.mark_broken(account, conversation, message.code, message.reason)
    if outbox.held_back(message, conversation):
        return False
    message.status, message.due_at = S.QUEUED, timezone.now()
    message.attempts = max(message.attempts - 1, 0)
    message.sending_at = message.sent_at = message.receipt_sequence = None
    message.provider_message_id = ""
    record(conversation, "message_waits", SYSTEM, cause=message.code, **_try(message, receipt))
    return True


def cancel_rest(message: Message, code: str, reason: str = "") -> None:
    """The parts after it are not sent."""
    rest = Message.objects.filter(chunk=message.chunk_id, part__gt=message.part, status=S.QUEUED)
    rest.update(status=S.CANCELLED, code=code, reason=reason)


def _find(messages: QuerySet[Message], receipt: Receipt) -> Message | None:
    known = messages.filter(provider_message_id=receipt.provider_message_id).first()
    if known or not receipt.our_message_id:
        return known
    try:
        return messages.filter(pk=UUID(receipt.our_message_id)).first()
    except ValueError:
        return None
