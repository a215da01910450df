"""API keys: made here, shown once, revoked here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from conversations.admin.base import ClientsOwn, Page
from conversations.admin.confirmed import confirmed
from conversations.admin.once import shown_once
from conversations.models import ApiKey
from conversations.services.tenants import api_keys


@admin.register(ApiKey)
class ApiKeyAdmin(Page):
    """A key cannot be read again, changed or deleted: its name can, and it can be revoked."""

    client_path = "client"
    nothing = "No program has a key yet. Add one for each, so that it can be revoked alone."
    list_display = ["prefix", "name", "client", "created_at", "last_used_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), ("client", ClientsOwn)]
    list_select_related = ["client"]
    search_fields = ["name", "prefix"]
    actions_detail = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A key that is to be made has a client and a name only."""
        return ["client", "name", *(["prefix", "created_at", "last_used_at", "revoked_at"] if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """All but the name, once it exists."""
        return ["client", "prefix", "created_at", "last_used_at", "revoked_at"] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """A new key is made by its service; the answer shows it."""
        if change:
            super().save_model(request, obj, form, change)
            return
        row, key = api_keys.create_api_key(obj.client, obj.name)
        obj.pk, obj.prefix, obj.key = row.pk, row.prefix, key

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The one page that ever shows the key."""
        about = f"This is the key {obj.name!r} of {obj.client}. Programs send it as X-Service-API-Key."
        return shown_once(self, request, obj, title="API key", about=about, secret=obj.key)

    @confirmed(
        "Revoke",
        question="Programs that use this key will be refused from now on. This cannot be undone.",
        icon="key_off",
        path="revoke",
    )
    def revoke(self, request: HttpRequest, key: ApiKey) -> str:
        """Close the door to it."""
        if not api_keys.revoke(key.pk):
            return "This key was revoked before."
        self.note(request, "revoked", key)
        return f"{key} is revoked: nobody comes in with it any more."
