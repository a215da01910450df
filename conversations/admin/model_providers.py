"""Model providers: the servers of language models, their keys, and what is known of their models."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext, pgettext_lazy
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.models import ModelProvider
from conversations.services.core import audit_log
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.tenants import model_listing, model_overview, model_providers, provider_rules
from conversations.words import lazy as _
from conversations.words import shown
from memory.language_models.contract import Kind
from memory.text import storable

FROM_ENVIRONMENT = _("Set in the environment: OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_API, OPENAI_TIMEOUT_SECONDS.")
STATE = ["health", "why_broken", "created_at", "updated_at", "id"]
FIELDS_OF_CODES = {"missing_key": "api_key", "invalid_key": "api_key", "missing_base_url": "base_url"}


class SecretTextarea(UnfoldAdminTextareaWidget):  # type: ignore[misc]
    """A text area that never shows its value, not even what was just typed."""

    def format_value(self, value: Any) -> str:
        """Return nothing."""
        return ""


class JSONObjectField(forms.JSONField):
    """A JSON object of parameters. What cannot be encoded is shown in JSON's own escapes."""

    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminTextareaWidget(attrs={"spellcheck": "false", "rows": 3})
        super().__init__(required=False, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        """Return the value as text; nothing for no parameters."""
        if not value:
            return ""
        text = super().prepare_value(value)
        return text if storable(text) == text else json.dumps(value)

    def clean(self, value: Any) -> Any:
        """Return the parameters; none if the field is blank."""
        return super().clean(value) or {}


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a model provider. Key and headers are never rendered; blank keeps what is stored."""

    api_key = forms.CharField(
        label=_("API key"),
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
    )
    new_headers = forms.CharField(
        label=_("Headers"),
        required=False,
        widget=SecretTextarea(attrs={"autocomplete": "off", "spellcheck": "false", "rows": 3}),
    )

    query = JSONObjectField(
        label=_("Query parameters"), help_text=_('A JSON object of texts, such as {"api-version": "2026-10-01"}.')
    )
    body = JSONObjectField(
        label=_("Body parameters"),
        help_text=_(
            'A JSON object, such as {"service_tier": "flex"}. It is added to every request for an answer, and'
            " takes precedence over what Convo would send."
        ),
    )

    class Meta:
        model = ModelProvider
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which
        labels = {"timeout_seconds": _("Time-out in seconds"), "is_active": pgettext_lazy("in use", "Active")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.credentials.get("api_key") and "api_key" in self.fields:
            self.fields["api_key"].widget.attrs["placeholder"] = gettext("stored; leave blank to keep it")
        if "new_headers" in self.fields:
            stored = ", ".join(sorted(self.instance.headers))
            keep = (
                gettext("Stored: %(stored)s. Blank keeps them; {} removes them.") % {"stored": stored}
                if stored
                else gettext('Such as {"X-Team": "a"}.')
            )
            self.fields["new_headers"].help_text = gettext("A JSON object. %(keep)s Values are never shown.") % {
                "keep": keep
            }

    def clean_new_headers(self) -> Any:
        """Return the headers that were entered; None if the field is blank."""
        text = self.cleaned_data.get("new_headers")
        if not text:
            return None
        try:
            headers = json.loads(text)
            provider_rules.check_headers(headers)
        except InvalidError as error:
            raise ValidationError(str(error)) from None
        except (ValueError, RecursionError):
            raise ValidationError(
                gettext('Write the headers as a JSON object of texts, such as {"X-Team": "a"}.')
            ) from None
        return headers

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse settings that cannot work, and a name that is taken."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        provider = self.instance
        if key := cleaned.get("api_key"):
            provider.credentials = {**provider.credentials, "api_key": key}
            provider.health, provider.health_reason = ModelProvider.Health.OK, ""
        if cleaned.get("new_headers") is not None:
            provider.headers = cleaned["new_headers"]
        client = cleaned.get("client", provider.client)
        same = ModelProvider.objects.filter(client=client, name=cleaned.get("name")).exclude(pk=provider.pk)
        if same.exists():
            self.add_error("name", gettext("There is a model provider of this name already."))
        return cleaned

    def _post_clean(self) -> None:
        """Check the settings as a whole, once the values are on the provider."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        try:
            provider_rules.check_settings(self.instance)
        except InvalidError as error:
            field = FIELDS_OF_CODES.get(error.code)
            self.add_error(field if field in self.fields else None, str(error))


@admin.register(ModelProvider)
class ModelProviderAdmin(ClientScopedAdmin):
    """Model providers. Managers have their client's, at the usual addresses; superusers have all, at any address.

    Only superusers set addresses and headers: a client's server could be an address inside our network.
    """

    client_path = "client"
    delete_role = Role.MANAGER
    form = ProviderForm
    empty_message = _("There is no model provider of your own. Assistants use the installation's.")
    list_display = ["name", "whose", "kind", "is_active", "health", "why_broken"]
    list_filter = ["kind", "health", "is_active", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name"]
    actions_detail = ["refresh_models", "forget_learned"]
    change_form_outer_after_template = "admin/model_providers/models.html"

    class Media:
        css = {"all": ["conversations/model_providers.css"]}

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return no actions on several providers: each is deleted from its own page, which says who uses it."""
        return {}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may edit the provider. Nobody edits the environment's."""
        return not getattr(obj, "from_environment", False) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete the provider. Nobody deletes the environment's."""
        return not getattr(obj, "from_environment", False) and super().has_delete_permission(request, obj)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may refresh the provider's models and forget what was learned of them."""
        return self.has_role(request, Role.MANAGER, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. Whoever may not edit the provider sees only that it has a key."""
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        boss = request.user.is_superuser
        headers = "new_headers" if may_write and boss else "header_names"
        key, url = ("api_key", "base_url") if may_write else ("has_key", "address")
        from_environment = bool(obj and obj.from_environment)
        places = [url] if boss or obj else []
        about = FROM_ENVIRONMENT if from_environment else gettext("The key is stored encrypted and never shown.")
        requests = [*([headers] if boss or obj else []), "query", "body", "timeout_seconds"]
        return [
            (None, {"fields": ["client" if not obj or obj.client_id else "whose", ("name", "kind")]}),
            (gettext("Access"), {"fields": [key, *places], "description": about}),
            *([] if from_environment else [(gettext("With every request"), {"fields": requests})]),
            (gettext("Use"), {"fields": ["is_active"]}),
            *([(gettext("State"), {"fields": STATE})] if obj else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: client and kind, and for managers the base URL."""
        told = ["whose", "has_key", "address", "header_names"]
        fixed = ["client", "kind"] if obj else []
        return [*STATE, *told, *fixed, *([] if request.user.is_superuser else ["base_url"])]

    @admin.display(description=_("health reason"))
    def why_broken(self, provider: ModelProvider) -> str:
        """Return why the provider's server refuses us."""
        return shown(provider.health_reason)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form class. Managers add providers of kinds that have an address of their own."""
        made: Any = super().get_form(request, obj, change, **kwargs)
        if "client" in made.base_fields:
            made.base_fields["client"].required = not request.user.is_superuser
            made.base_fields["client"].help_text = (
                gettext("Empty: the assistants of every client may use it.") if request.user.is_superuser else ""
            )
        if not request.user.is_superuser:
            del made.base_fields["new_headers"]
        if "kind" in made.base_fields and not request.user.is_superuser:
            kind = made.base_fields["kind"]
            kind.choices = [each for each in kind.choices if each[0] != Kind.COMPATIBLE]
            kind.help_text = gettext("Servers at other addresses are added by an administrator.")
        return made

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Return the changed fields, with the values of the headers hidden."""
        changes = super().construct_change_message(request, form, formsets, add)
        if "new_headers" in changes:
            changes["headers"] = (audit_log.HIDDEN, audit_log.HIDDEN)
            del changes["new_headers"]
        return changes

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Return the page, with what is known of the provider's models."""
        provider = self.get_object(request, unquote(object_id))
        known = model_overview.overview(provider, timezone.now().date()) if provider else None
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "overview": known})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask whether to delete the provider. One that is in use is not: a sentence says who uses it."""
        provider = self.get_object(request, unquote(object_id))
        if provider and self.has_delete_permission(request, provider):
            try:
                provider_rules.check_unused(provider)
                return super().delete_view(request, object_id, extra_context)
            except ConflictError as error:
                self.message_user(request, str(error), messages.ERROR)
                return redirect(reverse("admin:conversations_modelprovider_change", args=[provider.pk]))
        return super().delete_view(request, object_id, extra_context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what the question names: the provider, and not each of hundreds of models that it lists."""
        return [str(provider) for provider in objs], {str(self.opts.verbose_name_plural): len(objs)}, set(), []

    def delete_model(self, request: HttpRequest, obj: ModelProvider) -> None:
        """Delete the provider, unless somebody has chosen it since the page was shown."""
        provider_rules.delete(obj)

    @confirmed(
        _("Refresh models"),
        question=_("The provider is asked for its list of models. Nothing else is sent."),
        icon="refresh",
        path="refresh",
        permission="operate",
    )
    def refresh_models(self, request: HttpRequest, provider: ModelProvider) -> str:
        """Read the provider's list of models."""
        listing = model_listing.refresh(provider, timezone.now())
        self.record(request, "refreshed the models of", provider)
        return gettext("%(provider)s lists %(count)s models; %(new)s are new, %(gone)s are gone.") % {
            "provider": provider,
            "count": listing.count,
            "new": len(listing.new),
            "gone": len(listing.gone),
        }

    @confirmed(
        _("Forget what was learned"),
        question=_(
            "What Convo learned of this provider's models from their answers is forgotten. It is learned anew:"
            " the next replies may take an attempt more."
        ),
        icon="restart_alt",
        path="forget",
        permission="operate",
    )
    def forget_learned(self, request: HttpRequest, provider: ModelProvider) -> str:
        """Forget what was learned of the provider's models."""
        count = model_providers.forget(provider)
        self.record(request, "forgot what was learned of", provider)
        said = ngettext(
            "What was learned is forgotten, of %(count)s model.",
            "What was learned is forgotten, of %(count)s models.",
            count,
        )
        return said % {"count": count}

    @admin.display(description=_("Client"), ordering="client__name")
    def whose(self, provider: ModelProvider) -> str:
        """Return the client's name, or that every client may use the provider."""
        return str(provider.client) if provider.client_id else gettext("every client")

    @admin.display(description=_("API key"))
    def has_key(self, provider: ModelProvider) -> str:
        """Return whether a key is stored."""
        key = settings.OPENAI_API_KEY if provider.from_environment else provider.credentials.get("api_key")
        return "set" if key else "none"

    @admin.display(description=_("Base URL"))
    def address(self, provider: ModelProvider) -> str:
        """Return where the provider is reached."""
        own = settings.OPENAI_BASE_URL if provider.from_environment else provider.base_url
        return own or gettext("the provider's own")

    @admin.display(description=_("Headers"))
    def header_names(self, provider: ModelProvider) -> str:
        """Return the names of the headers, without their values."""
        return ", ".join(sorted(provider.headers)) or "none"
