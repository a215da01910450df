"""Send the messages in the outbox.

    claim ──► begin ──► deliver ──► record_sent | record_failed

Claim, begin and the two last are short transactions; no transaction is open while the provider is called (deliver).

Messages of a conversation go oldest first: one is claimed only if all before it are settled. An `unknown` one delays
the rest by a minute at most.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from channels_out.contract import Account, Adapter, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.kinds import AddressKind
from conversations.models import ChannelAccount, Contact, Conversation, Message
from conversations.services.core.backoff import backoff
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import lock
from conversations.services.core.sql import PreparedSelect, column, rows, unlocked, update
from conversations.services.delivery import outbox, receipts, reply_window, throttles
from conversations.services.tenants import channel_accounts
from conversations.services.tenants.channel_accounts import adapter_of, as_account

log = logging.getLogger(__name__)

S = Message.Status
UNKNOWN_DELAY = timedelta(minutes=1)
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Sending:
    """A message to be sent now: all that the network call needs, nothing of the database."""

    message_id: UUID
    conversation_id: UUID
    channel_account_id: UUID
    token: UUID
    adapter: Adapter
    account: Account
    outbound: OutboundMessage

    def send(self) -> SendResult:
        """Send the message and return the provider's answer. Raises SendError."""
        return self.adapter.send(self.account, self.outbound)


def claim(now: datetime, limit: int) -> tuple[UUID, Sequence[UUID]]:
    """Claim up to `limit` due messages for the duration of the lease. Returns the lease's token and their ids."""
    token = uuid4()
    claimed = column(
        f"""
        WITH due AS (
            SELECT m.id
            FROM conversation_messages m
            JOIN channel_accounts a ON a.id = m.channel_account_id AND a.health = 'ok' AND a.is_active
            WHERE m.status = 'queued' AND m.due_at <= $1
              AND {throttles.NOT_PAUSED.format(now="$1")}
              AND NOT EXISTS (
                SELECT FROM conversation_messages earlier
                WHERE earlier.conversation_id = m.conversation_id
                  AND earlier.status IN ('queued', 'claimed', 'sending', 'unknown')
                  AND (earlier.chunk_id, earlier.part) < (m.chunk_id, m.part)
                  AND NOT (earlier.status = 'unknown' AND earlier.sending_at < $4))
            ORDER BY m.chunk_id, m.part
            LIMIT $2
            FOR UPDATE OF m SKIP LOCKED
        )
        UPDATE conversation_messages m
        SET status = 'claimed', lease_until = $3, lease_token = $5, attempts = m.attempts + 1
        FROM due WHERE m.id = due.id
        RETURNING m.id
        """,
        now,
        limit,
        now + lease_duration(),
        now - UNKNOWN_DELAY,
        token,
    )
    return token, claimed


def lease_duration() -> timedelta:
    """Return how long a claim lasts unless it is renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


def begin(message_id: UUID, token: UUID, now: datetime) -> Sending | None:
    """Mark a claimed message as sending and return what the provider needs.

    From here on a crash leaves it unclear whether the message was sent. Returns None if the lease was lost, the message
    was cancelled or failed (reply window), or its account is paused; in the last case the message is queued again and
    the attempt is not counted.

    It is safe to repeat if the database's answer was lost: the token decides.
    """
    with transaction.atomic():
        message, is_paused = _lock_claimed(message_id, token, now)
        if message is None or message.channel_account is None:
            return None
        # The conversation is read after the message is locked: a closing or takeover before that has cancelled the
        # message already, and a later one waits for us and finds the message being sent.
        conversation = _conversation_of(message)
        if code := outbox.cancel_code(message, conversation):
            message.status, message.code = S.CANCELLED, code
            message.lease_until = message.lease_token = None
            update(message, ("status", "code", "lease_until", "lease_token"))
            return None
        if is_paused or not _is_usable(message.channel_account):
            message.status, message.attempts = S.QUEUED, message.attempts - 1
            message.lease_until = message.lease_token = None
            update(message, ("status", "attempts", "lease_until", "lease_token"))
            return None
        adapter = adapter_of(message.channel_account)
        may_send = bool(message.template) or reply_window.is_open(message, adapter, now)
        if may_send:
            _mark_sending(message, now)
    if not may_send:
        message = _begin_with_template(message.conversation_id, message_id, token, now)
    if message is None or message.channel_account is None:
        return None
    return Sending(
        message_id=message.pk,
        conversation_id=message.conversation_id,
        channel_account_id=message.channel_account.pk,
        token=token,
        adapter=adapter,
        account=as_account(message.channel_account),
        outbound=OutboundMessage(
            message_id=str(message.pk),
            to=message.to_address,
            to_kind=AddressKind(message.to_kind),
            text=message.text,
            reply_to=message.reply_to,
            template=reply_window.template_from_text(message.template),
        ),
    )


_CLAIMED = PreparedSelect(
    f"""
    SELECT {{m}}, {{a}}, NOT {throttles.NOT_PAUSED.format(now="$3")}
    FROM conversation_messages m LEFT JOIN channel_accounts a ON a.id = m.channel_account_id
    WHERE m.id = $1 AND m.status IN ('claimed', 'sending') AND m.lease_token = $2
    FOR UPDATE OF m
    """,
    m=Message,
    a=ChannelAccount,
)
_CONVERSATION = PreparedSelect(
    "SELECT {s}, {k} FROM conversations s JOIN contacts k ON k.id = s.contact_id WHERE s.id = $1",
    s=Conversation,
    k=Contact,
)
_OURS = PreparedSelect(
    """
    SELECT {m} FROM conversation_messages m
    WHERE m.id = $1 AND (m.lease_token = $2 OR m.status NOT IN ('queued', 'claimed'))
    FOR UPDATE
    """,
    m=Message,
)


def _lock_claimed(message_id: UUID, token: UUID, now: datetime) -> tuple[Message | None, bool]:
    """Lock the message if the claim is still ours, and return it and whether sending it is paused."""
    found = _CLAIMED.first(message_id, token, now)
    if found is None:
        return None, False
    message: Message
    message, message.channel_account, is_paused = found
    return message, is_paused


def _conversation_of(message: Message) -> Conversation | None:
    found = _CONVERSATION.first(message.conversation_id)
    if found is None:
        return None
    conversation: Conversation
    conversation, conversation.contact = found
    return conversation


def _mark_sending(message: Message, now: datetime) -> None:
    message.status = S.SENDING
    message.sending_at = now
    message.lease_until = now + lease_duration()
    update(message, ("status", "sending_at", "lease_until", "template"))


def _begin_with_template(conversation_id: UUID, message_id: UUID, token: UUID, now: datetime) -> Message | None:
    """Mark the message as sending with a template in place of its text and return it. If there is none, it fails."""
    with transaction.atomic():
        conversation = _lock_conversation(conversation_id)
        message, _ = _lock_claimed(message_id, token, now)
        if conversation is None or message is None or message.channel_account is None:
            return None
        if _set_template(message, conversation, adapter_of(message.channel_account)):
            _mark_sending(message, now)
            return message
        message.lease_until = message.lease_token = None
        _fail(message, now)
        message.save()
    return None


def _set_template(message: Message, conversation: Conversation, adapter: Adapter) -> bool:
    """Give the message a template in place of the whole text. Returns False, with a reason on it, if there is none."""
    found = reply_window.template_for(conversation, message, adapter)
    if isinstance(found, str):
        message.code, message.reason = reply_window.CLOSED, found
        return False
    message.template, message.code, message.reason = reply_window.template_to_text(found), "", ""
    receipts.cancel_rest(message, reply_window.REPLACED, reply_window.TEMPLATE_SENT)
    return True


def deliver(sending: Sending) -> SendResult | SendError:
    """Send the message and return the provider's answer or the error.

    If the adapter raises anything but SendError, it is unclear whether the message was sent.
    """
    try:
        return sending.send()
    except SendError as error:
        return error
    except Exception as error:
        log.exception("adapter crashed: message=%s", sending.message_id)
        return SendError(f"The adapter crashed: {type(error).__name__}.", code="adapter_crashed", ambiguous=True)


def record_sent(sending: Sending, result: SendResult, now: datetime) -> None:
    """Record that the provider accepted the message: it is sent, or further if a receipt was faster."""
    with transaction.atomic():
        about = [result.provider_message_id]
        if sending.adapter.reports_watermarks:
            about.append(receipts.watermark_key(sending.outbound.to))
        for each in about:
            receipts.lock_provider_message(each)
        early = receipts.early_receipts(sending.channel_account_id, about)
        conversation = receipts.lock_if_failed(
            sending.conversation_id, early
        )  # before the message: see core/locking.py
        message = _lock_message(sending)
        if message is None:
            return
        message.provider_message_id = message.provider_message_id or result.provider_message_id
        message.sent_at = message.sent_at or now
        if message.status in (S.SENDING, S.UNKNOWN):
            message.status = result.status.value
            message.delivered_at = now if message.status == S.DELIVERED else None
        message.lease_until = message.lease_token = None
        update(message, ("provider_message_id", "sent_at", "status", "delivered_at", "lease_until", "lease_token"))
        receipts.apply_early(message, early, conversation)


def record_failed(sending: Sending, error: SendError, now: datetime) -> None:
    """Record that the provider did not accept the message.

    As the error says, it is queued again (unless the conversation ended meanwhile), failed or unknown.
    """
    with transaction.atomic():
        conversation = _lock_conversation(sending.conversation_id)
        message = _lock_message(sending)
        if conversation is None or message is None or not _error_counts(message, sending, error):
            return
        message.lease_until = message.lease_token = None
        message.code, message.reason = error.code[:40], str(error)[:500]
        if error.outside_window and not message.template and _set_template(message, conversation, sending.adapter):
            _queue_again(message, conversation, now)
        elif error.account_broken:
            message.attempts -= 1
            _mark_broken(sending, conversation, error)
            _queue_again(message, conversation, now)
        elif error.throttled:
            message.attempts -= 1  # it is not the message's fault; it waits at most until its conversation ends
            _queue_again(
                message, conversation, throttles.pause(sending.channel_account_id, message.to_address, error, now)
            )
        elif error.ambiguous and not sending.adapter.sends_idempotently:
            message.status = S.UNKNOWN
            record(message.conversation_id, "message_unknown", SYSTEM, cause=error.code, message_id=str(message.pk))
        elif (error.retryable or error.ambiguous) and message.attempts < settings.SEND_ATTEMPTS:
            _queue_again(message, conversation, now + backoff(message.attempts, error.retry_after))
        else:
            _fail(message, now)
        message.save()


def _lock_conversation(conversation_id: UUID) -> Conversation | None:
    """Lock the conversation (before its message: see core/locking.py) and return it; None if it was purged."""
    try:
        return lock(conversation_id)
    except NotFoundError:
        return None


def _error_counts(message: Message, sending: Sending, error: SendError) -> bool:
    """Return whether the error decides what becomes of the message."""
    if message.status == S.SENDING:
        return message.lease_token == sending.token
    # Its lease ended while the database was away. We know that it was never sent, and nobody else sends it.
    interrupted = message.status == S.UNKNOWN and message.code == INTERRUPTED
    return interrupted and not error.ambiguous and not sending.adapter.sends_idempotently


def _queue_again(message: Message, conversation: Conversation, due_at: datetime) -> None:
    """Queue the message for another attempt, or cancel it if it may not be sent any more."""
    if code := outbox.cancel_code(message, conversation):
        message.status, message.code = S.CANCELLED, code
    else:
        message.status, message.due_at = S.QUEUED, due_at


def _is_usable(account: ChannelAccount) -> bool:
    """Return whether the account was neither refused nor switched off since the message was claimed."""
    return account.is_active and account.health == ChannelAccount.Health.OK


def _mark_broken(sending: Sending, conversation: Conversation, error: SendError) -> None:
    """Mark the refused account as broken, unless it has new credentials since: then the old ones were refused."""
    account = channel_accounts.lock_usable(sending.channel_account_id)
    if account and as_account(account) == sending.account:
        channel_accounts.mark_broken(account, conversation, error.code, str(error))


def _fail(message: Message, now: datetime) -> None:
    """Mark the message as failed and cancel the parts after it, which make no sense without it."""
    message.status = S.FAILED
    message.failed_at = now
    receipts.cancel_rest(message, receipts.EARLIER_PART)
    record(message.conversation_id, "message_failed", SYSTEM, cause=message.code, message_id=str(message.pk))


def _lock_message(sending: Sending) -> Message | None:
    """Lock the message and return it, if our lease still holds or a receipt settled it meanwhile."""
    found = _OURS.first(sending.message_id, sending.token)
    return found[0] if found else None


def renew(message_ids: Sequence[UUID], now: datetime) -> None:
    """Renew the leases of the messages that are still being sent. One that is locked elsewhere is skipped."""
    with transaction.atomic():
        held = Message.objects.filter(pk__in=message_ids, status__in=[S.CLAIMED, S.SENDING])
        unlocked(held).update(lease_until=now + lease_duration())


_RELEASE = """
    UPDATE conversation_messages m SET status = 'queued', lease_until = NULL, lease_token = NULL
    FROM (SELECT id FROM conversation_messages WHERE status = 'claimed' AND lease_until < $1
          FOR UPDATE SKIP LOCKED) lost
    WHERE m.id = lost.id
    RETURNING m.id"""
_LOST = "SELECT id, conversation_id FROM conversation_messages WHERE status = 'sending' AND lease_until < $1 LIMIT 500"


def recover(now: datetime) -> int:
    """Recover the messages whose lease has run out, as after a dispatcher's crash. Returns how many there were.

    One that was only claimed is queued again. One that was being sent is queued again if its adapter sends
    idempotently, else it is unknown.
    """
    released = len(rows(_RELEASE, now))
    return released + sum(
        _recover(message_id, conversation_id, now) for message_id, conversation_id in rows(_LOST, now)
    )


def _recover(message_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with transaction.atomic():
        conversation = _lock_conversation(conversation_id)
        message = (
            Message.objects.select_for_update(of=("self",))
            .select_related("channel_account")
            .filter(pk=message_id, status=S.SENDING, lease_until__lt=now)
            .first()
        )
        if conversation is None or message is None:
            return False
        adapter = outbox.adapter_or_none(message.channel_account)
        message.lease_until = message.lease_token = None
        if adapter and adapter.sends_idempotently and message.attempts < settings.SEND_ATTEMPTS:
            _queue_again(message, conversation, now)
        else:
            message.status, message.code = S.UNKNOWN, INTERRUPTED
            message.reason = "Convo stopped while the message was being sent. The provider may have accepted it."
            record(conversation, "message_unknown", SYSTEM, cause=INTERRUPTED, message_id=str(message.pk))
        message.save()
    return True
