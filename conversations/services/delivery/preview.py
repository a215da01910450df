"""A look at what a channel will show of a text, before it is sent: in the same parts and the same form of choices."""

from __future__ import annotations

from dataclasses import dataclass

from channels_out.choices import Choices, with_numbers
from channels_out.formatting import Formatting
from channels_out.kinds import Channel
from conversations.models import Conversation
from conversations.services.delivery import outbox


@dataclass(frozen=True, slots=True)
class Preview:
    """The parts of a text as they are sent.

    formatting    how the channel shows marks in them
    choices       the titles that stand as buttons or as a list below the last part; those of a channel without such
                  forms are listed in the text
    """

    parts: tuple[str, ...]
    formatting: Formatting
    choices: tuple[str, ...] = ()


def preview(conversation: Conversation, text: str, choices: Choices | None, *, by_assistant: bool) -> Preview:
    """Return what would be sent of the text now. Nothing is stored.

    by_assistant: a model wrote it, so its Markdown becomes the channel's own formatting
    """
    account = conversation.channel_account or outbox.default_account(conversation.client_id, conversation.channel)
    adapter = outbox.adapter_or_none(account)
    if account is None or adapter is None or adapter.fetches_replies or conversation.channel == Channel.WEB:
        return Preview((with_numbers(text, choices),), Formatting.PLAIN)
    parts, form = outbox.parts_of(text, choices, adapter, account, by_assistant)
    titles = tuple(each.title for each in choices.options) if choices and form else ()
    return Preview(tuple(parts), adapter.formatting, titles)
