"""The outcomes of tool calls: given to drafts as background, and settled when a reply is committed (models/tool.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from conversations.engines.contract import CALLED_ALREADY, Reply
from conversations.engines.tool_schemas import canonical
from conversations.models import Conversation, McpServer, Tool, ToolCall, Turn
from conversations.services.core.locking import editing_if_there
from conversations.services.core.sql import PreparedSelect, column, row
from conversations.services.replies.tool_calls import MOST_CALLS, told_of

S = ToolCall.Status

LONGEST_SHOWN = 4_000  # characters of an answer
MOST_SHOWN = 16_000  # characters of all answers together
_OPEN = PreparedSelect(
    f"""
    SELECT {{c}} FROM tool_calls c WHERE c.client_id = $2 AND c.conversation_id = $1 AND c.is_open AND c.key IS NOT NULL
    ORDER BY c.created_at LIMIT {MOST_CALLS}
    """,
    c=ToolCall,
)
# With the conversation locked.
_GIVE = "UPDATE tool_calls SET given_to = $2 WHERE client_id = $3 AND id = ANY($1) RETURNING id"
_GIVEN = "u.given_to = $2 AND u.status IN ('refused', 'answered', 'failed', 'unknown', 'requested')"
_SETTLE = f"""
    WITH closed AS (
        UPDATE tool_calls u
        SET is_open = false, status = CASE u.status WHEN 'requested' THEN 'failed' ELSE u.status END
        WHERE u.client_id = $3 AND u.conversation_id = $1 AND u.is_open AND {_GIVEN})
    SELECT EXISTS (
        SELECT FROM tool_calls u
        WHERE u.client_id = $3 AND u.conversation_id = $1 AND u.is_open AND u.decided_at IS NOT NULL
          AND ({_GIVEN}) IS NOT TRUE)"""
_USABLE = PreparedSelect(
    """
    SELECT {t}, {m} FROM tools t LEFT JOIN mcp_servers m ON m.id = t.server_id
    WHERE t.client_id = $1 AND t.is_active AND t.problem = '' AND COALESCE(m.is_active, true)
      AND (t.assistant_ids = '{{}}' OR $2::uuid = ANY (t.assistant_ids))
    ORDER BY t.name
    """,
    t=Tool,
    m=McpServer,
)


def usable_tools(conversation: Conversation) -> list[Tool]:
    """Return the client's tools that the conversation's assistant may call, by name."""
    return [tool for tool, _ in _USABLE.all(conversation.client_id, conversation.assistant_id)]


def background_of(client_id: UUID, conversation_id: UUID, turn_id: UUID) -> str:
    """Return what became of the calls that earlier drafts made, or that staff have decided on; '' if there are none.

    The turn counts as told. The text belongs into the user's role: what tools answer never reaches the system role.
    """
    with editing_if_there(
        conversation_id, client_id
    ):  # a colleague's decision comes before, or is told by the next draft
        calls: list[ToolCall] = [call for (call,) in _OPEN.all(conversation_id, client_id)]
        if not calls:
            return ""
        column(_GIVE, [call.pk for call in calls], turn_id, client_id)
    return CALLED_ALREADY + "".join(f"\n- {line}" for line in _lines(calls))


def has_made_calls(conversation: Conversation) -> bool:
    """Return whether a tool that changes something was called for messages that have no reply yet."""
    made = ToolCall.objects.filter(conversation=conversation, is_open=True, key__isnull=False, changes_something=True)
    return made.filter(status__in=[S.ANSWERED, S.UNKNOWN]).exists()


def _lines(calls: Sequence[ToolCall]) -> list[str]:
    most = min(LONGEST_SHOWN, MOST_SHOWN // len(calls))
    return [f"{call.name} {canonical(call.arguments)[:500]}: {_shown(told_of(call), most)}" for call in calls]


def _shown(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [… cut off]"


def settle(conversation: Conversation, turn: Turn, reply: Reply, now: datetime) -> bool:
    """Close the calls whose outcome the committed reply was given, record its built-in tools as calls, and return
    whether a reply is still owed to a colleague's decision.

    Call it with the conversation locked.
    """
    if reply.tool_actions:
        _record_built_in(conversation, turn, reply, now)
    found = row(_SETTLE, conversation.pk, turn.pk, conversation.client_id)
    return bool(found and found[0])


def _record_built_in(conversation: Conversation, turn: Turn, reply: Reply, now: datetime) -> None:
    answers = {call.name: call.answer for call in reply.tool_calls}
    ToolCall.objects.bulk_create(
        ToolCall(
            client_id=conversation.client_id,
            conversation=conversation,
            name=action.name,
            arguments=action.arguments,
            status=S.ANSWERED,
            is_open=False,
            turn_id=turn.pk,
            given_to=turn.pk,
            attempt=turn.attempt,
            tries=1,
            answer=answers.get(action.name, ""),
            created_at=now,
            ended_at=now,
        )
        for action in reply.tool_actions
    )
