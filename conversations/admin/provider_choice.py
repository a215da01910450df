"""The choice of a model provider on other pages: a client's own providers and the installation's, by name alone."""

from __future__ import annotations

from typing import Any

from django.db.models import Field, Q, QuerySet
from django.forms import ModelChoiceField, ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext

from conversations.admin import access
from conversations.admin.base import ClientScopedAdmin
from conversations.models import Client, ModelProvider
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import provider_rules


class NamesProviders(ClientScopedAdmin):
    """An admin page with fields that name model providers. Users choose among those that their clients may use."""

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        """Return the field. Beside the choice of a provider there are no links to its page, which managers may lack."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(field, ModelChoiceField) and field.queryset is not None and field.queryset.model is ModelProvider:
            field.queryset = _offered(request.user)
            field.label_from_instance = _label  # type: ignore[method-assign, assignment]
            for link in ("add", "change", "delete", "view"):
                setattr(field.widget, f"can_{link}_related", False)
        return field


def _offered(user: Any) -> QuerySet[ModelProvider]:
    """Return the installation's providers, and those of the clients that the user manages."""
    rows = ModelProvider.objects.select_related("client").order_by("client__name", "name")
    if user.is_superuser:
        return rows
    return rows.filter(Q(client=None) | Q(client__in=access.client_ids_of(user, access.Role.MANAGER)))


def _label(provider: Any) -> str:
    """Return the provider's name, and whose it is."""
    return gettext("%(provider)s (%(client)s)") % {
        "provider": provider.name,
        "client": provider.client or gettext("for every client"),
    }


def narrow_to(client: Client | None, form: ModelForm[Any], names: tuple[str, ...]) -> None:
    """Offer in the fields only what the client may use: active providers, and what is chosen already."""
    for name in names:
        field = form.fields.get(name)
        if isinstance(field, ModelChoiceField) and field.queryset is not None:
            fits = Q(client=None) | Q(client=client) if client else Q(client=None)
            chosen = getattr(form.instance, f"{name}_id")
            field.queryset = field.queryset.filter(fits, Q(is_active=True) | Q(pk=chosen))


def check_own(client: Client | None, form: ModelForm[Any], names: tuple[str, ...]) -> None:
    """Add an error to each field that names a provider of another client."""
    for name in names:
        try:
            if client and (provider := form.cleaned_data.get(name)):
                provider_rules.check_usable(provider, client)
        except InvalidError as error:
            form.add_error(name, str(error))
