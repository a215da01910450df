"""Client library that stores an agent's conversations in Convo. It needs httpx alone; `blocking` is the same API
without async."""

from . import blocking
from .courier import Receipt
from .errors import (
    ApiError,
    ConfigurationError,
    ConflictError,
    ConversationError,
    GarbledError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    OutboxFullError,
    RateLimitedError,
    ServerError,
    TimedOutError,
    UnreachableError,
)
from .helpers import (
    add_message_to_conversation,
    end_conversation,
    graph_state_from_api,
    initialize_conversation_for_user,
    link_order_to_conversation,
    status,
    sync_graph_state_to_api,
)
from .manager import MAPPING, ConversationStateManager
from .middleware import ConversationMiddleware, sync_conversation_state, track_conversation_messages
from .outbox import OutboxStatus
from .service import ConversationStateService
from .settings import Settings
from .states import ConversationState, Orders, Tenant
from .tracking import ConversationSync, use

__all__ = [
    "MAPPING",
    "ApiError",
    "ConfigurationError",
    "ConflictError",
    "ConversationError",
    "ConversationMiddleware",
    "ConversationState",
    "ConversationStateManager",
    "ConversationStateService",
    "ConversationSync",
    "GarbledError",
    "InvalidError",
    "NotAllowedError",
    "NotFoundError",
    "Orders",
    "OutboxFullError",
    "OutboxStatus",
    "RateLimitedError",
    "Receipt",
    "ServerError",
    "Settings",
    "Tenant",
    "TimedOutError",
    "UnreachableError",
    "add_message_to_conversation",
    "blocking",
    "end_conversation",
    "graph_state_from_api",
    "initialize_conversation_for_user",
    "link_order_to_conversation",
    "status",
    "sync_conversation_state",
    "sync_graph_state_to_api",
    "track_conversation_messages",
    "use",
]
