"""Requests for approval of tool calls, which end with their conversation."""

from __future__ import annotations

from datetime import datetime

from conversations.models import Conversation, ToolCall

S = ToolCall.Status

# The same for the conversations of `moved`, at $1: part of the statement that expires them (jobs/sweep.py).
EXPIRE_SQL = """
        UPDATE tool_calls c SET status = 'expired', is_open = false, ended_at = $1
        FROM moved WHERE c.conversation_id = moved.id AND c.is_open AND c.status IN ('waiting', 'approved')"""


def expire(conversation: Conversation, now: datetime) -> None:
    """Expire the locked conversation's calls that were not made: those that wait for approval, or have just got it."""
    unmade = ToolCall.objects.filter(conversation=conversation, is_open=True, status__in=[S.WAITING, S.APPROVED])
    unmade.update(status=S.EXPIRED, is_open=False, ended_at=now)
