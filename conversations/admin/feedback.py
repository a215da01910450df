"""Feedback of the copilot's users on its replies."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from unfold.decorators import display

from conversations.admin import access
from conversations.admin.base import VisibleRowsFilter, visible_rows
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import plain_text
from conversations.models import Assistant, Chunk, Feedback, corrected_text
from conversations.words import lazy as _

SNIPPET = 120
LONGEST_NOTE = 300
MOST_ROLES = 100


class RoleFilter(admin.SimpleListFilter):
    """A filter by the copilot's role, which is the key of the assistant in any client."""

    title = _("role")
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the roles of the clients that the user may see."""
        offered = visible_rows(request, model_admin.admin_site, Assistant).filter(in_copilot=True)
        keys = offered.order_by("key").values_list("key", flat=True).distinct()[:MOST_ROLES]
        return [(key, key) for key in keys]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> QuerySet[Feedback]:
        """Return the feedback for the chosen role."""
        return queryset.filter(conversation__assistant__key=self.value()) if self.value() else queryset


@admin.register(Feedback)
class FeedbackAdmin(LongListAdmin):
    """Thumbs and notes, newest first, each with a link to the reply."""

    client_path = "client"
    empty_message = _("No user of the copilot has rated a reply yet.")
    list_display = ["given_at", "thumbs", "what", "reply", "role", "assistant", "who", "client"]
    list_display_links = None
    list_filter = [
        "rating",
        ("conversation__assistant", VisibleRowsFilter),
        RoleFilter,
        ("client", VisibleRowsFilter),
    ]
    list_select_related = [
        "client",
        "conversation__client",
        "conversation__assistant",
        "conversation__contact",
        "chunk",
    ]
    ordering = ["-given_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with the beginning of each reply, corrections included."""
        only = access.only_client_of(request.user)
        reply = Chunk.objects.filter(client=only or OuterRef("client"), pk=OuterRef("chunk_id")).annotate(
            words=Left(corrected_text(only), SNIPPET + 1)
        )
        said = Subquery(reply.values("words")[:1])
        rows: QuerySet[Any] = super().get_queryset(request).annotate(said=said).defer("chunk__content")
        return rows

    @display(description=_("Thumbs"), label={"up": "success", "down": "danger"})  # type: ignore[untyped-decorator]
    def thumbs(self, feedback: Feedback) -> tuple[str, str]:
        """Return up or down, and the word for it."""
        return feedback.rating, feedback.get_rating_display().lower()

    @admin.display(description=_("Note"))
    def what(self, feedback: Feedback) -> str:
        """Return the note of the user."""
        return _short(feedback.note, LONGEST_NOTE)

    @admin.display(description=_("Reply"))
    def reply(self, feedback: Any) -> SafeString:
        """Return the beginning of the reply as a link to it."""
        page = reverse("admin:conversations_conversation_change", args=[feedback.conversation_id])
        words = _short(feedback.said or "", SNIPPET) or gettext("(no text)")
        return format_html('<a href="{}?at={}" dir="auto">{}</a>', page, feedback.chunk.position, words)

    @admin.display(description=_("Role"))
    def role(self, feedback: Feedback) -> str:
        """Return the key of the assistant, which the copilot calls role."""
        assistant = feedback.conversation.assistant
        return assistant.key if assistant else ""

    @admin.display(description=_("Assistant"))
    def assistant(self, feedback: Feedback) -> str:
        """Return the name of the assistant."""
        return str(feedback.conversation.assistant or "")

    @admin.display(description=_("User"))
    def who(self, feedback: Feedback) -> str:
        """Return the user who gave the feedback."""
        return plain_text(str(feedback.conversation.contact))

    @admin.display(description=_("Client"))
    def client(self, feedback: Feedback) -> str:
        """Return the client of the assistant."""
        return str(feedback.conversation.client)


def _short(text: str, most: int) -> str:
    plain = plain_text(" ".join(text.split()))
    return plain if len(plain) <= most else plain[:most] + "…"
