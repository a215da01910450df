"""Send the messages in the outbox.

    claiming.claim ──► begin ──► deliver ──► record_sent | record_failed

Claim, begin and the two last are short transactions; no transaction is open while the provider is called (deliver).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from channels_out.choices import choices_from_json
from channels_out.contract import Account, Adapter, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.kinds import AddressKind
from conversations import traces
from conversations.models import ChannelAccount, Contact, Conversation, Message
from conversations.services.contacts import contacts
from conversations.services.core import counters, spans
from conversations.services.core.backoff import backoff
from conversations.services.core.errors import NotFoundError
from conversations.services.core.event_notes import note_delivery
from conversations.services.core.ledger import SYSTEM, record, record_in
from conversations.services.core.locking import lock
from conversations.services.core.sql import PreparedSelect, update
from conversations.services.delivery import circuits, opt_outs, outbox, receipts, reply_window, sent_files, throttles
from conversations.services.delivery.claiming import ClaimedMessage, lease_duration
from conversations.services.tenants import channel_accounts
from conversations.services.tenants.channel_accounts import adapter_of, as_account
from conversations.traces import Kind

log = logging.getLogger(__name__)

S = Message.Status
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Sending:
    """A message to be sent now: all that the network call needs, nothing of the database."""

    client_id: UUID
    message_id: UUID
    conversation_id: UUID
    channel_account_id: UUID
    token: UUID
    adapter: Adapter
    account: Account
    outbound: OutboundMessage
    has_failed: bool = False  # sends of its account did not reach the provider lately
    is_unanswered: bool = False  # the person has not written in this conversation
    trace: traces.Point | None = None  # what it is sent after; None where nobody collects traces
    sending_at: datetime | None = None

    def send(self) -> SendResult:
        """Send the message and return the provider's answer. Raises SendError."""
        about: dict[str, traces.Value] = {
            "gen_ai.conversation.id": str(self.conversation_id),
            "convo.client.id": str(self.client_id),
            "convo.message.id": str(self.message_id),
            "convo.provider": self.adapter.provider,
        }
        at = traces.of_send(self.message_id, self.sending_at, self.trace) if self.trace else None
        with traces.part(f"send {self.adapter.provider}", Kind.CLIENT, self.trace, about, at):
            return self.adapter.send(self.account, self.outbound)


def begin(claimed: ClaimedMessage, token: UUID, now: datetime) -> Sending | None:
    """Mark a claimed message as sending and return what the provider needs.

    From here on a crash leaves it unclear whether the message was sent. Returns None if the lease was lost, the message
    was cancelled or failed (reply window), or its account is paused; in the last case the message is queued again and
    the attempt is not counted.

    It is safe to repeat if the database's answer was lost: the token decides.
    """
    sending = _begin(claimed, token, now)
    if sending is None:
        circuits.give_up_probe(*claimed, now)
    return sending


def _begin(claimed: ClaimedMessage, token: UUID, now: datetime) -> Sending | None:
    with transaction.atomic():
        message, is_paused, has_failed = _lock_claimed(claimed, token, now)
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
        file = sent_files.ready_file(message, conversation) if conversation else None
        if reason := sent_files.why_not(message, file, adapter, now):
            message.lease_until = message.lease_token = None
            message.code, message.reason = outbox.FILE_FAILED, reason
            _fail(message, now)
            message.save()
            return None
        may_send = bool(message.template) or reply_window.is_open(message, adapter, now)
        if may_send:
            _mark_sending(message, now)
    if not may_send:
        message = _begin_with_template(claimed, message.conversation_id, token, now)
    if message is None or message.channel_account is None:
        return None
    return Sending(
        client_id=claimed.client_id,
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
            **sent_files.what_to_send(message, file, adapter),
            reply_to=message.reply_to,
            template=outbox.template_of(message),
            choices=choices_from_json(message.content.get(outbox.CHOICES)) if message.content else None,
        ),
        has_failed=has_failed,
        is_unanswered=conversation is not None and not conversation.inbound_sequence,
        trace=spans.before_send(message),
        sending_at=message.sending_at,
    )


_CLAIMED = PreparedSelect(
    f"""
    SELECT {{m}}, {{a}}, NOT {throttles.NOT_PAUSED.format(now="$3", client="$4")},
        EXISTS (
            SELECT FROM send_circuits o
            WHERE o.client_id = $4 AND o.channel_account_id = m.channel_account_id)
    FROM conversation_messages m LEFT JOIN channel_accounts a ON a.id = m.channel_account_id
    WHERE m.client_id = $4 AND m.id = $1 AND m.status IN ('claimed', 'sending') AND m.lease_token = $2
    FOR UPDATE OF m
    """,
    m=Message,
    a=ChannelAccount,
)
_CONVERSATION = PreparedSelect(
    """
    SELECT {s}, {k} FROM conversations s JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    WHERE s.client_id = $2 AND s.id = $1
    """,
    s=Conversation,
    k=Contact,
)
_OURS = PreparedSelect(
    """
    SELECT {m} FROM conversation_messages m
    WHERE m.client_id = $3 AND m.id = $1 AND (m.lease_token = $2 OR m.status NOT IN ('queued', 'claimed'))
    FOR UPDATE
    """,
    m=Message,
)


def _lock_claimed(claimed: ClaimedMessage, token: UUID, now: datetime) -> tuple[Message | None, bool, bool]:
    """Lock the message if the claim is still ours.

    Returns it, whether sending it is paused, and whether sends of its account did not reach the provider lately.
    """
    found = _CLAIMED.first(claimed.message_id, token, now, claimed.client_id)
    if found is None:
        return None, False, False
    message: Message
    message, message.channel_account, is_paused, has_failed = found
    return message, is_paused, has_failed


def _conversation_of(message: Message) -> Conversation | None:
    found = _CONVERSATION.first(message.conversation_id, message.client_id)
    if found is None:
        return None
    conversation: Conversation
    conversation, conversation.contact = found
    return conversation


def _mark_sending(message: Message, now: datetime) -> None:
    message.status = S.SENDING
    message.sending_at = now
    message.lease_until = now + lease_duration()
    update(message, ("status", "sending_at", "lease_until", "template", "content"))


def _begin_with_template(claimed: ClaimedMessage, conversation_id: UUID, token: UUID, now: datetime) -> Message | None:
    """Mark the message as sending with a template in place of its text and return it. If there is none, it fails."""
    with transaction.atomic():
        conversation = lock_conversation(claimed.client_id, conversation_id)
        message, *_ = _lock_claimed(claimed, token, now)
        if conversation is None or message is None or message.channel_account is None:
            return None
        if receipts.set_template(message, conversation, adapter_of(message.channel_account)):
            _mark_sending(message, now)
            return message
        message.lease_until = message.lease_token = None
        _fail(message, now)
        message.save()
    return None


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
    counters.SENDS.labels(sending.adapter.provider, "").inc()
    if sending.has_failed:
        circuits.note_success(sending.client_id, sending.channel_account_id)
    _learn_addresses(sending, result)
    with transaction.atomic():
        about = [result.provider_message_id]
        if sending.adapter.reports_watermarks:
            about.append(receipts.watermark_key(sending.outbound.to))
        for each in about:
            receipts.lock_provider_message(each)
        early = receipts.early_receipts(sending.channel_account_id, about)
        # Before the message: see core/locking.py.
        conversation = receipts.lock_if_failed(sending.client_id, sending.conversation_id, early)
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
        note_delivery(message.client_id, message.pk, message.status)
        receipts.apply_early(message, early, conversation)
    receipts.note_early(message, early, now)


def _learn_addresses(sending: Sending, result: SendResult) -> None:
    """Note further addresses of the recipient, so that they are known however they write.

    What a person wrote from is known from their messages; another id of their own is learned until then.
    """
    news = [each for each in result.aliases if each[0] == AddressKind.PHONE or sending.is_unanswered]
    if news:
        contacts.add_addresses(sending.client_id, sending.conversation_id, news, str(sending.message_id))


def record_failed(sending: Sending, error: SendError, now: datetime) -> None:
    """Record that the provider did not accept the message.

    As the error says, it is queued again (unless the conversation ended meanwhile), failed or unknown.
    """
    counters.SENDS.labels(sending.adapter.provider, error.code[:40]).inc()
    if error.code in circuits.NOT_REACHED:
        circuits.note_failure(sending.client_id, sending.channel_account_id, sending.message_id, error.code, now)
    elif sending.has_failed:
        circuits.note_success(sending.client_id, sending.channel_account_id)  # the provider has answered
    if error.code in sending.adapter.marketing_refusals:
        opt_outs.note_marketing_refusal(sending.client_id, sending.conversation_id, error.code, now)
    with transaction.atomic():
        conversation = lock_conversation(sending.client_id, sending.conversation_id)
        message = _lock_message(sending)
        if conversation is None or message is None or not _error_counts(message, sending, error):
            return
        message.lease_until = message.lease_token = None
        message.code, message.reason = error.code[:40], str(error)[:500]
        if (
            error.outside_window
            and not message.template
            and receipts.set_template(message, conversation, sending.adapter)
        ):
            queue_again(message, conversation, now)
        elif error.account_broken:
            message.attempts -= 1
            _mark_broken(sending, conversation, error)
            queue_again(message, conversation, now)
        elif error.throttled:
            message.attempts -= 1  # it is not the message's fault; it waits at most until its conversation ends
            queue_again(message, conversation, throttles.pause(message, error, now))
        elif error.ambiguous and not sending.adapter.sends_idempotently:
            message.status = S.UNKNOWN
            record(conversation, "message_unknown", SYSTEM, cause=error.code, message_id=str(message.pk))
        elif (error.retryable or error.ambiguous) and message.attempts < settings.SEND_ATTEMPTS:
            queue_again(message, conversation, now + backoff(message.attempts, error.retry_after))
        else:
            _fail(message, now)
        message.save()


def lock_conversation(client_id: UUID, conversation_id: UUID) -> Conversation | None:
    """Lock the conversation (before its message: see core/locking.py) and return it; None if it was purged."""
    try:
        return lock(conversation_id, client_id)
    except NotFoundError:
        return None


def _error_counts(message: Message, sending: Sending, error: SendError) -> bool:
    """Return whether the error decides what becomes of the message."""
    if message.status == S.SENDING:
        return message.lease_token == sending.token
    # Its lease ended while the database was away. We know that it was never sent, and nobody else sends it.
    interrupted = message.status == S.UNKNOWN and message.code == INTERRUPTED
    return interrupted and not error.ambiguous and not sending.adapter.sends_idempotently


def queue_again(message: Message, conversation: Conversation, due_at: datetime) -> None:
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
    about = (message.client_id, message.conversation_id)
    record_in(*about, "message_failed", SYSTEM, cause=message.code, message_id=str(message.pk))


def _lock_message(sending: Sending) -> Message | None:
    """Lock the message and return it, if our lease still holds or a receipt settled it meanwhile."""
    found = _OURS.first(sending.message_id, sending.token, sending.client_id)
    return found[0] if found else None
