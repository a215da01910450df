"""Sending what is in the outbox: claim (short transaction), mark, call, write the outcome (short transaction). Never a
transaction across.

Oldest first within a conversation: a message is claimed only when none before it is unsettled. An `unknown` one holds
the rest back for a minute at most.
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
UNKNOWN_HOLDS_BACK = timedelta(minutes=1)
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Sending:
    """A message whose bytes may go now: all that the network needs, nothing of the database."""

    message_id: UUID
    conversation_id: UUID
    channel_account_id: UUID
    token: UUID
    adapter: Adapter
    account: Account
    outbound: OutboundMessage

    def send(self) -> SendResult:
        """Wait for the provider. Raises SendError."""
        return self.adapter.send(self.account, self.outbound)


def claim(now: datetime, limit: int) -> tuple[UUID, Sequence[UUID]]:
    """Up to `limit` messages that are due are ours while the lease lasts. Returns the lease's token and their ids."""
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
        now + lease(),
        now - UNKNOWN_HOLDS_BACK,
        token,
    )
    return token, claimed


def lease() -> timedelta:
    """How long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


def begin(message_id: UUID, token: UUID, now: datetime) -> Sending | None:
    """The message is `sending`: from here on a crash leaves it unclear whether it went. None: not ours any more; or not
    to be sent any more: then it is cancelled, or it failed (see reply_window); or not now: then it is queued again, and
    that was no try.

    Harmless to repeat where the answer of the database was lost: only who holds the token begins.
    """
    with transaction.atomic():
        message = _claimed(message_id, token)
        if message is None or message.channel_account is None:
            return None
        # The session is read after the message was locked: whoever ended or took it before has been here, and whoever
        # does from now on waits for us, and finds the message gone.
        session = _session(message)
        if code := outbox.held_back(message, session):
            message.status, message.code = S.CANCELLED, code
            message.lease_until = message.lease_token = None
            update(message, ("status", "code", "lease_until", "lease_token"))
            return None
        if _must_wait(message, message.channel_account, now):
            message.status, message.attempts = S.QUEUED, message.attempts - 1
            message.lease_until = message.lease_token = None
            update(message, ("status", "attempts", "lease_until", "lease_token"))
            return None
        adapter = adapter_of(message.channel_account)
        may_go = bool(message.template) or reply_window.is_open(message, adapter, now)
        if may_go:
            _mark_sending(message, now)
    if not may_go:
        message = _replace_text(message.conversation_id, message_id, token, now)
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
            template=reply_window.read(message.template),
        ),
    )


_CLAIMED = PreparedSelect(
    """
    SELECT {m}, {a}
    FROM conversation_messages m LEFT JOIN channel_accounts a ON a.id = m.channel_account_id
    WHERE m.id = $1 AND m.status IN ('claimed', 'sending') AND m.lease_token = $2
    FOR UPDATE OF m
    """,
    m=Message,
    a=ChannelAccount,
)
_SESSION = PreparedSelect(
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


def _claimed(message_id: UUID, token: UUID) -> Message | None:
    found = _CLAIMED.first(message_id, token)
    if found is None:
        return None
    message: Message
    message, message.channel_account = found
    return message


def _session(message: Message) -> Conversation | None:
    found = _SESSION.first(message.conversation_id)
    if found is None:
        return None
    session: Conversation
    session, session.contact = found
    return session


def _mark_sending(message: Message, now: datetime) -> None:
    message.status = S.SENDING
    message.sending_at = now
    message.lease_until = now + lease()
    update(message, ("status", "sending_at", "lease_until", "template"))


def _replace_text(conversation_id: UUID, message_id: UUID, token: UUID, now: datetime) -> Message | None:
    """Free text is not taken any more: the message is `sending` as a template, or it failed and says why (None)."""
    with transaction.atomic():
        conversation = _conversation(conversation_id)
        message = _claimed(message_id, token)
        if conversation is None or message is None or message.channel_account is None:
            return None
        if _with_template(message, conversation, adapter_of(message.channel_account)):
            _mark_sending(message, now)
            return message
        message.lease_until = message.lease_token = None
        _give_up(message, now)
        message.save()
    return None


def _with_template(message: Message, conversation: Conversation, adapter: Adapter) -> bool:
    """Whether the message has a template now, in the place of the whole text; if not, its reason says why."""
    found = reply_window.template_for(conversation, message, adapter)
    if isinstance(found, str):
        message.code, message.reason = reply_window.CLOSED, found
        return False
    message.template, message.code, message.reason = reply_window.written(found), "", ""
    receipts.cancel_rest(message, reply_window.REPLACED, reply_window.TEMPLATE_WENT)
    return True


def deliver(sending: Sending) -> SendResult | SendError:
    """Wait for the provider and return its answer.

    An adapter that raises anything but SendError leaves it unclear whether the bytes went.
    """
    try:
        return sending.send()
    except SendError as error:
        return error
    except Exception as error:
        log.exception("adapter crashed: message=%s", sending.message_id)
        return SendError(f"The adapter crashed: {type(error).__name__}.", code="adapter_crashed", ambiguous=True)


def succeeded(sending: Sending, result: SendResult, now: datetime) -> None:
    """The provider took it: sent, or further where a receipt was faster."""
    with transaction.atomic():
        about = [result.provider_message_id]
        if sending.adapter.reports_watermarks:
            about.append(receipts.about_person(sending.outbound.to))
        for each in about:
            receipts.lock_provider_message(each)
        early = receipts.early(sending.channel_account_id, about)
        session = receipts.lock_for(sending.conversation_id, early)  # before its message, as by everybody
        message = _locked(sending)
        if message is None:
            return
        message.provider_message_id = message.provider_message_id or result.provider_message_id
        message.sent_at = message.sent_at or now
        if message.status in (S.SENDING, S.UNKNOWN):
            message.status = result.status.value
            message.delivered_at = now if message.status == S.DELIVERED else None
        message.lease_until = message.lease_token = None
        update(message, ("provider_message_id", "sent_at", "status", "delivered_at", "lease_until", "lease_token"))
        receipts.apply_early(message, early, session)


def failed(sending: Sending, error: SendError, now: datetime) -> None:
    """The provider did not take it: again later (unless the session ended meanwhile), never, or unclear, as the error
    says.
    """
    with transaction.atomic():
        conversation = _conversation(sending.conversation_id)
        message = _locked(sending)
        if conversation is None or message is None or not _fails(message, sending, error):
            return
        message.lease_until = message.lease_token = None
        message.code, message.reason = error.code[:40], str(error)[:500]
        if error.outside_window and not message.template and _with_template(message, conversation, sending.adapter):
            _queue_again(message, conversation, now)
        elif error.account_broken:
            message.attempts -= 1
            _mark_broken(sending, conversation, error)
            _queue_again(message, conversation, now)
        elif error.throttled:
            message.attempts -= 1  # it says nothing of the message; its session's end ends the waiting
            _queue_again(
                message, conversation, throttles.begin(sending.channel_account_id, message.to_address, error, now)
            )
        elif error.ambiguous and not sending.adapter.sends_idempotently:
            message.status = S.UNKNOWN
            record(message.conversation_id, "message_unknown", SYSTEM, cause=error.code, message_id=str(message.pk))
        elif (error.retryable or error.ambiguous) and message.attempts < settings.SEND_ATTEMPTS:
            _queue_again(message, conversation, now + backoff(message.attempts, error.retry_after))
        else:
            _give_up(message, now)
        message.save()


def _conversation(conversation_id: UUID) -> Conversation | None:
    """The conversation, locked (before its message, as by those who end it); None if it was purged."""
    try:
        return lock(conversation_id)
    except NotFoundError:
        return None


def _fails(message: Message, sending: Sending, error: SendError) -> bool:
    """Whether the error is what became of the message."""
    if message.status == S.SENDING:
        return message.lease_token == sending.token
    # Its lease ended while the database was away. We know that it never left, and nobody else sends it.
    interrupted = message.status == S.UNKNOWN and message.code == INTERRUPTED
    return interrupted and not error.ambiguous and not sending.adapter.sends_idempotently


def _queue_again(message: Message, conversation: Conversation, due_at: datetime) -> None:
    """The message waits for another try; where its session ended while it was being sent, there is none."""
    if code := outbox.held_back(message, conversation):
        message.status, message.code = S.CANCELLED, code
    else:
        message.status, message.due_at = S.QUEUED, due_at


def _must_wait(message: Message, account: ChannelAccount, now: datetime) -> bool:
    """Whether its account was refused, switched off or throttled since the message was claimed."""
    usable = account.is_active and account.health == ChannelAccount.Health.OK
    return not usable or throttles.in_force(account.pk, message.to_address, now)


def _mark_broken(sending: Sending, conversation: Conversation, error: SendError) -> None:
    """The account is refused: its messages wait for new credentials. Unless it has new ones already: what was refused
    are the old."""
    account = channel_accounts.lock_usable(sending.channel_account_id)
    if account and as_account(account) == sending.account:
        channel_accounts.mark_broken(account, conversation, error.code, str(error))


def _give_up(message: Message, now: datetime) -> None:
    """It failed, and the parts after it make no sense without it."""
    message.status = S.FAILED
    message.failed_at = now
    receipts.cancel_rest(message, receipts.EARLIER_PART)
    record(message.conversation_id, "message_failed", SYSTEM, cause=message.code, message_id=str(message.pk))


def _locked(sending: Sending) -> Message | None:
    """The message, if it is still ours or was settled by a receipt meanwhile."""
    found = _OURS.first(sending.message_id, sending.token)
    return found[0] if found else None


def renew(message_ids: Sequence[UUID], now: datetime) -> None:
    """The messages are still being sent. One that somebody is just settling is left alone."""
    with transaction.atomic():
        held = Message.objects.filter(pk__in=message_ids, status__in=[S.CLAIMED, S.SENDING])
        unlocked(held).update(lease_until=now + lease())


_RELEASE = """
    UPDATE conversation_messages m SET status = 'queued', lease_until = NULL, lease_token = NULL
    FROM (SELECT id FROM conversation_messages WHERE status = 'claimed' AND lease_until < $1
          FOR UPDATE SKIP LOCKED) lost
    WHERE m.id = lost.id
    RETURNING m.id"""
_LOST = "SELECT id, conversation_id FROM conversation_messages WHERE status = 'sending' AND lease_until < $1 LIMIT 500"


def recover(now: datetime) -> int:
    """What a dead dispatcher held: claimed again where nothing left, else unclear. Returns how many."""
    released = len(rows(_RELEASE, now))
    return released + sum(
        _recover(message_id, conversation_id, now) for message_id, conversation_id in rows(_LOST, now)
    )


def _recover(message_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with transaction.atomic():
        conversation = _conversation(conversation_id)
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
            message.reason = "Convo was stopped while it was being sent: the provider may have taken it."
            record(conversation, "message_unknown", SYSTEM, cause=INTERRUPTED, message_id=str(message.pk))
        message.save()
    return True
