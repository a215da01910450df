"""The tables behind the sessions, row by row: for whoever looks for one of them by its id."""

from __future__ import annotations

from django.contrib import admin

from conversations.admin.long_list import LongList
from conversations.models import (
    Chunk,
    ContactIdentity,
    ConversationEvent,
    Message,
    MessageTombstone,
    Step,
    Turn,
)


@admin.register(ContactIdentity)
class ContactIdentityAdmin(LongList):
    """Their addresses."""

    client_path = "client"
    list_display = ["address", "channel", "kind", "contact"]
    list_filter = ["channel", "kind"]
    list_select_related = ["contact"]
    search_fields = ["address__exact"]


@admin.register(Chunk)
class ChunkAdmin(LongList):
    """What was said."""

    client_path = "conversation__client"
    list_display = ["id", "conversation_id", "position", "role", "content", "created_at"]
    search_fields = ["conversation__id__exact"]
    ordering = ["-id"]


@admin.register(Step)
class StepAdmin(LongList):
    """Mini-goals."""

    client_path = "conversation__client"
    list_display = ["id", "conversation_id", "description", "status", "updated_at"]
    list_filter = ["status"]
    search_fields = ["conversation__id__exact"]
    ordering = ["-id"]


@admin.register(Message)
class MessageAdmin(LongList):
    """Sends."""

    client_path = "conversation__client"
    list_display = ["id", "conversation_id", "part", "parts", "status", "code", "reason", "attempts", "created_at"]
    list_filter = ["status"]
    search_fields = ["id__exact", "conversation__id__exact"]
    ordering = ["-chunk_id", "part"]


@admin.register(Turn)
class TurnAdmin(LongList):
    """Attempts at replies. What the model was given takes a right of its own: see the session's receipts."""

    client_path = "conversation__client"
    exclude = ["prompt", "draft"]
    list_display = ["id", "conversation_id", "status", "attempt", "engine", "model", "code", "started_at", "ended_at"]
    list_filter = ["status", "engine"]
    search_fields = ["conversation__id__exact"]
    ordering = ["-started_at"]


@admin.register(ConversationEvent)
class ConversationEventAdmin(LongList):
    """The ledger."""

    client_path = "conversation__client"
    list_display = ["id", "conversation_id", "kind", "from_status", "to_status", "cause", "actor", "created_at"]
    search_fields = ["conversation__id__exact"]
    ordering = ["-id"]


@admin.register(MessageTombstone)
class MessageTombstoneAdmin(LongList):
    """Traces of purged messages."""

    client_path = ""
    list_display = ["dedupe_key", "expires_at"]
