"""The part of an assistant's page about the client's own agent: its URL, and the secret that signs requests to it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from unfold.widgets import UnfoldAdminPasswordWidget

from conversations.admin.base import ClientScopedAdmin
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.models import Assistant
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import agent_secrets
from conversations.words import lazy as _

SECRET = "agent_secret"  # noqa: S105 - the name of a field
ABOUT = _(
    "Where the engine is agent, Convo posts to this URL what was said, and the answer is the reply: see"
    " docs/own-agent.md. Requests are signed. A secret is stored encrypted and never shown again; a blank field keeps"
    " the stored one. Without one, Convo makes one when you save, and shows it once."
)


class OwnAgentForm(forms.ModelForm):  # type: ignore[type-arg]
    """Base of the assistants' form. The agent's secret can be written and not read."""

    agent_secret = forms.CharField(
        label=_("Signing secret"),
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
    )

    class Meta:
        model = Assistant
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if SECRET in self.fields and self.instance.agent_secrets:
            self.fields[SECRET].widget.attrs["placeholder"] = gettext("stored; leave blank to keep it")

    def clean_agent_secret(self) -> str:
        """Set the secret that was typed. The one before stays valid beside it."""
        typed: str = self.cleaned_data[SECRET]
        if typed:
            try:
                agent_secrets.replace_secret(self.instance, typed)
            except InvalidError as error:
                raise forms.ValidationError(str(error)) from None
        return typed


class OwnAgentPages(ClientScopedAdmin):
    """Base of the assistants' admin: the fields of the own agent, and a new secret that is shown once."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields with the own agent's. Who may not write sees no field for the secret."""
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        fields = ["agent_url", ("agent_timeout_seconds", "agent_deadline_seconds"), *([SECRET] if may_write else [])]
        *groups, last = super().get_fieldsets(request, obj)
        return [*groups, (gettext("Own agent"), {"fields": fields, "description": ABOUT}), last]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the assistant, with a new secret if its engine needs one. The response shows it."""
        obj.made_secret = agent_secrets.ensure_secret(obj)
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the page that shows a new secret, or the usual one."""
        return self._shown(request, obj) or super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Return the page that shows a new secret, or the usual one."""
        return self._shown(request, obj) or super().response_change(request, obj)

    def _shown(self, request: HttpRequest, assistant: Any) -> HttpResponse | None:
        secret = getattr(assistant, "made_secret", "")
        if not secret:
            return None
        about = gettext("This secret signs Convo's requests to the agent of %(assistant)s. Enter it there.") % {
            "assistant": assistant
        }
        return show_once(self, request, assistant, title=gettext("Signing secret"), about=about, secret=secret)

    @confirmed(
        _("New signing secret"),
        question=_(
            "Requests to the agent are signed with the new secret and with the present one, until you make"
            " another. Make a new secret?"
        ),
        icon="key",
        path="new-secret",
    )
    def new_agent_secret(self, request: HttpRequest, assistant: Any) -> HttpResponse | str:
        """Make a new secret and show it once."""
        assistant.made_secret = agent_secrets.make_secret(assistant)
        self.record(request, "made a signing secret for", assistant)
        return self._shown(request, assistant) or gettext("There is no new secret.")
