"""Channel accounts: the accounts at providers through which messages come in and go out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminPasswordWidget

from channels_out import registry
from channels_out.contract import Adapter
from conversations.admin.base import VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.simulator import SimulatorPages
from conversations.models import ChannelAccount
from conversations.services.core.errors import DomainError, InvalidError
from conversations.services.tenants import channel_accounts, setup

PREFIX = "credential_"
KIND = "kind"  # in the address of the page that adds an account: "whatsapp:whatsapp"


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of an account. `form_of` adds a field per credential; a blank one keeps what is stored."""

    adapter: Adapter | None

    class Meta:
        model = ChannelAccount
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        account = self.instance
        if self.adapter:
            account.provider, account.channel = self.adapter.provider, self.adapter.channel
            if "address" in self.fields:
                self.fields["address"].label = self.adapter.address_name.capitalize()
        for name in _credentials(self.adapter):
            if account.credentials.get(name) and PREFIX + name in self.fields:
                self.fields[PREFIX + name].required = False
                self.fields[PREFIX + name].widget.attrs["placeholder"] = "stored; leave blank to keep it"

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse incomplete credentials, a used address, and another client's assistant."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        account, client = self.instance, cleaned.get("client") or getattr(self.instance, "client", None)
        typed = {name: cleaned.get(PREFIX + name) for name in _credentials(self.adapter)}
        account.credentials = {**account.credentials, **{name: value for name, value in typed.items() if value}}
        if not self.errors:
            try:
                setup.check_credentials(
                    account.channel, account.provider, _own_credentials(self.adapter, account.credentials)
                )
                if not account.is_simulated:
                    base_url = cleaned.get("base_url", account.base_url)
                    setup.check_base_url(account.channel, account.provider, base_url)
            except InvalidError as error:
                raise ValidationError(str(error)) from None
        if any(typed.values()):
            channel_accounts.mark_healthy(account)
        if self.adapter:
            cleaned["address"] = self.adapter.normal_address(cleaned.get("address") or "")
        same = ChannelAccount.objects.filter(
            provider=account.provider, channel=account.channel, address=cleaned.get("address")
        )
        if account.provider == "sandbox":
            same = same.filter(client=client)
        if same.exclude(pk=account.pk).exists():
            self.add_error("address", "This address is connected already.")
        assistant = cleaned.get("assistant")
        if assistant and client and assistant.client_id != client.pk:
            self.add_error("assistant", "This assistant belongs to another client.")
        return cleaned


def form_of(adapter: Adapter | None) -> type[AccountForm]:
    """Return the form class for accounts of this provider. Stored credentials are never rendered."""
    fields = {
        PREFIX + name: forms.CharField(
            label=name.replace("_", " ").capitalize(),
            widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
            strip=True,
        )
        for name in _credentials(adapter)
    }
    return type("AccountForm", (AccountForm,), {**fields, "adapter": adapter})


@admin.register(ChannelAccount)
class ChannelAccountAdmin(SimulatorPages):
    """Channel accounts. Credentials are never shown. An account is switched off, not deleted: its messages need it."""

    client_path = "client"
    empty_message = "No channel is connected yet. Add an account at a provider, or try one in the simulator."
    list_display = [
        "__str__",
        "channel",
        "provider",
        "address",
        "client",
        "is_active",
        "is_simulated",
        "health",
        "health_reason",
    ]
    list_filter = ["channel", "health", "is_active", "is_simulated", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "address"]
    actions_detail = ["try_again", "check_credentials"]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Return the list of providers, or the form of the chosen one."""
        if self.has_add_permission(request) and not _adapter(request, None):
            context = {"title": "Add channel account", "opts": self.opts, "adapters": registry.ADAPTERS}
            context |= self.admin_site.each_context(request)
            return TemplateResponse(request, "admin/channel_accounts/choose_provider.html", context)
        return super().add_view(request, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the provider's form class."""
        return super().get_form(request, obj, change, form=form_of(_adapter(request, obj)), **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields, with a field for each credential of the provider."""
        adapter = _adapter(request, obj)
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        credentials = [PREFIX + name for name in _credentials(adapter)] if may_write else []
        about = "Credentials are stored encrypted and never shown. A blank field keeps the stored value."
        facts = ["channel", "provider", "is_simulated", "health", "health_reason", "created_at", "updated_at", "id"]
        title = f"{adapter.title or adapter.provider} on {adapter.channel}" if adapter else None
        return [
            (title, {"fields": ["client", ("name", "address"), "assistant"]}),
            *([("Credentials", {"fields": credentials, "description": about})] if credentials else []),
            ("Use", {"fields": ["is_active", "base_url"]}),
            *([("State", {"fields": facts})] if obj else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: client and provider, and in most cases the base URL.

        Only superusers set the base URL, unless the provider is a server of the client's own.
        channels_out/public_addresses.py keeps such an address out of our network.
        """
        fixed = ["channel", "provider", "is_simulated", "health", "health_reason", "created_at", "updated_at", "id"]
        adapter = _adapter(request, obj)
        may_set_url = request.user.is_superuser or (adapter and adapter.needs_base_url)
        is_editable = may_set_url and not (obj and obj.is_simulated)
        return [*fixed, *(["client"] if obj else []), *([] if is_editable else ["base_url"])]

    @confirmed(
        "Try again",
        question="Messages that wait for this account are sent now. If the provider refuses it again, they wait again.",
        icon="play_arrow",
        path="resume",
    )
    def try_again(self, request: HttpRequest, account: ChannelAccount) -> str:
        """Send what waits for the account, with the credentials that are stored."""
        waiting = channel_accounts.resume(account)
        self.record(request, "resumed", account)
        return f"The account is tried again. Messages that wait to be sent: {waiting}."

    @confirmed(
        "Check credentials",
        question="The provider is asked whether it accepts the stored credentials. No message is sent.",
        icon="verified_user",
        path="check",
    )
    def check_credentials(self, request: HttpRequest, account: ChannelAccount) -> str:
        """Ask the provider whether it accepts the credentials."""
        try:
            name = channel_accounts.check(account)
        except DomainError as error:
            self.record(request, f"checked ({error.code})", account)
            raise
        self.record(request, "checked (ok)", account)
        return f"{account.provider} accepts the credentials: {name}."


def _adapter(request: HttpRequest, account: ChannelAccount | None) -> Adapter | None:
    """Return the adapter of the account or of the provider chosen for a new one, or None if it is unknown."""
    if account:
        provider, channel = account.provider, account.channel
    else:
        provider, _, channel = request.GET.get(KIND, "").partition(":")
    try:
        return registry.adapter_for(provider, channel)
    except LookupError:
        return None


def _own_credentials(adapter: Adapter | None, credentials: dict[str, str]) -> dict[str, str]:
    """Return the stored credentials that the provider knows. A simulated sandbox also stores the simulator's."""
    return {name: value for name, value in credentials.items() if name in _credentials(adapter)}


def _credentials(adapter: Adapter | None) -> tuple[str, ...]:
    return adapter.credentials if adapter else ()
