"""The brake on loops: two machines that answer each other would go on for ever, at the client's cost.

Another assistant, an auto-reply or a monitoring number shows in one of two ways: it writes alike again and again,
whatever it is answered, or it is answered more often in a short time than people type. The conversation then waits for
a person; from a hand-back on, counting begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.utils.translation import gettext_noop

from channels_out.kinds import Channel
from conversations.models import Conversation, Role
from conversations.services.core.sql import rows

CHANNELS = (Channel.SMS, Channel.WHATSAPP, Channel.MESSENGER)  # in calls and on the web a machine is noticed otherwise
ALIKE, ALIKE_WITHIN = 5, timedelta(hours=1)
ALIKE_SHORT, SHORT = 12, 20  # people repeat "yes" and "ok": of texts of fewer characters it takes more
REPLIES, REPLIES_WITHIN = 20, timedelta(minutes=2)
ALIKE_REASON = gettext_noop("A machine may be answering: their last messages are alike.")
REPLIES_REASON = gettext_noop("A machine may be answering: very many replies in a short time.")

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[^\W_]+")
_RECENT = """
    SELECT c.role, left(c.content, 500), c.created_at FROM conversation_chunks c
    WHERE c.client_id = $5 AND c.conversation_id = $1 AND c.position > $2 AND c.role IN ('user', 'ai')
      AND c.author_id IS NULL
      AND c.created_at > $3
    ORDER BY c.position DESC LIMIT $4"""


def reason_to_brake(conversation: Conversation, now: datetime) -> str:
    """Return why the conversation should wait for a person, '' if nothing speaks for a machine.

    The rows are read only where as many messages came as a loop has at least.
    """
    if conversation.channel not in CHANNELS or conversation.inbound_sequence < ALIKE:
        return ""
    since = now - ALIKE_WITHIN
    if conversation.handed_back_at:
        since = max(since, conversation.handed_back_at)
    most = 2 * max(REPLIES, ALIKE_SHORT) + 2
    about = (conversation.pk, conversation.last_position - 2 * most, since, most, conversation.client_id)
    recent = rows(_RECENT, *about)
    if _are_alike(_answered_turns([(role, text) for role, text, _ in recent])):
        return ALIKE_REASON
    replies = sum(role == Role.AI and at > now - REPLIES_WITHIN for role, _, at in recent)
    return REPLIES_REASON if min(replies, conversation.inbound_sequence) >= REPLIES else ""


def _answered_turns(recent: Sequence[tuple[str, str]]) -> list[str]:
    """Return what the person said between one reply and the next, newest first."""
    turns: list[str] = []
    was_reply = True
    for role, text in recent:
        if role == Role.AI:
            was_reply = True
        elif was_reply:
            turns.append(text)
            was_reply = False
        else:
            turns[-1] = f"{text} {turns[-1]}"
    return turns


def _are_alike(turns: Sequence[str]) -> bool:
    """Return whether the newest turns say the same, but for numbers, often enough."""
    if not turns:
        return False
    first = _plain(turns[0])
    needed = ALIKE if len(first) >= SHORT else ALIKE_SHORT
    return bool(first) and len(turns) >= needed and all(_plain(each) == first for each in turns[1:needed])


def _plain(text: str) -> str:
    """Return the words in lower case, without numbers, such as a time or a ticket's."""
    return " ".join(_WORD.findall(_DIGITS.sub(" ", text.casefold())))
