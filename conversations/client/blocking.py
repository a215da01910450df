"""The client library for programs that are not async: the same functions and methods, called without `await`.

from conversations.client import blocking

service = blocking.ConversationStateService()
session_id = blocking.initialize_conversation_for_user("+51999999999", "shop")
"""

from __future__ import annotations

import httpx

from . import helpers
from .loops import blocking_function, blocking_method
from .service import ConversationStateService as _Service
from .settings import Settings

initialize_conversation_for_user = blocking_function(helpers.initialize_conversation_for_user)
add_message_to_conversation = blocking_function(helpers.add_message_to_conversation)
sync_graph_state_to_api = blocking_function(helpers.sync_graph_state_to_api)
link_order_to_conversation = blocking_function(helpers.link_order_to_conversation)
end_conversation = blocking_function(helpers.end_conversation)
graph_state_from_api = blocking_function(helpers.graph_state_from_api)
status = helpers.status


class ConversationStateService:
    """Call Convo's API; the async class of the same name documents the methods."""

    def __init__(self, settings: Settings | None = None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._wrapped = _Service(settings, transport=transport)

    def __enter__(self) -> ConversationStateService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    close = blocking_method(_Service.close)
    create_conversation = blocking_method(_Service.create_conversation)
    list_conversations = blocking_method(_Service.list_conversations)
    get_conversation = blocking_method(_Service.get_conversation)
    get_conversation_by_user = blocking_method(_Service.get_conversation_by_user)
    update_intent = blocking_method(_Service.update_intent)
    update_context = blocking_method(_Service.update_context)
    add_message = blocking_method(_Service.add_message)
    reset_conversation = blocking_method(_Service.reset_conversation)
    extend_conversation = blocking_method(_Service.extend_conversation)
    link_order = blocking_method(_Service.link_order)
    get_orders = blocking_method(_Service.get_orders)
    end_conversation = blocking_method(_Service.end_conversation)
    lookup_tenant = blocking_method(_Service.lookup_tenant)
    lookup_conversation = blocking_method(_Service.lookup_conversation)
    sync_state = blocking_method(_Service.sync_state)
    add_agent_message = blocking_method(_Service.add_agent_message)
