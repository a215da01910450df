"""How long after a person last wrote free text may be sent to them, and what may be sent after that.

WhatsApp and Messenger take free text for 24 hours after a person's last message to the account, in whichever session
that was. Later a template may go, on WhatsApp, and only one: the same words again say nothing new.
"""

from __future__ import annotations

from datetime import UTC, datetime

from channels_out.contract import Adapter, Template
from conversations.models import Assistant, Chunk, Conversation, Message
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.sql import row

SENT_AT = "%Y-%m-%dT%H:%M:%SZ"  # in the metadata of a chunk that came late: when the person sent it
CLOSED = "outside_window"
REPLACED = "template_instead"
TEMPLATE_WENT = "The assistant's template was sent in the place of this text."

_TOO_LATE = "More than {hours} hours since the person last wrote: no free text is taken any more"
_NO_TEMPLATES = _TOO_LATE + ", until they write again."
_NO_TEMPLATE = _TOO_LATE + ", and the assistant has no template to send instead."
_ONE_IS_ENOUGH = _TOO_LATE + ", and the assistant's template went already: they have not answered it."

# $1 the conversation, $2 the account, $3 when the window began, $4 the same as SENT_AT. The person's newest words count
# in each session that was alive since, over the same account; a few of them, as one may have come late.
_WROTE = """
SELECT EXISTS (
    SELECT
    FROM conversations mine
    JOIN conversations s ON s.contact_id = mine.contact_id AND s.channel || '' = mine.channel
    JOIN LATERAL (
        SELECT k.created_at, k.metadata->>'sent_at' AS sent_at
        FROM conversation_chunks k
        WHERE k.conversation_id = s.id AND k.role IN ('user', 'voice')
        ORDER BY k.position DESC LIMIT 5) said ON true
    WHERE mine.id = $1 AND s.last_message_at >= $3 AND (s.id = mine.id OR s.channel_account_id = $2)
      AND said.created_at >= $3 AND COALESCE(said.sent_at, $4) >= $4)"""


def is_open(message: Message, adapter: Adapter, now: datetime) -> bool:
    """Whether the message's text may be sent at `now`."""
    if adapter.reply_window is None:
        return True
    since = now - adapter.reply_window
    found = row(
        _WROTE, message.conversation_id, message.channel_account_id, since, since.astimezone(UTC).strftime(SENT_AT)
    )
    return bool(found and found[0])


def template_for(conversation: Conversation, message: Message, adapter: Adapter) -> Template | str:
    """What may be sent in the place of the message's text, or, in a sentence, why nothing may."""
    hours = int(adapter.reply_window.total_seconds() // 3600) if adapter.reply_window else 24
    if not adapter.sends_templates:
        return _NO_TEMPLATES.format(hours=hours)
    assistant = conversation.assistant or Assistant.objects.filter(client=conversation.client, is_default=True).first()
    if assistant is None or not assistant.template_name:
        return _NO_TEMPLATE.format(hours=hours)
    if _one_went(conversation, message):
        return _ONE_IS_ENOUGH.format(hours=hours)
    return Template(assistant.template_name, assistant.template_language)


def _one_went(conversation: Conversation, message: Message) -> bool:
    """Whether a template went to the person since they last wrote."""
    last_word = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("-position")
    went = Message.objects.filter(conversation=conversation).exclude(template="").exclude(pk=message.pk)
    since = last_word.values_list("pk", flat=True).first() or 0
    return went.filter(chunk__gt=since).exclude(status__in=[Message.Status.FAILED, Message.Status.CANCELLED]).exists()


def written(template: Template) -> str:
    """How a message remembers its template."""
    return f"{template.name} {template.language}"


def read(remembered: str) -> Template | None:
    """The template that a message remembers, if it does."""
    name, _, language = remembered.partition(" ")
    return Template(name, language) if name else None
