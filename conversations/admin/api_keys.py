"""API keys: they are made here, shown once, and revoked here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.models import ApiKey
from conversations.services.tenants import api_keys


@admin.register(ApiKey)
class ApiKeyAdmin(ClientScopedAdmin):
    """The API keys of programs. A key cannot be shown again or deleted. It can be renamed and revoked."""

    client_path = "client"
    empty_message = "No program has a key yet. Add one for each program, so that you can revoke it alone."
    list_display = ["prefix", "name", "client", "created_at", "last_used_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "prefix"]
    actions_detail = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields. A new key has only a client and a name."""
        return ["client", "name", *(["prefix", "created_at", "last_used_at", "revoked_at"] if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: all but the name, once the key exists."""
        return ["client", "prefix", "created_at", "last_used_at", "revoked_at"] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the name, or make a new key through its service. `response_add` shows the key."""
        if change:
            super().save_model(request, obj, form, change)
            return
        row, key = api_keys.create_api_key(obj.client, obj.name)
        obj.pk, obj.prefix, obj.key = row.pk, row.prefix, key

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the only page that ever shows the key."""
        about = f"This is the key {obj.name!r} of {obj.client}. Programs send it in the header X-Service-API-Key."
        return show_once(self, request, obj, title="API key", about=about, secret=obj.key)

    @confirmed(
        "Revoke",
        question="Programs that use this key are refused from now on. You cannot undo this.",
        icon="key_off",
        path="revoke",
    )
    def revoke(self, request: HttpRequest, key: ApiKey) -> str:
        """Revoke the key."""
        if not api_keys.revoke(key.pk):
            return "This key is revoked already."
        self.record(request, "revoked", key)
        return f"{key} is revoked. Programs that use it are refused."
