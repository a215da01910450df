"""The tables behind the conversations. The dashboard links here, and each row links to its conversation."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from unfold.decorators import display

from conversations.admin import access
from conversations.admin.channel_names import name_of
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import DELIVERY, plain_text
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
from conversations.words import lazy as _

SNIPPET = 200  # characters
GRAVITY = {
    label: {"grave": "danger", "waiting": "warning"}.get(gravity, "success") for label, gravity in DELIVERY.values()
}


@admin.register(ContactIdentity)
class ContactIdentityAdmin(LongListAdmin):
    """Addresses of contacts."""

    client_path = "client"
    list_display = ["address", "channel", "kind", "contact"]
    list_filter = ["channel", "kind"]
    list_select_related = ["contact"]
    search_fields = ["address__exact"]
    search_help_text = _("A complete address")


class ConversationRowsAdmin(LongListAdmin):
    """Rows that belong to a conversation. `position_of` says which message of the transcript a row is about."""

    client_path = "client"
    search_fields = ["conversation__id__exact"]
    search_help_text = _("The id of a conversation")
    list_select_related = ["conversation__contact"]
    list_display_links = ["id"]

    def position_of(self, row: Any) -> int:
        """Return the position of the message, or 0 if the row is about none."""
        return 0

    @admin.display(description=_("Conversation"))
    def in_conversation(self, row: Any) -> SafeString:
        """Return the conversation as a link to it, or to the message, with the label that a phone shows."""
        link = link_to(row.conversation, self.position_of(row))
        return format_html('<span class="row-label">{}</span>{}', gettext("Conversation"), link)


def link_to(conversation: Conversation, position: int = 0) -> SafeString:
    """Return a link to the page of the conversation, or to its message at the position."""
    page = reverse("admin:conversations_conversation_change", args=[conversation.pk])
    at = f"?at={position}" if position else ""
    said = gettext("%(contact)s on %(channel)s") % {
        "contact": format_html("<bdi>{}</bdi>", plain_text(str(conversation.contact))),
        "channel": name_of(conversation.channel),
    }
    return format_html('<a class="row-link" href="{}{}">{}</a>', page, at, mark_safe(said))  # noqa: S308 - escaped above


@admin.register(Chunk)
class ChunkAdmin(ConversationRowsAdmin):
    """Chunks: the messages of the transcripts."""

    empty_message = _("There is no message yet.")
    list_display = ["in_conversation", "position", "role", "said", "created_at", "id"]
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with the beginning of each text, corrections included. A text can be very long."""
        words = Left(corrected_text(access.only_client_of(request.user)), SNIPPET)
        rows: QuerySet[Any] = super().get_queryset(request).annotate(words=words)
        return rows.defer("content")

    @admin.display(description=_("Text"))
    def said(self, chunk: Any) -> str:
        """Return the beginning of the text."""
        return plain_text(chunk.words)

    def position_of(self, row: Chunk) -> int:
        """Return the position of the chunk."""
        return row.position


@admin.register(Step)
class StepAdmin(ConversationRowsAdmin):
    """Steps of conversations."""

    empty_message = _("No conversation has a step yet.")
    list_display = ["in_conversation", "description", "status", "updated_at", "id"]
    list_filter = ["status"]
    ordering = ["-id"]


@admin.register(Message)
class MessageAdmin(ConversationRowsAdmin):
    """Messages to be sent, with their delivery state."""

    empty_message = _("Nothing was sent yet.")
    list_display = ["in_conversation", "state", "reason", "part_of", "attempts", "created_at", "id"]
    list_filter = ["status"]
    list_select_related = ["conversation__contact", "chunk"]
    search_fields = ["id__exact", "conversation__id__exact"]
    search_help_text = _("The id of a message, or of a conversation")
    ordering = ["-chunk_id", "part"]

    def position_of(self, row: Message) -> int:
        """Return the position of the chunk that is sent, or 0."""
        return row.chunk.position if row.chunk else 0

    @display(description=_("Status"), label=GRAVITY)  # type: ignore[untyped-decorator]
    def state(self, message: Message) -> str:
        """Return the delivery state with the label of the transcript."""
        return DELIVERY[Message.Status(message.status)][0]

    @admin.display(description=_("Part"))
    def part_of(self, message: Message) -> str:
        """Return which part of the text it is, if the text was split."""
        return (
            gettext("%(part)s of %(parts)s") % {"part": message.part, "parts": message.parts}
            if message.parts > 1
            else ""
        )


@admin.register(Turn)
class TurnAdmin(ConversationRowsAdmin):
    """Turns: attempts at replies. Prompts are shown only on the page for users who may see them."""

    empty_message = _("No assistant has tried to reply yet.")
    exclude = ["prompt", "draft", "callback_hash"]
    list_display = ["in_conversation", "state", "code", "attempt", "engine", "model", "started_at", "ended_at", "id"]
    list_filter = ["status", "engine"]
    list_select_related = ["conversation__contact", "chunk"]
    ordering = ["-started_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows without the long columns, which are not shown."""
        rows: QuerySet[Any] = super().get_queryset(request).defer("prompt", "draft", "chunk__content")
        return rows

    def position_of(self, row: Turn) -> int:
        """Return the position of the reply, or 0."""
        return row.chunk.position if row.chunk else 0

    @display(  # type: ignore[untyped-decorator]
        description=_("Status"),
        label={"committed": "success", "failed": "danger", "abandoned": "warning", "running": "info"},
    )
    def state(self, turn: Turn) -> tuple[str, str]:
        """Return the status, and the word for it."""
        return turn.status, turn.get_status_display().lower()


@admin.register(ConversationEvent)
class ConversationEventAdmin(ConversationRowsAdmin):
    """The ledger: what happened to conversations."""

    empty_message = _("Nothing happened yet.")
    list_display = [
        "in_conversation",
        "kind",
        "from_status",
        "to_status",
        "cause",
        "actor",
        "actor_name",
        "created_at",
        "id",
    ]
    ordering = ["-id"]


@admin.register(MessageTombstone)
class MessageTombstoneAdmin(LongListAdmin):
    """Tombstones: dedupe keys of deleted messages."""

    client_path = "client"
    list_display = ["dedupe_key", "expires_at"]
