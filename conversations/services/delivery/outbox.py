"""The outbox: queue messages for sending and cancel those that must not be sent any more. sending.py sends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from channels_out import registry, splitting
from channels_out.choices import ChoiceForm, Choices, choices_from_json, form_of, with_numbers
from channels_out.contract import Adapter, Template
from channels_out.formatting import Formatted, formatted
from channels_out.kinds import AddressKind, Channel
from channels_out.phones import phone_address
from channels_out.templates import TAKEN_WITHOUT_CONSENT
from conversations.models import (
    Attachment,
    ChannelAccount,
    Chunk,
    Contact,
    Conversation,
    Message,
    Turn,
    corrected_text,
)
from conversations.services.core.ledger import SYSTEM, record, record_in
from conversations.services.core.sql import follow, insert, row, update
from conversations.words import with_values

S = Message.Status
CHOICES = "choices"  # in a chunk's metadata and a message's content
TEMPLATE = "template"  # in the metadata of a chunk that is one, and in a message's content
OPTED_OUT = "opted_out"
TAKEN_OVER = "taken_over"
NO_MARKETING = "no_marketing"
FILE_FAILED = "file_failed"
NO_ACCOUNT = with_values("The client has no account on %(channel)s. Create one with create_channel_account.")
FILE_WAIT = timedelta(days=1)  # a message waits for its file; what ends the wait is the fetch


def queue(
    conversation: Conversation,
    chunk: Chunk,
    now: datetime,
    *,
    reply_to: str = "",
    unconditional: bool = False,
    again: Sequence[Message] = (),
    by_assistant: bool = False,
    text: str | None = None,
    files: Sequence[Attachment] = (),
) -> list[Message]:
    """Queue the chunk for sending over the conversation's account, in as many parts as the channel needs.

    Returns the messages. There are none on the web, where the person reads the transcript itself, and none in a call,
    whose provider fetches what is said (voice/calls.py). Without an account the message fails visibly.

    reply_to: the provider's id of the message it answers, which is quoted if the channel can
    unconditional: send it even if the conversation ends or is taken over before that
    again: the chunk's failed messages, by part; their rows are reused for the first parts
    text: what is sent of the chunk, if not its content; '' for its files alone
    files: sent after the text, each by itself, once they are there
    by_assistant: a model wrote it, so its Markdown becomes the channel's own formatting; other text stays as written
    """
    if conversation.channel == Channel.WEB:
        return []
    account = account_of(conversation)
    adapter = adapter_or_none(account)
    if adapter and adapter.fetches_replies:
        return []
    to, kind = destination(conversation)
    choices = choices_of(chunk)
    said = chunk.content if text is None else text
    texts, form = [with_numbers(said, choices)] if said else [], None
    if adapter and account and said:
        texts, form = parts_of(said, choices, adapter, account, by_assistant)
    content = {CHOICES: choices.as_json()} if choices and form else None
    failure = {} if adapter else _no_account(conversation, now)
    messages = [
        Message(
            conversation=conversation,
            chunk=chunk,
            part=part,
            parts=len(texts) + len(files),
            channel_account=account,
            to_address=to,
            to_kind=kind,
            text=words,
            attachment=file,
            content=content if part == len(texts) else None,
            unconditional=unconditional,
            reply_to=reply_to if part == 1 else "",
            due_at=now + FILE_WAIT if file and file.state == Attachment.State.WAITING else now,
            created_at=now,
            **failure,
        )
        for part, (words, file) in enumerate(
            [*((each, None) for each in texts), *((each.name, each) for each in files)], start=1
        )
    ]
    for message, failed in zip(messages, again, strict=False):
        message.pk, message.created_at = failed.pk, failed.created_at
        update(message)
    insert(messages[len(again) :])
    return messages


def queue_template(
    conversation: Conversation,
    chunk: Chunk,
    account: ChannelAccount,
    template: Template,
    content: Mapping[str, Any],
    now: datetime,
) -> Message:
    """Queue the chunk, which is a template as the person reads it, and return the message.

    content: what the message keeps of the template (templates.content_of)
    """
    to, kind = destination(conversation)
    message = Message(
        conversation=conversation,
        chunk=chunk,
        channel_account=account,
        to_address=to,
        to_kind=kind,
        text=chunk.content,
        template=template_to_text(template),
        content={TEMPLATE: dict(content)},
        due_at=now,
        created_at=now,
    )
    insert([message])
    return message


def words_of(message: Message) -> str:
    """Return the whole text of the message's chunk, of which the message may be a part, as it reads now."""
    found = (
        Chunk.objects.filter(client=message.client_id, pk=message.chunk_id)
        .annotate(words=corrected_text(message.client_id))
        .values_list("words", flat=True)
    )
    return found.first() or message.text


def template_to_text(template: Template) -> str:
    """Return the template as `Message.template` stores it: name and language."""
    return f"{template.name} {template.language}"


def template_of(message: Message) -> Template | None:
    """Return the template that is sent in place of the message's text, with its values; None if none is."""
    name, _, language = message.template.partition(" ")
    if not name:
        return None
    kept = (message.content or {}).get(TEMPLATE) or {}
    return Template(name, language, tuple(kept.get("components") or ()))


def choices_of(chunk: Chunk) -> Choices | None:
    """Return the choices that the message offers, None if it offers none."""
    return choices_from_json(chunk.metadata.get(CHOICES)) if chunk.metadata else None


def release_file(client_id: UUID, conversation_id: UUID, attachment_id: UUID, now: datetime) -> None:
    """Let the message that waits for the file be sent."""
    _waiting_for(client_id, conversation_id, attachment_id).update(due_at=now)


def fail_file(client_id: UUID, conversation_id: UUID, attachment_id: UUID, reason: str, now: datetime) -> None:
    """Let the message that waits for the file fail, because it could not be had."""
    failed = {"status": S.FAILED, "failed_at": now, "code": FILE_FAILED, "reason": reason[:500]}
    if _waiting_for(client_id, conversation_id, attachment_id).update(**failed):
        record_in(client_id, conversation_id, "message_failed", SYSTEM, cause=FILE_FAILED)


def _waiting_for(client_id: UUID, conversation_id: UUID, attachment_id: UUID) -> QuerySet[Message]:
    ours = Message.objects.filter(client=client_id, conversation=conversation_id)
    return ours.filter(attachment=attachment_id, status=S.QUEUED)


def parts_of(
    text: str, choices: Choices | None, adapter: Adapter, account: ChannelAccount, by_assistant: bool
) -> tuple[list[str], ChoiceForm | None]:
    """Return the text in the parts that are sent, none of which ends inside a mark, and the form of the choices.

    The last part has the choices below it. Without a form they are listed in it.
    """
    found = formatted(text, adapter.formatting) if by_assistant else Formatted(text)
    limit, unit = adapter.limit_of(account.address)
    form = form_of(choices, adapter.choice_forms) if choices else None
    words = found.text if form else with_numbers(found.text, choices)
    parts = splitting.split(words, limit, unit, found.whole)
    if form and form.text and splitting.UNITS[unit](parts[-1]) > form.text:
        parts = splitting.split(words, form.text, unit, found.whole)
    return parts, form


def account_of(conversation: Conversation) -> ChannelAccount | None:
    """Return the account that the conversation's messages go through, or None.

    A locked conversation without one gets the client's; call it within `locking.saving`.
    """
    return follow(conversation, "channel_account") or _assign_account(conversation)


def _assign_account(conversation: Conversation) -> ChannelAccount | None:
    """Give a conversation that was opened before there was an account the client's oldest active one on the channel."""
    if account := default_account(conversation.client_id, conversation.channel):
        conversation.channel_account = account
    return account


def default_account(client_id: UUID, channel: str) -> ChannelAccount | None:
    """Return the client's oldest active account on the channel, which writes where none is named; None without one."""
    theirs = ChannelAccount.objects.filter(client=client_id, channel=channel, is_active=True, is_simulated=False)
    return theirs.order_by("created_at").first()


def adapter_or_none(account: ChannelAccount | None) -> Adapter | None:
    """Return the account's adapter; None without an account or for a provider that is not known (any more)."""
    try:
        return registry.adapter_for(account.provider, account.channel) if account else None
    except LookupError:
        return None


def _no_account(conversation: Conversation, now: datetime) -> dict[str, object]:
    record(conversation, "message_failed", SYSTEM, cause="no_account")
    return {
        "status": S.FAILED,
        "failed_at": now,
        "code": "no_account",
        "reason": NO_ACCOUNT % {"channel": conversation.channel},
    }


def destination(conversation: Conversation) -> tuple[str, str]:
    """Return the address that replies go to, and its kind.

    It is the address the person wrote from, else their phone, else the client's id of them.
    """
    if device := follow(conversation, "device"):
        return device.address, device.kind
    contact = conversation.contact
    address = phone_address(conversation.channel, contact.phone)
    return (address, AddressKind.PHONE) if address else (contact.user_id, AddressKind.USER)


def is_opted_out(conversation: Conversation) -> bool:
    """Return whether the contact, as of now, has opted out of the conversation's channel."""
    found = row(
        "SELECT 1 FROM contacts WHERE client_id = $3 AND id = $1 AND opted_out ? $2",
        *(conversation.contact_id, conversation.channel, conversation.client_id),
    )
    return found is not None


def marketing_on(channel: str) -> str:
    """Return the key in `Contact.opted_out` of a person who wants no marketing messages on the channel."""
    return f"{channel}:marketing"


def cancel_code(message: Message, conversation: Conversation | None) -> str:
    """Return the code by which the message must be cancelled, '' if it may be sent.

    The code is `opted_out`, `no_marketing` (of a template), `deleted`, the status of the ended conversation, or
    `taken_over` if the assistant wrote the message and a colleague has the conversation.
    """
    if conversation is None:
        return "deleted"
    if conversation.channel in conversation.contact.opted_out and not _is_notice(message):
        return OPTED_OUT
    if (
        message.template
        and marketing_on(conversation.channel) in conversation.contact.opted_out
        and _is_marketing(message)
    ):
        return NO_MARKETING
    if message.unconditional:
        return ""
    if not conversation.is_open:
        return conversation.status
    if conversation.taken_over_at and Turn.objects.filter(client=message.client_id, chunk=message.chunk_id).exists():
        return TAKEN_OVER
    return ""


def _is_marketing(message: Message) -> bool:
    """Return whether the message's template needs the person's consent; one of an unknown category does."""
    kept = (message.content or {}).get(TEMPLATE) or {}
    return kept.get("category") not in TAKEN_WITHOUT_CONSENT


def _is_notice(message: Message) -> bool:
    """Return whether the message confirms an opt-out to the person."""
    return Chunk.objects.filter(client=message.client_id, pk=message.chunk_id, metadata__has_key="notice").exists()


def cancel_unsent(conversation: Conversation, code: str) -> int:
    """Cancel the conversation's unsent messages and return how many there were. One being sent is not tried again."""
    Message.objects.filter(conversation=conversation, status=S.SENDING, unconditional=True).update(unconditional=False)
    return _cancel(_unsent(conversation), code)


def cancel_for_contact(contact: Contact, channel: str) -> int:
    """Cancel the unsent messages to the contact on the channel and return how many there were."""
    ours = Message.objects.filter(client=contact.client_id, status__in=[S.QUEUED, S.CLAIMED])
    theirs = Conversation.objects.filter(contact=contact, channel=channel)
    return _cancel(ours.filter(conversation__in=theirs.values("pk")), OPTED_OUT)


def silence(conversation: Conversation) -> int:
    """Cancel the assistant's unsent messages in the conversation and return how many there were."""
    said = Turn.objects.filter(conversation=conversation).values("chunk")
    return _cancel(_unsent(conversation).filter(chunk__in=said, unconditional=False), TAKEN_OVER)


def allow_sending(conversation: Conversation) -> None:
    """Let the unsent messages be sent although the conversation is about to end or to be taken over."""
    _unsent(conversation).update(unconditional=True)


def _unsent(conversation: Conversation) -> QuerySet[Message]:
    return Message.objects.filter(conversation=conversation, status__in=[S.QUEUED, S.CLAIMED])


def _cancel(messages: QuerySet[Message], code: str) -> int:
    return messages.update(status=S.CANCELLED, code=code, lease_until=None, lease_token=None)
