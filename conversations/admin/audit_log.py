"""The audit trail of the set-up pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from conversations.admin.base import ClientsOwn, ReadOnlyPage
from conversations.models import StaffAction
from conversations.services.core import audit_log


@admin.register(StaffAction)
class StaffActionAdmin(ReadOnlyPage):
    """Who did what, newest first."""

    client_path = "client"
    nothing = "Staff have changed nothing yet."
    list_display = ["created_at", "user_name", "verb", "object_type", "object_name", "what", "client"]
    list_filter = ["object_type", ("client", ClientsOwn), "created_at"]
    list_select_related = ["client"]
    search_fields = ["user_name__exact", "object_id__exact"]
    search_help_text = "A user name, or the id of a row"
    ordering = ["-id"]
    fields = ["created_at", "user_name", "verb", "object_type", "object_name", "object_id", "what", "client"]

    @admin.display(description="What")
    def what(self, done: StaffAction) -> SafeString:
        """Each field with its value before and after; neither of a secret."""
        lines = [
            (name.removeprefix("credential_").replace("_", " "), _change(*both)) for name, both in done.changes.items()
        ]
        return format_html("<div>{}</div>", format_html_join("", "<div><b>{}</b> {}</div>", lines))

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        """A row's history is the trail with its type and id."""
        return lookup in {"object_type", "object_id"} or super().lookup_allowed(lookup, value, request)


def _change(before: str, after: str) -> str:
    if before == after == audit_log.HIDDEN:
        return "replaced"
    return f"{before} → {after or 'nothing'}" if before else after
