"""What users of the copilot thought of its replies: for whoever looks after the assistants."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from conversations.admin.base import ClientsOwn, visible_rows
from conversations.admin.entries import plainly
from conversations.admin.long_list import LongList
from conversations.models import Assistant, Chunk, Feedback, corrected_text

SNIPPET = 120
LONGEST_NOTE = 300
MOST_ROLES = 100


class RoleFilter(admin.SimpleListFilter):
    """The copilot's role: the key of the assistant, in whichever client."""

    title = "role"
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The roles of the clients that the user may see."""
        offered = visible_rows(request, model_admin.admin_site, Assistant).filter(in_copilot=True)
        keys = offered.order_by("key").values_list("key", flat=True).distinct()[:MOST_ROLES]
        return [(key, key) for key in keys]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> QuerySet[Feedback]:
        """Narrowed down."""
        return queryset.filter(conversation__assistant__key=self.value()) if self.value() else queryset


@admin.register(Feedback)
class FeedbackAdmin(LongList):
    """Thumbs and notes, the newest first, each with the way to the very reply."""

    client_path = "conversation__client"
    nothing = "No user of the copilot has rated a reply yet."
    list_display = ["given_at", "thumbs", "what", "reply", "role", "assistant", "who", "client"]
    list_display_links = None
    list_filter = [
        "rating",
        ("conversation__assistant", ClientsOwn),
        RoleFilter,
        ("conversation__client", ClientsOwn),
    ]
    list_select_related = ["conversation__client", "conversation__assistant", "conversation__contact", "chunk"]
    ordering = ["-given_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the beginning of each reply, as it should be read."""
        reply = Chunk.objects.filter(pk=OuterRef("chunk_id")).annotate(words=Left(corrected_text(), SNIPPET + 1))
        said = Subquery(reply.values("words")[:1])
        rows: QuerySet[Any] = super().get_queryset(request).annotate(said=said).defer("chunk__content")
        return rows

    @display(description="Thumbs", label={"up": "success", "down": "danger"})  # type: ignore[untyped-decorator]
    def thumbs(self, feedback: Feedback) -> str:
        """Up or down."""
        return feedback.rating

    @admin.display(description="Note")
    def what(self, feedback: Feedback) -> str:
        """What the user wrote with it."""
        return _short(feedback.note, LONGEST_NOTE)

    @admin.display(description="Reply")
    def reply(self, feedback: Any) -> SafeString:
        """The beginning of the reply, and the way to it."""
        page = reverse("admin:conversations_conversation_change", args=[feedback.conversation_id])
        words = _short(feedback.said or "", SNIPPET) or "(nothing left)"
        return format_html('<a href="{}?at={}" dir="auto">{}</a>', page, feedback.chunk.position, words)

    @admin.display(description="Role")
    def role(self, feedback: Feedback) -> str:
        """Whom the user talked to, as the copilot calls it."""
        assistant = feedback.conversation.assistant
        return assistant.key if assistant else ""

    @admin.display(description="Assistant")
    def assistant(self, feedback: Feedback) -> str:
        """Its name."""
        return str(feedback.conversation.assistant or "")

    @admin.display(description="User")
    def who(self, feedback: Feedback) -> str:
        """Who gave it."""
        return plainly(str(feedback.conversation.contact))

    @admin.display(description="Client")
    def client(self, feedback: Feedback) -> str:
        """Whose assistant it was."""
        return str(feedback.conversation.client)


def _short(text: str, most: int) -> str:
    plain = plainly(" ".join(text.split()))
    return plain if len(plain) <= most else plain[:most] + "…"
