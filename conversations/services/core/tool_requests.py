"""Requests for approval of tool calls, which end with their conversation, or when a colleague answers instead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from conversations.models import Conversation, ToolCall

S = ToolCall.Status
ANSWERED_OTHERWISE = "Nothing was done: the conversation went on without the assistant before the call was made."

# The same for the conversations of `moved`, at $1: part of the statement that expires them (jobs/sweep.py).
EXPIRE_SQL = """
        UPDATE tool_calls c SET status = 'expired', is_open = false, ended_at = $1
        FROM moved WHERE c.client_id = $3 AND c.conversation_id = moved.id
          AND c.is_open AND c.status IN ('waiting', 'approved')"""


def expire(conversation: Conversation, now: datetime) -> None:
    """Expire the locked conversation's calls that were not made: those that wait for approval, or have just got it."""
    _expire(conversation, [S.WAITING, S.APPROVED], now)


def expire_approved(conversation: Conversation, now: datetime) -> None:
    """Expire the locked conversation's approved calls, where no reply of the assistant is owed any more.

    They would be made with its next reply, which may be days later.
    """
    _expire(conversation, [S.APPROVED], now, answer=ANSWERED_OTHERWISE)


def _expire(conversation: Conversation, statuses: Sequence[S], now: datetime, **fields: Any) -> None:
    unmade = ToolCall.objects.filter(conversation=conversation, is_open=True, status__in=statuses)
    unmade.update(status=S.EXPIRED, is_open=False, ended_at=now, **fields)
