"""One call each, for an agent's handler: they never raise, and never wait longer than the timeout.

`session_id` may be None (nothing is kept then): what `initialize_conversation_for_user` returned is always right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .manager import ConversationStateManager
from .outbox import OutboxStatus
from .tracking import default_sync


async def initialize_conversation_for_user(
    user_phone: str,
    sub_domain: str,
    bot_id: str | None = None,
    *,
    local_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str | None:
    """The session id of the person's open conversation, which is opened if there is none.

    Where the server cannot be reached, a handle that the other helpers take as well. None where nothing is kept.
    """
    session_id, _ = await default_sync().start(
        user_phone, sub_domain, bot_id=bot_id, local_id=local_id, metadata=metadata
    )
    return session_id


async def add_message_to_conversation(
    session_id: str | None, sub_domain: str, role: str, content: str, *, message_id: str | None = None
) -> bool:
    """What the person (`user`) or the agent (`bot`) said is recorded. The same `message_id` again changes nothing.

    Returns whether it is on the server or safe in the outbox.
    """
    return (await default_sync().add_message(session_id, sub_domain, role, content, message_id=message_id)).accepted


async def sync_graph_state_to_api(session_id: str | None, sub_domain: str, graph_state: Any) -> bool:
    """The conversation's state is what the graph's says. Returns whether it is on the server or safe in the outbox."""
    return (await ConversationStateManager().push(session_id, sub_domain, graph_state)).accepted


async def link_order_to_conversation(session_id: str | None, sub_domain: str, order_id: str) -> bool:
    """The order came of the conversation. Returns whether that is on the server or safe in the outbox."""
    return (await default_sync().link_order(session_id, sub_domain, order_id)).accepted


async def end_conversation(session_id: str | None, sub_domain: str) -> bool:
    """The conversation is over. Returns whether that is on the server or safe in the outbox."""
    return (await default_sync().end(session_id, sub_domain)).accepted


async def graph_state_from_api(session_id: str | None, sub_domain: str) -> dict[str, Any]:
    """The conversation's state as a graph's; {} where there is none, or no answer."""
    return await ConversationStateManager().pull(session_id, sub_domain)


def status() -> OutboxStatus | None:
    """What waits in the outbox; None where nothing is kept."""
    return default_sync().status()
