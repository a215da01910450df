"""The tables of conversations, contacts, channels and everything that belongs to them."""

from conversations.models.agent_state import AgentState, OrderLink
from conversations.models.assistant import Assistant
from conversations.models.bulk_job import BulkJob
from conversations.models.call_answer import CallAnswer
from conversations.models.channel_account import ChannelAccount
from conversations.models.client import DEFAULT_GOAL, ApiKey, Client, Membership
from conversations.models.contact import Contact, ContactIdentity
from conversations.models.contact_match import ContactMatch
from conversations.models.conversation import (
    OPEN,
    SAID,
    WAITS_FOR_STAFF,
    Chunk,
    Conversation,
    EndedBy,
    Role,
    Status,
    Step,
)
from conversations.models.conversation_event import ConversationEvent
from conversations.models.copilot import Delta, Feedback
from conversations.models.correction import Correction, corrected_text
from conversations.models.engine_chat import EngineChat, EngineChatRemoval
from conversations.models.erasure import Erasure
from conversations.models.idempotency_key import IdempotencyKey
from conversations.models.inbound_event import InboundEvent, MessageTombstone, RefusedWebhooks
from conversations.models.message import Message
from conversations.models.model_provider import ModelProvider, ProviderModel
from conversations.models.retention import RetentionPolicy, RetentionReport, RetentionRule
from conversations.models.rolling_summary import RollingSummary
from conversations.models.send_pause import SendPause
from conversations.models.sign_in_tries import SignInTries
from conversations.models.simulation import SimulatedExchange, SimulatedFault
from conversations.models.staff_action import StaffAction
from conversations.models.tool import McpServer, Tool, ToolCall
from conversations.models.turn import Turn

__all__ = [
    "DEFAULT_GOAL",
    "OPEN",
    "SAID",
    "WAITS_FOR_STAFF",
    "AgentState",
    "ApiKey",
    "Assistant",
    "BulkJob",
    "CallAnswer",
    "ChannelAccount",
    "Chunk",
    "Client",
    "Contact",
    "ContactIdentity",
    "ContactMatch",
    "Conversation",
    "ConversationEvent",
    "Correction",
    "Delta",
    "EndedBy",
    "EngineChat",
    "EngineChatRemoval",
    "Erasure",
    "Feedback",
    "IdempotencyKey",
    "InboundEvent",
    "McpServer",
    "Membership",
    "Message",
    "MessageTombstone",
    "ModelProvider",
    "OrderLink",
    "ProviderModel",
    "RefusedWebhooks",
    "RetentionPolicy",
    "RetentionReport",
    "RetentionRule",
    "Role",
    "RollingSummary",
    "SendPause",
    "SignInTries",
    "SimulatedExchange",
    "SimulatedFault",
    "StaffAction",
    "Status",
    "Step",
    "Tool",
    "ToolCall",
    "Turn",
    "corrected_text",
]
