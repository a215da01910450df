"""Renew the leases of messages that are being sent, and recover the messages whose lease has run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext_noop

from conversations.models import Message
from conversations.services.core.cluster import for_each_with, of_each
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.rotation import by_client
from conversations.services.core.sql import rows, unlocked
from conversations.services.delivery import outbox
from conversations.services.delivery.claiming import lease_duration
from conversations.services.delivery.sending import INTERRUPTED, lock_conversation, queue_again

S = Message.Status


def renew(messages: Mapping[UUID, UUID], now: datetime) -> None:
    """Renew the leases of the messages that are still being sent. One that is locked elsewhere is skipped.

    messages: their ids, each with its client's
    """

    def renew_of(client_id: UUID, ids: Sequence[UUID]) -> None:
        with transaction.atomic():
            held = Message.objects.filter(client_id=client_id, pk__in=ids, status__in=[S.CLAIMED, S.SENDING])
            unlocked(held, client_id).update(lease_until=now + lease_duration())

    list(of_each(by_client(messages).items(), renew_of))


_CLIENTS_WITH_LOST = """
    SELECT DISTINCT client_id FROM conversation_messages
    WHERE status IN ('claimed', 'sending') AND lease_until < $1"""
_RELEASE = """
    UPDATE conversation_messages m SET status = 'queued', lease_until = NULL, lease_token = NULL
    FROM (SELECT id FROM conversation_messages WHERE client_id = $2 AND status = 'claimed' AND lease_until < $1
          FOR UPDATE SKIP LOCKED) lost
    WHERE m.client_id = $2 AND m.id = lost.id
    RETURNING m.id"""
_LOST = """
    SELECT id, conversation_id FROM conversation_messages
    WHERE client_id = $2 AND status = 'sending' AND lease_until < $1 LIMIT 500"""


def recover(now: datetime) -> int:
    """Recover the messages whose lease has run out, as after a dispatcher's crash. Returns how many there were.

    One that was only claimed is queued again. One that was being sent is queued again if its adapter sends
    idempotently, else it is unknown.
    """
    return sum(for_each_with(_CLIENTS_WITH_LOST, [now], lambda client_id: _recover_of(client_id, now)))


def _recover_of(client_id: UUID, now: datetime) -> int:
    released = len(rows(_RELEASE, now, client_id))
    return released + sum(
        _recover(client_id, message_id, conversation_id, now)
        for message_id, conversation_id in rows(_LOST, now, client_id)
    )


def _recover(client_id: UUID, message_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with transaction.atomic():
        conversation = lock_conversation(client_id, conversation_id)
        message = (
            Message.objects.select_for_update(of=("self",))
            .select_related("channel_account")
            .filter(client_id=client_id, pk=message_id, status=S.SENDING, lease_until__lt=now)
            .first()
        )
        if conversation is None or message is None:
            return False
        adapter = outbox.adapter_or_none(message.channel_account)
        message.lease_until = message.lease_token = None
        if adapter and adapter.sends_idempotently and message.attempts < settings.SEND_ATTEMPTS:
            queue_again(message, conversation, now)
        else:
            message.status, message.code = S.UNKNOWN, INTERRUPTED
            message.reason = gettext_noop(
                "Convo stopped while the message was being sent. The provider may have accepted it."
            )
            record(conversation, "message_unknown", SYSTEM, cause=INTERRUPTED, message_id=str(message.pk))
        message.save()
    return True
