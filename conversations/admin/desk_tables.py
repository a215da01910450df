"""The set-up pages of the desk: canned replies, labels and questions about satisfaction."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models.functions import Left

from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.admin.channel_names import name_of
from conversations.models import CannedReply, Label, Survey
from conversations.words import lazy as _


@admin.register(CannedReply)
class CannedReplyAdmin(ClientScopedAdmin):
    """Canned replies. Managers write them, and all who reply choose from them."""

    client_path = "client"
    delete_role: str | None = Role.MANAGER
    empty_message = _("There is no canned reply yet. Add what you write often; in the inbox, / offers it.")
    list_display = ["__str__", "beginning", "client"]
    list_filter = [("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["shortcut", "text"]
    fields = ["client", "shortcut", "text"]

    def get_queryset(self, request: Any) -> Any:
        """Return the rows with the beginning of each text."""
        return super().get_queryset(request).annotate(beginning=Left("text", 80))

    @admin.display(description=_("Text"))
    def beginning(self, reply: Any) -> str:
        """Return the beginning of the text."""
        return str(reply.beginning)

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        """Return the client, once the row exists."""
        return ["client"] if obj else []


@admin.register(Label)
class LabelAdmin(ClientScopedAdmin):
    """Labels. Staff make them while they work; managers rename, recolour and delete them."""

    client_path = "client"
    delete_role: str | None = Role.MANAGER
    empty_message = _("There is no label yet. Staff add them to conversations in the inbox.")
    list_display = ["name", "colour", "client"]
    list_filter = [("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name"]
    fields = ["client", "name", "colour"]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        """Return the client, once the row exists."""
        return ["client"] if obj else []


@admin.register(Survey)
class SurveyAdmin(ClientScopedAdmin):
    """Questions about satisfaction, one for each channel. Managers write them; they are asked where one ends."""

    client_path = "client"
    delete_role: str | None = Role.MANAGER
    empty_message = _("No question is asked yet. Add one for a channel; it is asked where a conversation has ended.")
    list_display = ["channel_name", "beginning", "scale", "is_active", "client"]
    list_filter = [("client", VisibleRowsFilter), "channel", "is_active"]
    list_select_related = ["client"]
    fields = ["client", "channel", "is_active", "text", "scale", "days_between", "why", "thanks"]

    def get_queryset(self, request: Any) -> Any:
        """Return the rows with the beginning of each text."""
        return super().get_queryset(request).annotate(beginning=Left("text", 80))

    @admin.display(description=_("Channel"), ordering="channel")
    def channel_name(self, survey: Any) -> str:
        """Return the channel's name."""
        return name_of(survey.channel)

    @admin.display(description=_("Question"))
    def beginning(self, survey: Any) -> str:
        """Return the beginning of the text."""
        return str(survey.beginning)

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        """Return the client and the channel, once the row exists."""
        return ["client", "channel"] if obj else []
