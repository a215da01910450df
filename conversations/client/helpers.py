"""Functions for an agent's handler. They never raise, and never wait longer than the timeout.

`session_id` is what `initialize_conversation_for_user` returned; if that is None, nothing is stored.
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
    """Return the session id of the person's open conversation, which is opened if there is none.

    Returns a handle, which the other helpers take as well, if the server cannot be reached, and None if nothing is
    stored (tracking is disabled or not configured).
    """
    session_id, _ = await default_sync().start(
        user_phone, sub_domain, bot_id=bot_id, local_id=local_id, metadata=metadata
    )
    return session_id


async def add_message_to_conversation(
    session_id: str | None, sub_domain: str, role: str, content: str, *, message_id: str | None = None
) -> bool:
    """Record a message of the person (`user`) or the agent (`bot`). The same `message_id` again changes nothing.

    Returns whether it is on the server or safe in the outbox.
    """
    return (await default_sync().add_message(session_id, sub_domain, role, content, message_id=message_id)).accepted


async def sync_graph_state_to_api(session_id: str | None, sub_domain: str, graph_state: Any) -> bool:
    """Set the conversation's state from the graph's; return whether that is on the server or safe in the outbox."""
    return (await ConversationStateManager().push(session_id, sub_domain, graph_state)).accepted


async def link_order_to_conversation(session_id: str | None, sub_domain: str, order_id: str) -> bool:
    """Link the order to the conversation; return whether that is on the server or safe in the outbox."""
    return (await default_sync().link_order(session_id, sub_domain, order_id)).accepted


async def end_conversation(session_id: str | None, sub_domain: str) -> bool:
    """End the conversation; return whether that is on the server or safe in the outbox."""
    return (await default_sync().end(session_id, sub_domain)).accepted


async def graph_state_from_api(session_id: str | None, sub_domain: str) -> dict[str, Any]:
    """Return the conversation's state as a graph's; {} if there is none, or no answer."""
    return await ConversationStateManager().pull(session_id, sub_domain)


def status() -> OutboxStatus | None:
    """Return the outbox's status; None if nothing is stored."""
    return default_sync().status()
