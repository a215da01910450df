"""Channel accounts: the accounts at providers through which messages come in and go out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from channels_out import registry
from channels_out.contract import Adapter
from conversations.admin.base import VisibleRowsFilter
from conversations.admin.channel_names import name_of
from conversations.admin.confirmation import confirmed
from conversations.admin.durations import DurationInWordsField
from conversations.admin.simulator import SimulatorPages
from conversations.models import ChannelAccount
from conversations.services.core.errors import DomainError, InvalidError
from conversations.services.delivery import template_catalogue
from conversations.services.tenants import channel_accounts, setup
from conversations.words import lazy as _
from conversations.words import shown

PREFIX = "credential_"
STATE = [  # shown, and never typed
    *(
        "channel",
        "provider",
        "is_simulated",
        "health",
        "why_broken",
        "notice_in_words",
        "notice_at",
        "reach",
        "catalogue",
    ),
    *("checks", "checked_at"),
    *("created_at", "updated_at", "id"),
]
WEBHOOK_PLACES = {
    "whatsapp": _(
        "Enter it with the verify token in Meta's developer console, under WhatsApp, Configuration, Webhook,"
        " and subscribe to messages."
    ),
    "messenger": _(
        "Enter it with the verify token in Meta's developer console, under Messenger, API Settings, Webhooks,"
        " and subscribe the page."
    ),
    "dialog360": _("Enter it in 360dialog's Hub, under Channel Webhook, with the header X-Convo-Secret."),
    "plivo": _("Enter it as the URL of the application that the number belongs to, in Plivo's console, method POST."),
    "orb": _("Let your gateway post to it, signed with the secret."),
}
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
        if "silence" in self.fields:
            self.fields["silence"].required = False  # blank: as it is
        for name in _credentials(self.adapter):
            if account.credentials.get(name) and PREFIX + name in self.fields:
                self.fields[PREFIX + name].required = False
                self.fields[PREFIX + name].widget.attrs["placeholder"] = gettext("stored; leave blank to keep it")

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
        if "silence" in self.fields and cleaned.get("silence") is None and "silence" not in self.errors:
            cleaned["silence"] = account.silence
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
            self.add_error("address", gettext("This address is connected already."))
        assistant = cleaned.get("assistant")
        if assistant and client and assistant.client_id != client.pk:
            self.add_error("assistant", gettext("This assistant belongs to another client."))
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


class UnreachedFilter(admin.SimpleListFilter):
    """Accounts whose provider cannot be reached."""

    title = _("sends")
    parameter_name = "unreached"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [("1", gettext("the provider cannot be reached"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the accounts of the choice."""
        return queryset.filter(circuit__opened_at__isnull=False) if self.value() else queryset


@admin.register(ChannelAccount)
class ChannelAccountAdmin(SimulatorPages):
    """Channel accounts. Credentials are never shown. An account is switched off, not deleted: its messages need it."""

    client_path = "client"
    formfield_overrides = {
        models.DurationField: {"form_class": DurationInWordsField, "widget": UnfoldAdminTextInputWidget}
    }
    empty_message = _("No channel is connected yet. Add an account at a provider, or try one in the simulator.")
    list_display = [
        "__str__",
        "channel",
        "provider",
        "address",
        "client",
        "is_active",
        "is_simulated",
        "health",
        "why_broken",
    ]
    list_filter = ["channel", "health", UnreachedFilter, "is_active", "is_simulated", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "address"]
    actions_detail = ["try_again", "check_credentials", "fetch_templates"]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Return the list of providers, or the form of the chosen one."""
        if self.has_add_permission(request) and not _adapter(request, None):
            context = {"title": gettext("Add channel account"), "opts": self.opts, "adapters": registry.ADAPTERS}
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
        about = gettext("Credentials are stored encrypted and never shown. A blank field keeps the stored value.")
        title = (
            gettext("%(provider)s on %(channel)s")
            % {"provider": adapter.title or adapter.provider, "channel": name_of(adapter.channel)}
            if adapter
            else None
        )
        return [
            (title, {"fields": ["client", ("name", "address"), "assistant"]}),
            *([(gettext("Credentials"), {"fields": credentials, "description": about})] if credentials else []),
            *(
                [(gettext("Webhooks"), {"fields": ["webhook_url"]})]
                if obj and channel_accounts.webhook_url(obj)
                else []
            ),
            (gettext("Use"), {"fields": ["is_active", "base_url", *_of_provider(adapter)]}),
            *([(gettext("State"), {"fields": STATE})] if obj else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: client and provider, and in most cases the base URL.

        Only superusers set the base URL, unless the provider is a server of the client's own.
        channels_out/public_addresses.py keeps such an address out of our network.
        """
        adapter = _adapter(request, obj)
        may_set_url = request.user.is_superuser or (adapter and adapter.needs_base_url)
        is_editable = may_set_url and not (obj and obj.is_simulated)
        return [*STATE, "webhook_url", *(["client"] if obj else []), *([] if is_editable else ["base_url"])]

    @admin.display(description=_("Sends"))
    def reach(self, account: ChannelAccount) -> str:
        """Return a sentence about whether messages reach the provider."""
        circuit = channel_accounts.open_circuit(account)
        if circuit is None or circuit.opened_at is None or circuit.probe_at is None:
            return gettext("They reach the provider.")
        tries = ngettext("%(count)s try so far", "%(count)s tries so far", circuit.probes) % {"count": circuit.probes}
        return gettext(
            "The provider cannot be reached since %(opened_at)s (%(code)s). Messages wait. One of them tries it from"
            " time to time, next at %(probe_at)s: %(tries)s."
        ) % {
            "opened_at": f"{timezone.localtime(circuit.opened_at):%Y-%m-%d %H:%M}",
            "code": circuit.code,
            "probe_at": f"{timezone.localtime(circuit.probe_at):%H:%M:%S %Z}",
            "tries": tries,
        }

    @admin.display(description=_("health reason"))
    def why_broken(self, account: ChannelAccount) -> str:
        """Return why the provider refuses the account."""
        return shown(account.health_reason)

    @admin.display(description=_("notice"))
    def notice_in_words(self, account: ChannelAccount) -> str:
        """Return what the provider told of the account itself last."""
        return shown(account.notice)

    @admin.display(description=_("Webhook URL"))
    def webhook_url(self, account: ChannelAccount) -> SafeString:
        """Return the address that the provider must deliver to, and where it is entered."""
        about = WEBHOOK_PLACES.get(account.provider, gettext("Enter it at the provider."))
        url = channel_accounts.webhook_url(account)
        return format_html('<code class="select-all">{}</code><p class="mt-2">{}</p>', url, about)

    @admin.display(description=_("Checks"))
    def checks(self, account: ChannelAccount) -> SafeString:
        """Return what the last check found, a line each, what is not fine first."""
        if account.checked_at is None:
            return format_html("{}", gettext("Not checked yet: press Check account."))
        marks = {True: ("✓", "text-green-700 dark:text-green-400"), False: ("!", "text-red-700 dark:text-red-400")}
        lines = ((*marks[bool(each.get("is_fine"))], shown(each.get("sentence", ""))) for each in account.findings)
        line = '<p><span class="font-semibold {1}" aria-hidden="true">{0}</span> {2}</p>'
        return format_html_join("", line, lines)

    @admin.display(description=_("Templates"))
    def catalogue(self, account: ChannelAccount) -> str:
        """Return a sentence about the list of the account's templates."""
        if account.templates_at is None:
            return gettext("They have not been read yet.")
        known = account.templates.filter(client=account.client_id).count()
        read_at = f"{timezone.localtime(account.templates_at):%Y-%m-%d, %H:%M %Z}"
        read = gettext("%(known)s are known. Read on %(at)s.") % {"known": known, "at": read_at}
        return (
            gettext("%(read)s The last try failed: %(problem)s")
            % {"read": read, "problem": shown(account.templates_problem)}
            if account.templates_problem
            else read
        )

    @confirmed(
        _("Fetch templates"),
        question=_("The account's templates are read from its provider now. They are read every hour anyway."),
        icon="sync",
        path="templates",
    )
    def fetch_templates(self, request: HttpRequest, account: ChannelAccount) -> str:
        """Read the account's templates from its provider."""
        count = template_catalogue.refresh(account, timezone.now())
        self.record(request, "fetched the templates of", account)
        return gettext("The account has %(count)s templates.") % {"count": count}

    @confirmed(
        _("Try again"),
        question=_(
            "Messages that wait for this account are sent now. If the provider refuses it again, they wait again."
        ),
        icon="play_arrow",
        path="resume",
    )
    def try_again(self, request: HttpRequest, account: ChannelAccount) -> str:
        """Send what waits for the account, with the credentials that are stored."""
        waiting = channel_accounts.resume(account)
        self.record(request, "resumed", account)
        return gettext("The account is tried again. Messages that wait to be sent: %(waiting)s.") % {"waiting": waiting}

    @confirmed(
        _("Check account"),
        question=_(
            "The provider is asked whether it accepts the stored credentials, in which state the account is, and"
            " whether it delivers to us. No message is sent."
        ),
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
        faults = [shown(each["sentence"]) for each in account.findings if not each["is_fine"]]
        accepted = gettext("%(provider)s accepts the credentials: %(name)s.") % {
            "provider": account.provider,
            "name": name,
        }
        return (
            gettext("%(accepted)s To be mended: %(faults)s") % {"accepted": accepted, "faults": " ".join(faults)}
            if faults
            else gettext("%(accepted)s Everything is fine.") % {"accepted": accepted}
        )


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


def _of_provider(adapter: Adapter | None) -> list[str]:
    """Return the fields that only some providers have."""
    if adapter is None:
        return []
    return [*(["silence"] if adapter.hears_colleagues else []), *(["business_id"] if adapter.lists_templates else [])]


def _own_credentials(adapter: Adapter | None, credentials: dict[str, str]) -> dict[str, str]:
    """Return the stored credentials that the provider knows. A simulated sandbox also stores the simulator's."""
    return {name: value for name, value in credentials.items() if name in _credentials(adapter)}


def _credentials(adapter: Adapter | None) -> tuple[str, ...]:
    return adapter.credentials if adapter else ()
