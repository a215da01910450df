"""The form that opens a session from our side: whom to write to, and what about."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.deeds import staff
from conversations.admin.long_list import LongList
from conversations.models import Assistant, Client
from conversations.services.core.errors import DomainError
from conversations.services.staff_actions import outreach
from conversations.services.staff_actions.outreach import Outreach

EXAMPLE = "customer_name = Ana\ndebt_amount = 120.50\ndue_date = 2026-12-01"


class OutreachForm(forms.Form):
    """Whom the assistant shall write to."""

    client = forms.ModelChoiceField(Client.objects.none(), widget=UnfoldAdminSelectWidget, empty_label=None)
    channel = forms.ChoiceField(
        choices=[(str(channel), str(channel).capitalize()) for channel in outreach.CHANNELS],
        widget=UnfoldAdminSelectWidget,
    )
    phone = forms.CharField(
        required=False,
        max_length=40,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "tel", "placeholder": "+51 999 888 777"}),
        help_text="With the country code. WhatsApp and SMS need it.",
    )
    user_id = forms.CharField(
        label="User id",
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="The client's own id of the person, where there is one. Messenger and the orb need it.",
    )
    name = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget)
    assistant = forms.ModelChoiceField(
        Assistant.objects.none(), required=False, widget=UnfoldAdminSelectWidget, empty_label="The usual one"
    )
    goal = forms.CharField(
        required=False, max_length=2_000, widget=UnfoldAdminTextInputWidget, help_text="Empty: the client's usual goal."
    )
    variables = forms.CharField(
        required=False,
        max_length=50_000,
        strip=True,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5, "placeholder": EXAMPLE, "spellcheck": "false"}),
        help_text="What the assistant is to know: one a line, as name = value.",
    )

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        clients = access.clients_of(user, Role.AGENT)
        self.fields["client"].queryset = clients  # type: ignore[attr-defined]
        self.fields["assistant"].queryset = Assistant.objects.filter(client__in=clients)  # type: ignore[attr-defined]

    def clean_variables(self) -> dict[str, str]:
        """By name. Raises ValidationError for a line that is none."""
        found = {}
        for line in self.cleaned_data["variables"].splitlines():
            name, sign, value = line.partition("=")
            if not line.strip():
                continue
            if not sign or not name.strip():
                raise forms.ValidationError(f"Each line is name = value, not “{line[:60]}”.")
            found[name.strip()] = value.strip()
        return found

    def clean(self) -> dict[str, Any]:
        """The assistant is the client's own."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        assistant, client = cleaned.get("assistant"), cleaned.get("client")
        if assistant and client and assistant.client_id != client.pk:
            self.add_error("assistant", "This assistant is another client's.")
        return cleaned

    def wanted(self) -> Outreach:
        """What was asked for."""
        plain = {name: self.cleaned_data[name] for name in ("channel", "phone", "user_id", "name", "goal", "variables")}
        assistant = self.cleaned_data["assistant"]
        return Outreach(**plain, assistant=assistant.key if assistant else "")


class OutreachPages(LongList):
    """A button above the list of sessions, and the page behind it."""

    actions_list = ["write_to_somebody"]

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Whether there is a client in whose name the user may write."""
        return self.may(request, Role.AGENT)

    @action(description="Write to somebody", url_path="new", permissions=["write"], icon="edit_square")  # type: ignore[untyped-decorator]
    def write_to_somebody(self, request: HttpRequest) -> HttpResponse:
        """The form, and on POST the session that it opens."""
        form = OutreachForm(request.user, request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                client = form.cleaned_data["client"]
                session = outreach.begin(client, form.wanted(), actor=staff(request), now=timezone.now())
                return redirect(reverse("admin:conversations_conversation_change", args=[session.pk]))
            except DomainError as error:
                form.add_error(None, str(error))
        context = {**self.admin_site.each_context(request), "opts": self.opts, "form": form}
        context["title"] = "Write to somebody"
        return TemplateResponse(request, "admin/conversations/conversation/outreach.html", context)
