"""Clients and their policies."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextInputWidget

from conversations.admin.access import SUPERUSER
from conversations.admin.base import Page
from conversations.admin.spans import SpanField, in_words
from conversations.models import Client
from conversations.services import setup

ONLY_SUPERUSERS = ["name", "sub_domain", "is_active"]


class ClientForm(forms.ModelForm):  # type: ignore[type-arg]
    """The policies, each with a sentence."""

    class Meta:
        model = Client
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which
        labels = {
            "is_active": "Open for business",
            "auto_reply": "The assistant answers by itself",
            "answers_synced": "It also answers in sessions that agents keep here",
            "default_goal": "Goal of a new session",
            "stale_after": "A session becomes stale after",
            "expire_after": "A session expires after",
            "archive_after": "A session is archived after",
        }
        help_texts = {
            "sub_domain": "Lower-case letters, digits and hyphens; programs name the client by it.",
            "is_active": "Switched off, its keys open nothing and its messages are not taken.",
            "auto_reply": "Off: what people write waits for a person.",
            "answers_synced": "Off: what an agent records by the sync protocol is only recorded; it answers by itself.",
            "default_goal": "What the assistant is to achieve, unless whoever opens the session says otherwise.",
            "stale_after": "Without a message for so long, a session is stale; the next message revives it.",
            "expire_after": "Without a message for so long, a session is over; the next message opens a new one.",
            "archive_after": "So long after its end its transcript leaves the session and is kept in memory alone.",
        }


@admin.register(Client)
class ClientAdmin(Page):
    """A manager sets the policies; what the client is called, and whether it is served, a superuser does."""

    client_path = "pk"
    to_add = SUPERUSER
    form = ClientForm
    list_display = ["name", "sub_domain", "is_active", "auto_reply", "becomes_stale", "expires", "created_at"]
    list_filter = ["is_active", "auto_reply"]
    search_fields = ["name", "sub_domain"]
    formfield_overrides = {models.DurationField: {"form_class": SpanField, "widget": UnfoldAdminTextInputWidget}}
    fieldsets = [
        (None, {"fields": [("name", "sub_domain"), "is_active"]}),
        ("Replies", {"fields": ["auto_reply", "answers_synced", "default_goal"]}),
        ("A session's life", {"fields": ["stale_after", "expire_after", "archive_after"]}),
        ("For programs", {"fields": ["id", "created_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """See the class."""
        return ["id", "created_at", *([] if request.user.is_superuser else ONLY_SUPERUSERS)]

    def save_model(self, request: HttpRequest, obj: Client, form: Any, change: bool) -> None:
        """A new client gets its default assistant with it."""
        if change:
            super().save_model(request, obj, form, change)
        else:
            setup.open_for_business(obj)

    @admin.display(description="Becomes stale after", ordering="stale_after")
    def becomes_stale(self, client: Client) -> str:
        """In words."""
        return in_words(client.stale_after)

    @admin.display(description="Expires after", ordering="expire_after")
    def expires(self, client: Client) -> str:
        """In words."""
        return in_words(client.expire_after)
