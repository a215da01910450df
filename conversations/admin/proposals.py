"""The list of proposals: what assistants proposed, and what colleagues made of it."""

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
from conversations.admin.base import VisibleRowsFilter
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import plain_text
from conversations.models import Chunk, Proposal, corrected_text
from conversations.words import lazy as _

SNIPPET = 200


@admin.register(Proposal)
class ProposalAdmin(LongListAdmin):
    """Proposals, newest first, with the words that were sent in their place."""

    client_path = "client"
    empty_message = _("No assistant has proposed a reply yet. Assistants propose where their page says so.")
    list_display = ["created_at", "proposed", "sent_instead", "shown_state", "who", "assistant", "client"]
    list_display_links = None
    list_filter = ["state", "is_edited", ("client", VisibleRowsFilter)]
    list_select_related = ["client", "conversation__assistant"]
    ordering = ["-id"]
    fields = ["created_at", "proposed", "shown_state", "who", "decided_at", "client"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with the beginning of what was sent, corrections included."""
        only = access.only_client_of(request.user)
        sent = Chunk.objects.filter(client=only or OuterRef("client"), pk=OuterRef("chunk_id"))
        words = sent.annotate(words=Left(corrected_text(only), SNIPPET + 1)).values("words")[:1]
        rows: QuerySet[Any] = super().get_queryset(request).annotate(said=Subquery(words))
        return rows

    @admin.display(description=_("Proposed"))
    def proposed(self, proposal: Proposal) -> SafeString:
        """Return the beginning of the proposal as a link to its conversation."""
        page = reverse("inbox:open", args=[proposal.conversation_id])
        return format_html('<a href="{}" dir="auto">{}</a>', page, _short(proposal.text) or gettext("(no text)"))

    @admin.display(description=_("Sent instead"))
    def sent_instead(self, proposal: Any) -> str:
        """Return the beginning of what a colleague sent in its place; '' where it was sent as it was, or not at all."""
        return _short(proposal.said or "") if proposal.is_edited else ""

    @display(  # type: ignore[untyped-decorator]
        description=_("State"),
        label={"open": "warning", "sent": "success", "discarded": "info", "outdated": "info"},
    )
    def shown_state(self, proposal: Proposal) -> tuple[str, str]:
        """Return what became of it, and the word for it."""
        return proposal.state, proposal.get_state_display().lower()

    @admin.display(description=_("Decided by"))
    def who(self, proposal: Proposal) -> str:
        """Return the colleague who decided; '' where a newer message did."""
        return proposal.decided_by_name

    @admin.display(description=_("Assistant"))
    def assistant(self, proposal: Proposal) -> str:
        """Return the conversation's assistant."""
        return str(proposal.conversation.assistant or "")


def _short(text: str) -> str:
    plain = plain_text(" ".join(text.split()))
    return plain if len(plain) <= SNIPPET else plain[:SNIPPET] + "…"
