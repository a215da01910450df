"""API keys: they are made here, shown once, and revoked here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.models import ApiKey, Scope
from conversations.models.client import usual_scopes
from conversations.services.tenants import api_keys
from conversations.words import lazy as _


class NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a new key, with what it may do."""

    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=usual_scopes,
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_(
            "Choose only what the program needs. None chosen: the first four. You cannot"
            " change this later; make another key instead."
        ),
    )

    class Meta:
        model = ApiKey
        fields = "__all__"  # noqa: DJ007 - the page says which

    def clean_scopes(self) -> list[str]:
        """Return the scopes that were chosen, or the usual ones."""
        return self.cleaned_data["scopes"] or usual_scopes()

    def clean_expires_at(self) -> Any:
        """Return the key's end. Refuse one in the past."""
        ends = self.cleaned_data["expires_at"]
        if ends and ends <= timezone.now():
            raise forms.ValidationError(gettext("Choose a time in the future."))
        return ends


SET_ONCE = ["scopes_shown", "prefix", "created_at", "expires_at", "last_used_at", "revoked_at"]


@admin.register(ApiKey)
class ApiKeyAdmin(ClientScopedAdmin):
    """The API keys of programs. A key cannot be shown again or deleted. It can be renamed and revoked."""

    client_path = "client"
    empty_message = _("No program has a key yet. Add one for each program, so that you can revoke it alone.")
    list_display = ["prefix", "name", "client", "scopes_shown", "last_used_at", "expires_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "prefix"]
    actions_detail = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields. A new key has a client, a name, what it may do and an end."""
        return ["client", "name", *(SET_ONCE if obj else ["scopes", "expires_at"])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form; a new key's offers the scopes."""
        return super().get_form(request, obj, change, **({} if obj else {"form": NewKeyForm}), **kwargs)

    @admin.display(description=_("Scopes"))
    def scopes_shown(self, key: ApiKey) -> str:
        """Return the key's scopes in the order of their list."""
        return ", ".join(scope for scope in Scope.values if scope in key.scopes)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: all but the name, once the key exists."""
        return ["client", *SET_ONCE] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the name, or make a new key through its service. `response_add` shows the key."""
        if change:
            super().save_model(request, obj, form, change)
            return
        scopes = form.cleaned_data["scopes"]
        row, key = api_keys.create_api_key(obj.client, obj.name, scopes=scopes, expires_at=obj.expires_at)
        obj.pk, obj.prefix, obj.key = row.pk, row.prefix, key

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the only page that ever shows the key."""
        about = gettext("This is the key %(name)s of %(client)s. Programs send it in the header X-Service-API-Key.") % {
            "name": repr(obj.name),
            "client": obj.client,
        }
        return show_once(self, request, obj, title=gettext("API key"), about=about, secret=obj.key)

    @confirmed(
        _("Revoke"),
        question=_("Programs that use this key are refused from now on. You cannot undo this."),
        icon="key_off",
        destroys=True,
        path="revoke",
    )
    def revoke(self, request: HttpRequest, key: ApiKey) -> str:
        """Revoke the key."""
        if not api_keys.revoke(key.pk):
            return gettext("This key is revoked already.")
        self.record(request, "revoked", key)
        return gettext("%(key)s is revoked. Programs that use it are refused.") % {"key": key}
