"""Typing: a customer is shown that a colleague writes to them, where the channel can show it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import BoundedSemaphore

from conversations.models import Conversation
from conversations.services.core.sql import row
from conversations.services.delivery import read_marks
from conversations.services.delivery.read_marks import ReadMark

log = logging.getLogger(__name__)

EVERY = timedelta(seconds=15)  # WhatsApp shows it for 25 seconds, Messenger for 20
MOST_WAITING = 16  # of a process; more are left out, since a late sign is worth nothing
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="typing")
_free = BoundedSemaphore(MOST_WAITING)

# At most once in EVERY for the conversation, whoever types and whichever process asks.
_CLAIM = """
    UPDATE desk_presences p SET told_at = $4
    WHERE p.client_id = $1 AND p.conversation_id = $2 AND p.user_id = $3 AND NOT EXISTS (
        SELECT FROM desk_presences o
        WHERE o.client_id = $1 AND o.conversation_id = $2 AND o.told_at > $4 - $5::interval)
    RETURNING p.id"""


def may_show(conversation: Conversation, user_id: int) -> bool:
    """Return whether the customer may be told that this colleague, who may reply, is typing.

    Not where a colleague has the conversation, nor where the assistant has it and the client wants staff to be asked
    before they take it over, nor where the customer wants no messages.
    """
    if not conversation.is_open or conversation.channel in conversation.contact.opted_out:
        return False
    if conversation.taken_over_at is None:
        return not conversation.client.asks_before_takeover
    return not conversation.taken_over_name or conversation.taken_over_by_id == user_id


def show(conversation: Conversation, user_id: int, now: datetime) -> bool:
    """Show the customer that the colleague is typing, and return whether it is being shown now.

    The colleague's presence is noted before. Nothing is shown where it was a moment ago, or the channel cannot. The
    provider is asked in a thread that holds no connection of the database, and its refusal is only logged.
    """
    if not read_marks.has_marks(conversation.channel) or not may_show(conversation, user_id):
        return False
    if row(_CLAIM, conversation.client_id, conversation.pk, user_id, now, EVERY) is None:
        return False
    mark = read_marks.mark_for_newest(conversation.client_id, conversation.pk)
    if mark is None or not _free.acquire(blocking=False):
        return False
    _THREADS.submit(_show, mark)
    return True


def _show(mark: ReadMark) -> None:
    try:
        mark.show_colleague(typing=True)
    except Exception as error:
        log.warning("typing was not shown: provider=%s class=%s", mark.adapter.provider, type(error).__name__)
    finally:
        _free.release()
