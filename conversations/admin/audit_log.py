"""The audit log: which member of staff changed what, newest first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from conversations.admin.base import ReadOnlyAdmin, VisibleRowsFilter
from conversations.models import StaffAction
from conversations.services.core import audit_log
from conversations.words import lazy as _


@admin.register(StaffAction)
class StaffActionAdmin(ReadOnlyAdmin):
    """The entries of the audit log."""

    client_path = "client"
    empty_message = _("Staff have changed nothing yet.")
    list_display = ["created_at", "user_name", "verb", "object_type", "object_name", "what", "client"]
    list_filter = ["object_type", ("client", VisibleRowsFilter), "created_at"]
    list_select_related = ["client"]
    search_fields = ["user_name__exact", "object_id__exact"]
    search_help_text = _("A user name, or the id of a row")
    ordering = ["-id"]
    fields = ["created_at", "user_name", "verb", "object_type", "object_name", "object_id", "what", "client"]

    @admin.display(description=_("Changes"))
    def what(self, entry: StaffAction) -> SafeString:
        """Return each changed field with its values before and after. Secrets are shown as replaced."""
        lines = [
            (name.removeprefix("credential_").replace("_", " "), _change(*both)) for name, both in entry.changes.items()
        ]
        return format_html("<div>{}</div>", format_html_join("", "<div><b>{}</b> {}</div>", lines))

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        """Allow the filters by type and id, which make the history of a row."""
        return lookup in {"object_type", "object_id"} or super().lookup_allowed(lookup, value, request)


def _change(before: str, after: str) -> str:
    if before == after == audit_log.HIDDEN:
        return "replaced"
    return f"{before} → {after or 'nothing'}" if before else after
