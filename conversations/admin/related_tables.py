"""The tables behind the sessions, row by row: where the first page's figures lead, each with the way to its session."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from conversations.admin.entries import DELIVERY, plainly
from conversations.admin.long_list import LongList
from conversations.models import (
    Chunk,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    Message,
    MessageTombstone,
    Step,
    Turn,
    corrected_text,
)

SNIPPET = 200  # characters
GRAVITY = {
    label: {"grave": "danger", "waiting": "warning"}.get(gravity, "success") for label, gravity in DELIVERY.values()
}


@admin.register(ContactIdentity)
class ContactIdentityAdmin(LongList):
    """Their addresses."""

    client_path = "client"
    list_display = ["address", "channel", "kind", "contact"]
    list_filter = ["channel", "kind"]
    list_select_related = ["contact"]
    search_fields = ["address__exact"]
    search_help_text = "An address, to the letter"


class SessionRows(LongList):
    """Rows below sessions. `position_of` says which entry of the transcript a row is about, 0: none."""

    client_path = "conversation__client"
    search_fields = ["conversation__id__exact"]
    search_help_text = "The id of a session"
    list_select_related = ["conversation__contact"]
    list_display_links = ["id"]

    def position_of(self, row: Any) -> int:
        """The position of the entry."""
        return 0

    @admin.display(description="Session")
    def session(self, row: Any) -> SafeString:
        """Whose it is, and the way to it."""
        return way_to(row.conversation, self.position_of(row))


def way_to(conversation: Conversation, position: int = 0) -> SafeString:
    """A link to the session's page, to the entry at the position."""
    page = reverse("admin:conversations_conversation_change", args=[conversation.pk])
    at = f"?at={position}" if position else ""
    whose = plainly(str(conversation.contact))
    return format_html('<a class="way" href="{}{}"><bdi>{}</bdi> on {}</a>', page, at, whose, conversation.channel)


@admin.register(Chunk)
class ChunkAdmin(SessionRows):
    """What was said."""

    nothing = "Nothing was said yet."
    list_display = ["session", "position", "role", "said", "created_at", "id"]
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the beginning of each, as it should be read: an entry can be very long."""
        rows: QuerySet[Any] = super().get_queryset(request).annotate(words=Left(corrected_text(), SNIPPET))
        return rows.defer("content")

    @admin.display(description="What was said")
    def said(self, chunk: Any) -> str:
        """The beginning."""
        return plainly(chunk.words)

    def position_of(self, row: Chunk) -> int:
        """Its own."""
        return row.position


@admin.register(Step)
class StepAdmin(SessionRows):
    """Mini-goals."""

    nothing = "No session has a step yet."
    list_display = ["session", "description", "status", "updated_at", "id"]
    list_filter = ["status"]
    ordering = ["-id"]


@admin.register(Message)
class MessageAdmin(SessionRows):
    """Sends."""

    nothing = "Nothing was sent yet."
    list_display = ["session", "state", "reason", "part_of", "attempts", "created_at", "id"]
    list_filter = ["status"]
    list_select_related = ["conversation__contact", "chunk"]
    search_fields = ["id__exact", "conversation__id__exact"]
    search_help_text = "The id of a message, or of a session"
    ordering = ["-chunk_id", "part"]

    def position_of(self, row: Message) -> int:
        """The position of what it carries."""
        return row.chunk.position if row.chunk else 0

    @display(description="Status", label=GRAVITY)  # type: ignore[untyped-decorator]
    def state(self, message: Message) -> str:
        """How far it got, as the transcript says it."""
        return DELIVERY[Message.Status(message.status)][0]

    @admin.display(description="Part")
    def part_of(self, message: Message) -> str:
        """Which part of its text it is."""
        return f"{message.part} of {message.parts}" if message.parts > 1 else ""


@admin.register(Turn)
class TurnAdmin(SessionRows):
    """Attempts at replies. What the model was given takes a right of its own: see the session's receipts."""

    nothing = "No assistant has tried to reply yet."
    exclude = ["prompt", "draft"]
    list_display = ["session", "state", "code", "attempt", "engine", "model", "started_at", "ended_at", "id"]
    list_filter = ["status", "engine"]
    list_select_related = ["conversation__contact", "chunk"]
    ordering = ["-started_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without what is long and not shown."""
        rows: QuerySet[Any] = super().get_queryset(request).defer("prompt", "draft", "chunk__content")
        return rows

    def position_of(self, row: Turn) -> int:
        """The position of the reply that came of it."""
        return row.chunk.position if row.chunk else 0

    @display(  # type: ignore[untyped-decorator]
        description="Status",
        label={"committed": "success", "failed": "danger", "abandoned": "warning", "running": "info"},
    )
    def state(self, turn: Turn) -> str:
        """How it ended."""
        return turn.status


@admin.register(ConversationEvent)
class ConversationEventAdmin(SessionRows):
    """The ledger."""

    nothing = "Nothing happened yet."
    list_display = ["session", "kind", "from_status", "to_status", "cause", "actor", "actor_name", "created_at", "id"]
    ordering = ["-id"]


@admin.register(MessageTombstone)
class MessageTombstoneAdmin(LongList):
    """Traces of purged messages."""

    client_path = ""
    list_display = ["dedupe_key", "expires_at"]
