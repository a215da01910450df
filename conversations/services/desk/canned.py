"""Canned replies, filled in for a conversation."""

from __future__ import annotations

import re

from conversations.models import CannedReply, Conversation

MOST = 500  # offered at once
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def replies_for(conversation: Conversation, agent: str) -> list[tuple[str, str]]:
    """Return the shortcut and the text of each of the client's canned replies, by shortcut.

    agent: the name of whoever replies. A placeholder that is not known stays as it is written.
    """
    name = conversation.contact.shown_name
    values = {
        "name": name,
        "first_name": name.split()[0] if name.split() else "",
        "agent": agent,
        "client": conversation.client.name,
    }
    found = CannedReply.objects.filter(client=conversation.client_id).order_by("shortcut")[:MOST]
    return [(each.shortcut, _filled(each.text, values)) for each in found]


def _filled(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
