"""Sending a failed message again when staff ask for it.

The message's row is used again and never deleted, because a legal hold may keep it. What it said of the earlier attempt
goes into the ledger.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext

from conversations.models import Attachment, Client, Conversation, Message, Turn
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.delivery import outbox
from conversations.services.delivery.receipts import EARLIER_PART

S = Message.Status
NO_ACCOUNT = "no_account"
FILE_LINE = "[file] "


def resend(
    message_id: UUID | str,
    *,
    actor: Actor,
    now: datetime,
    conversation_id: UUID | str,
    client: Client | None = None,
    although_unclear: bool = False,
) -> None:
    """Queue the failed message again, and with it the later parts that were cancelled because of it.

    although_unclear: send also a message of which it is unknown whether it arrived

    Raises NotFoundError, or ConflictError: `ended`, `unclear`, `not_failed`, or `no_account` if the client still has no
    account on the channel.
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        message = Message.objects.select_for_update().filter(pk=message_id, conversation=conversation).first()
        if message is None:
            raise NotFoundError(gettext("There is no such message in this conversation."))
        if message.status == S.UNKNOWN and not although_unclear:
            raise ConflictError(
                gettext("This message may have arrived. Confirm that it is to be sent again."), code="unclear"
            )
        if message.status not in (S.FAILED, S.UNKNOWN):
            raise ConflictError(
                gettext("This message is %(status)s, not failed.") % {"status": message.get_status_display().lower()},
                code="not_failed",
            )
        record(
            conversation, "message_resent", actor, cause=message.code, message_id=str(message.pk), **_before(message)
        )
        if message.code == NO_ACCOUNT:
            _queue_over_an_account(conversation, message, now)
        else:
            _queue_again(message, now)


def _before(message: Message) -> dict[str, str]:
    """Return what the row says of the earlier attempt, by which the provider's own records can be found."""
    attempt = {"account": message.channel_account_id} | {
        name: getattr(message, name) for name in ("provider_message_id", "sending_at", "sent_at", "failed_at")
    }
    return {name: str(value) for name, value in attempt.items() if value}


def _queue_again(message: Message, now: datetime) -> None:
    rest = Message.objects.filter(client=message.client_id, chunk=message.chunk_id, part__gt=message.part)
    rest.filter(status=S.CANCELLED, code=EARLIER_PART).update(
        status=S.QUEUED, due_at=now, code="", reason="", unconditional=True
    )
    message.status, message.due_at, message.attempts, message.unconditional = S.QUEUED, now, 0, True
    message.code = message.reason = message.provider_message_id = ""
    if outbox.TEMPLATE not in message.chunk.metadata:  # it was sent in place of the text, which is tried again
        message.template = ""
        message.content = {
            name: each for name, each in (message.content or {}).items() if name != outbox.TEMPLATE
        } or None
    message.sending_at = message.sent_at = message.failed_at = message.receipt_sequence = None
    message.save()


def _queue_over_an_account(conversation: Conversation, message: Message, now: datetime) -> None:
    """Split the chunk again, with its files, for the account that the client has now; there was none for any part."""
    if outbox.account_of(conversation) is None:
        raise ConflictError(
            gettext("The client still has no account on %(channel)s.") % {"channel": conversation.channel},
            code=NO_ACCOUNT,
        )
    chunk = message.chunk
    by_assistant = Turn.objects.filter(client=message.client_id, chunk=message.chunk_id).exists()
    failed = Message.objects.select_for_update().filter(client=message.client_id, chunk=message.chunk_id)
    again = list(failed.filter(status=S.FAILED, code=NO_ACCOUNT).order_by("part"))
    files = list(Attachment.objects.filter(client_id=message.client_id, chunk=message.chunk_id).order_by("number"))
    text = _without_files(chunk.content, len(files)) if files else None
    outbox.queue(
        *(conversation, chunk, now), unconditional=True, again=again, by_assistant=by_assistant, text=text, files=files
    )


def _without_files(content: str, number: int) -> str:
    """Return the text above the lines that name so many files."""
    lines = content.split("\n")
    return "\n".join(lines[:-number]) if all(line.startswith(FILE_LINE) for line in lines[-number:]) else content
