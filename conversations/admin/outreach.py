"""The page on which staff open a conversation: whom the assistant writes to, and about what."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from unfold.decorators import action
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from channels_out.kinds import Channel
from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.channel_names import name_of
from conversations.admin.long_list import LongListAdmin
from conversations.models import Assistant, Client
from conversations.services.core.errors import DomainError
from conversations.services.staff_actions import outreach
from conversations.services.staff_actions.outreach import Outreach
from conversations.words import lazy as _

EXAMPLE = "customer_name = Ana\ndebt_amount = 120.50\ndue_date = 2026-12-01"


class OutreachForm(forms.Form):
    """Whom the assistant writes to, and what it must know."""

    client = forms.ModelChoiceField(Client.objects.none(), widget=UnfoldAdminSelectWidget, empty_label=None)
    channel = forms.ChoiceField(
        choices=[(str(channel), name_of(channel)) for channel in outreach.CHANNELS],
        widget=UnfoldAdminSelectWidget,
    )
    phone = forms.CharField(
        required=False,
        max_length=40,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "tel", "placeholder": "+51 999 888 777"}),
        help_text=_("With the country code. Required for WhatsApp and SMS."),
    )
    user_id = forms.CharField(
        label=_("User id"),
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("The client's own id of the contact. Required for Messenger and Orb."),
    )
    name = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget)
    template = forms.BooleanField(
        label=_("Begin with a template"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("You choose and fill it on the next page, and the assistant does not write first. WhatsApp only."),
    )
    assistant = forms.ModelChoiceField(
        Assistant.objects.none(), required=False, widget=UnfoldAdminSelectWidget, empty_label=_("The client's default")
    )
    goal = forms.CharField(
        required=False,
        max_length=2_000,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("Empty: the client's default goal."),
    )
    variables = forms.CharField(
        required=False,
        max_length=50_000,
        strip=True,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5, "placeholder": EXAMPLE, "spellcheck": "false"}),
        help_text=_("What the assistant must know, one variable per line: name = value."),
    )

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        clients = access.clients_of(user, Role.AGENT)
        self.fields["client"].queryset = clients  # type: ignore[attr-defined]
        self.fields["assistant"].queryset = Assistant.objects.filter(client__in=clients)  # type: ignore[attr-defined]

    def clean_variables(self) -> dict[str, str]:
        """Return the variables by name. Raises ValidationError for a line without a name and a value."""
        found = {}
        for line in self.cleaned_data["variables"].splitlines():
            name, sign, value = line.partition("=")
            if not line.strip():
                continue
            if not sign or not name.strip():
                raise forms.ValidationError(
                    gettext("Write each line as name = value. This line is not: “%(line)s”.") % {"line": line[:60]}
                )
            found[name.strip()] = value.strip()
        return found

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse an assistant of another client."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        assistant, client = cleaned.get("assistant"), cleaned.get("client")
        if assistant and client and assistant.client_id != client.pk:
            self.add_error("assistant", gettext("This assistant belongs to another client."))
        if cleaned.get("template") and cleaned.get("channel") != Channel.WHATSAPP:
            self.add_error("template", gettext("Only WhatsApp has templates."))
        return cleaned

    def wanted(self) -> Outreach:
        """Return the valid form as the service expects it."""
        plain = {name: self.cleaned_data[name] for name in ("channel", "phone", "user_id", "name", "goal", "variables")}
        assistant = self.cleaned_data["assistant"]
        greet = not self.cleaned_data["template"]
        return Outreach(**plain, assistant=assistant.key if assistant else "", greet=greet)


class OutreachPage(LongListAdmin):
    """A button above the list of conversations, and its page."""

    actions_list = ["write_to_somebody"]

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may write to contacts of at least one client."""
        return self.has_role(request, Role.AGENT)

    @action(description=_("Write to a contact"), url_path="new", permissions=["write"], icon="edit_square")  # type: ignore[untyped-decorator]
    def write_to_somebody(self, request: HttpRequest) -> HttpResponse:
        """Return the form. On POST, open the conversation and redirect to its page."""
        form = OutreachForm(request.user, request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                client = form.cleaned_data["client"]
                actor = access.actor_of(request)
                conversation = outreach.start_outreach(client, form.wanted(), actor=actor, now=timezone.now())
                page = "template" if form.cleaned_data["template"] else "change"
                return redirect(reverse(f"admin:conversations_conversation_{page}", args=[conversation.pk]))
            except DomainError as error:
                form.add_error(None, str(error))
        context = {**self.admin_site.each_context(request), "opts": self.opts, "form": form}
        context["title"] = gettext("Write to a contact")
        return TemplateResponse(request, "admin/outreach/outreach.html", context)
