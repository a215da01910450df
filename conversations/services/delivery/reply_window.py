"""The reply window: how long free text may be sent after a person last wrote, and what may be sent after that.

WhatsApp and Messenger take free text for 24 hours after a person's last message to the account, in any of their
conversations. After that WhatsApp takes a template. We send only one, because the same words again say nothing new.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_noop

from channels_out.contract import Adapter, Template
from conversations.models import Assistant, Chunk, Conversation, Message
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.sql import row
from conversations.services.delivery import outbox, templates

SENT_AT = "%Y-%m-%dT%H:%M:%SZ"  # format of `sent_at` in the metadata of a chunk that came late
CLOSED = "outside_window"
REPLACED = "template_instead"
TEMPLATE_SENT = gettext_noop("The assistant's template was sent instead of this text.")

_TOO_LATE = "More than {hours} hours have passed since the person last wrote, so the channel takes no free text"
_NO_TEMPLATES = _TOO_LATE + " until they write again."
_NO_TEMPLATE = _TOO_LATE + ", and the assistant has no template to send instead."
_TEMPLATE_UNANSWERED = _TOO_LATE + ", and they have not answered the assistant's template that was sent since."
_NO_MARKETING = _TOO_LATE + ", and they want no marketing messages, so the template is not sent."

# $1 the conversation, $2 the account, $3 when the window began, $4 the same as SENT_AT. It looks at the person's newest
# messages in each conversation over the same account that was active since; at five, because the newest may have come
# late.
_WROTE = """
SELECT EXISTS (
    SELECT
    FROM conversations mine
    JOIN conversations s ON s.client_id = $5 AND s.contact_id = mine.contact_id AND s.channel || '' = mine.channel
    JOIN LATERAL (
        SELECT k.created_at, k.metadata->>'sent_at' AS sent_at
        FROM conversation_chunks k
        WHERE k.client_id = $5 AND k.conversation_id = s.id AND k.role IN ('user', 'voice')
        ORDER BY k.position DESC LIMIT 5) said ON true
    WHERE mine.client_id = $5 AND mine.id = $1 AND s.last_message_at >= $3
      AND (s.id = mine.id OR s.channel_account_id = $2)
      AND said.created_at >= $3 AND COALESCE(said.sent_at, $4) >= $4)"""


def is_open(message: Message, adapter: Adapter, now: datetime) -> bool:
    """Return whether the message's free text may be sent at `now`."""
    if adapter.reply_window is None:
        return True
    since = now - adapter.reply_window
    return wrote_since(message.client_id, message.conversation_id, message.channel_account_id, since)


def wrote_since(client_id: UUID, conversation_id: UUID, account_id: UUID | None, since: datetime) -> bool:
    """Return whether the conversation's person has written to the account since then."""
    in_words = since.astimezone(UTC).strftime(SENT_AT)
    found = row(_WROTE, conversation_id, account_id, since, in_words, client_id)
    return bool(found and found[0])


def template_for(
    conversation: Conversation, message: Message, adapter: Adapter
) -> tuple[Template, dict[str, Any]] | str:
    """Return the template to send instead of the message's text, and what the message keeps of it; or the sentence that
    says why there is none."""
    hours = int(adapter.reply_window.total_seconds() // 3600) if adapter.reply_window else 24
    if not adapter.sends_templates:
        return _NO_TEMPLATES.format(hours=hours)
    assistant = conversation.assistant or Assistant.objects.filter(client=conversation.client, is_default=True).first()
    if assistant is None or not assistant.template_name:
        return _NO_TEMPLATE.format(hours=hours)
    if _template_was_sent(conversation, message):
        return _TEMPLATE_UNANSWERED.format(hours=hours)
    found = templates.fallback(conversation, message, assistant)
    if isinstance(found, str):
        return f"{_TOO_LATE.format(hours=hours)}. {found}"
    wants_none = outbox.marketing_on(conversation.channel) in conversation.contact.opted_out
    if wants_none and templates.is_marketing(found[1]["category"]):
        return _NO_MARKETING.format(hours=hours)
    return found


def _template_was_sent(conversation: Conversation, message: Message) -> bool:
    """Return whether another template was sent in place of a text since the person last wrote."""
    newest = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("-position")
    sent = Message.objects.filter(conversation=conversation).exclude(template="").exclude(pk=message.pk)
    sent = sent.exclude(chunk__metadata__has_key=outbox.TEMPLATE)
    since = newest.values_list("pk", flat=True).first() or 0
    return sent.filter(chunk__gt=since).exclude(status__in=[Message.Status.FAILED, Message.Status.CANCELLED]).exists()
