"""Templates: a copy of the providers' lists, to read."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from conversations.admin.base import ReadOnlyAdmin, VisibleRowsFilter
from conversations.admin.send_template import ShownTemplate
from conversations.models import MessageTemplate
from conversations.words import lazy as _

GRAVITY = {
    "approved": "success",
    "pending": "warning",
    "in appeal": "warning",
    "paused": "warning",
    "rejected": "danger",
    "disabled": "danger",
}


@admin.register(MessageTemplate)
class MessageTemplateAdmin(ReadOnlyAdmin):
    """Templates by name. They are written and approved at the provider, and read from there every hour."""

    client_path = "client"
    empty_message = _(
        "No template is known yet. They are read every hour, and with Fetch templates on an account's page."
    )
    list_display = ["name", "language", "channel_account", "state", "category", "quality", "begins_with", "seen_at"]
    list_filter = ["status", "category", ("channel_account", VisibleRowsFilter), ("client", VisibleRowsFilter)]
    list_select_related = ["channel_account"]
    search_fields = ["name"]
    fieldsets = [
        (None, {"fields": ["channel_account", ("name", "language"), "reads", "on_buttons"]}),
        (_("At the provider"), {"fields": ["state", "why_not", "category", "quality", "reason", "seen_at"]}),
    ]
    readonly_fields = ["reads", "on_buttons", "state", "why_not"]

    @display(description=_("Status"), label=GRAVITY)  # type: ignore[untyped-decorator]
    def state(self, template: MessageTemplate) -> str:
        """Return the provider's word in small letters."""
        return template.status.replace("_", " ").lower()

    @admin.display(description=_("Begins with"))
    def begins_with(self, template: MessageTemplate) -> str:
        """Return the beginning of its text."""
        text = " ".join(ShownTemplate(template).text.split())
        return text[:80] + ("…" if len(text) > 80 else "")

    @admin.display(description=_("Text"))
    def reads(self, template: MessageTemplate) -> str:
        """Return its words, with the variables in braces."""
        return ShownTemplate(template).text

    @admin.display(description=_("Buttons"))
    def on_buttons(self, template: MessageTemplate) -> str:
        """Return what stands on its buttons."""
        return ", ".join(ShownTemplate(template).buttons) or "none"

    @admin.display(description=_("Can be sent"))
    def why_not(self, template: MessageTemplate) -> str:
        """Return why it cannot be sent, or that it can."""
        return ShownTemplate(template).refusal or "Yes."
