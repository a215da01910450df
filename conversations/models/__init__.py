"""The tables of conversations, contacts, channels and everything that belongs to them."""

from conversations.models.activity import Activity
from conversations.models.agent_state import AgentState, OrderLink
from conversations.models.api_key_use import ApiKeyUse
from conversations.models.assistant import Assistant
from conversations.models.attachment import Attachment, MediaRemoval
from conversations.models.audit_entry import AuditEntry
from conversations.models.bulk_job import BulkJob
from conversations.models.call_answer import CallAnswer
from conversations.models.channel_account import ChannelAccount
from conversations.models.client import DEFAULT_GOAL, ApiKey, Client, Membership, Scope, WhenAway
from conversations.models.client_day import ClientDay
from conversations.models.contact import Contact, ContactIdentity
from conversations.models.contact_match import ContactMatch
from conversations.models.conversation import (
    COLLEAGUE,
    OPEN,
    SAID,
    WAITS_FOR_STAFF,
    Chunk,
    Conversation,
    EndedBy,
    Role,
    Status,
    Step,
    is_by_staff,
)
from conversations.models.conversation_event import ConversationEvent
from conversations.models.copilot import Delta, Feedback
from conversations.models.correction import Correction, corrected_text
from conversations.models.desk import (
    CannedReply,
    ConversationLabel,
    DeskState,
    Draft,
    Label,
    Mention,
    Presence,
    SeenPosition,
    StaffNote,
)
from conversations.models.engine_chat import EngineChat, EngineChatRemoval
from conversations.models.erasure import Erasure
from conversations.models.event import (
    Event,
    EventDelivery,
    EventEndpoint,
    EventKind,
    EventNote,
    EventNumbering,
    EventPosition,
)
from conversations.models.figures import DayFigures, DaysSummed, DayTimes, FiguresDone, QuarterFigures, QuarterTimes
from conversations.models.hours import ClientHours, PendingHandover
from conversations.models.idempotency_key import IdempotencyKey
from conversations.models.inbound_event import InboundEvent, MessageTombstone, RefusedWebhooks
from conversations.models.message import Message
from conversations.models.message_template import MessageTemplate
from conversations.models.model_provider import ModelProvider, ProviderModel
from conversations.models.preferences import Preferences
from conversations.models.proposal import Proposal
from conversations.models.rating import Rating, Scale, Survey
from conversations.models.retention import RetentionPolicy, RetentionReport, RetentionRule
from conversations.models.rolling_summary import RollingSummary
from conversations.models.send_circuit import SendCircuit
from conversations.models.send_pause import SendPause
from conversations.models.sign_in_tries import SignInTries
from conversations.models.simulation import SimulatedExchange, SimulatedFault
from conversations.models.staff_action import StaffAction
from conversations.models.staff_mail import MailChoice, MailMark, StaffMail
from conversations.models.teams import SavedView, Team, TeamMember
from conversations.models.tool import McpServer, Tool, ToolCall
from conversations.models.turn import Turn

__all__ = [
    "COLLEAGUE",
    "DEFAULT_GOAL",
    "OPEN",
    "SAID",
    "WAITS_FOR_STAFF",
    "Activity",
    "AgentState",
    "ApiKey",
    "ApiKeyUse",
    "Assistant",
    "Attachment",
    "AuditEntry",
    "BulkJob",
    "CallAnswer",
    "CannedReply",
    "ChannelAccount",
    "Chunk",
    "Client",
    "ClientDay",
    "ClientHours",
    "Contact",
    "ContactIdentity",
    "ContactMatch",
    "Conversation",
    "ConversationEvent",
    "ConversationLabel",
    "Correction",
    "DayFigures",
    "DayTimes",
    "DaysSummed",
    "Delta",
    "DeskState",
    "Draft",
    "EndedBy",
    "EngineChat",
    "EngineChatRemoval",
    "Erasure",
    "Event",
    "EventDelivery",
    "EventEndpoint",
    "EventKind",
    "EventNote",
    "EventNumbering",
    "EventPosition",
    "Feedback",
    "FiguresDone",
    "IdempotencyKey",
    "InboundEvent",
    "Label",
    "MailChoice",
    "MailMark",
    "McpServer",
    "MediaRemoval",
    "Membership",
    "Mention",
    "Message",
    "MessageTemplate",
    "MessageTombstone",
    "ModelProvider",
    "OrderLink",
    "PendingHandover",
    "Preferences",
    "Presence",
    "Proposal",
    "ProviderModel",
    "QuarterFigures",
    "QuarterTimes",
    "Rating",
    "RefusedWebhooks",
    "RetentionPolicy",
    "RetentionReport",
    "RetentionRule",
    "Role",
    "RollingSummary",
    "SavedView",
    "Scale",
    "Scope",
    "SeenPosition",
    "SendCircuit",
    "SendPause",
    "SignInTries",
    "SimulatedExchange",
    "SimulatedFault",
    "StaffAction",
    "StaffMail",
    "StaffNote",
    "Status",
    "Step",
    "Survey",
    "Team",
    "TeamMember",
    "Tool",
    "ToolCall",
    "Turn",
    "WhenAway",
    "corrected_text",
    "is_by_staff",
]
