"""Tools of clients, the MCP servers that have some of them, and the calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminPasswordWidget

from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter, visible_rows
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.admin.related_tables import ConversationRowsAdmin
from conversations.admin.transcript_panel import OUTCOMES
from conversations.models import Assistant, McpServer, Tool, ToolCall
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import tools
from conversations.words import lazy as _
from conversations.words import shown

GRAVITY = {
    label: {"grave": "danger", "waiting": "warning"}.get(gravity, "success") for label, gravity in OUTCOMES.values()
}
USE = ["changes_something", "may_repeat", "needs_approval", "sends_files", "is_active"]


def refuse_used_name(form: Any, client: Any) -> None:
    """Add an error to the form if another row of the client has the name. The form of a change has no client."""
    others = form._meta.model.objects.filter(client=client, name=form.cleaned_data.get("name"))
    if others.exclude(pk=form.instance.pk).exists():
        form.add_error("name", gettext("This name is taken."))


class ToolForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a tool, with the assistants of its client to choose from."""

    assistant_ids = forms.MultipleChoiceField(
        label=_("Assistants"),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_("The assistants that may call it. None chosen: all of the client's."),
    )
    visible_assistants: Any = ()

    class Meta:
        model = Tool
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "parameters" in self.fields:
            self.fields["parameters"].required = False
            self.fields["parameters"].help_text = gettext(
                "A JSON Schema of an object, such as"
                ' {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}.'
                " Empty: it takes no arguments."
            )
        if "assistant_ids" not in self.fields:
            return
        theirs = self.visible_assistants
        if self.instance.client_id:
            theirs = theirs.filter(client=self.instance.client_id)
        choices: Any = self.fields["assistant_ids"]
        choices.choices = [(str(each.pk), str(each)) for each in theirs]
        self.initial["assistant_ids"] = [str(pk) for pk in self.instance.assistant_ids]

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse a name, a schema or assistants that a tool of this client cannot have."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        client = cleaned.get("client") or getattr(self.instance, "client", None)
        chosen = [UUID(each) for each in cleaned.get("assistant_ids", ())]
        if client and Assistant.objects.filter(client=client, pk__in=chosen).count() != len(set(chosen)):
            self.add_error("assistant_ids", gettext("Choose assistants of the tool's own client."))
        cleaned["assistant_ids"] = chosen
        refuse_used_name(self, client)
        if "parameters" in cleaned:
            cleaned["parameters"] = cleaned["parameters"] or dict(tools.NOTHING_TAKEN)
        if not self.errors:
            checked = ("name", "description", "parameters", "url")
            values = {name: cleaned.get(name, getattr(self.instance, name)) for name in checked}
            try:
                tools.check(Tool(server_id=self.instance.server_id, **values))
            except InvalidError as error:
                raise ValidationError(str(error)) from None
        return cleaned


@admin.register(Tool)
class ToolAdmin(ClientScopedAdmin):
    """Tools that models may call. A tool at a URL is added here; those of an MCP server are listed there.

    A tool is switched off, not deleted: its calls need it.
    """

    form = ToolForm
    client_path = "client"
    empty_message = _("No tool yet. Add one at a URL of your own, or add an MCP server and list its tools.")
    list_display = ["name", "client", "server", *USE, "why_not_offered"]
    list_filter = ["is_active", "changes_something", "needs_approval", ("client", VisibleRowsFilter)]
    list_select_related = ["client", "server"]
    search_fields = ["name", "description"]
    actions_detail = ["replace_secret"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form class, which offers the assistants that the user may see."""
        visible = visible_rows(request, self.admin_site, Assistant)
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.visible_assistants = visible
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. A tool of an MCP server is described and reached by that server."""
        own = not (obj and obj.server_id)
        where = ["url", "timeout_seconds"] if own else ["server", "remote_name"]
        return [
            (None, {"fields": ["client", "name", "description", "parameters"]}),
            (gettext("Where it is"), {"fields": where}),
            (gettext("Use"), {"fields": ["assistant_ids", *USE]}),
            *([(gettext("State"), {"fields": ["why_not_offered", "id", "created_at", "updated_at"]})] if obj else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed. What an MCP server says of its tool is the server's."""
        fixed = [
            "why_not_offered",
            "id",
            "created_at",
            "updated_at",
            "server",
            "remote_name",
            *(["client"] if obj else []),
        ]
        return [*fixed, *(["description", "parameters"] if obj and obj.server_id else [])]

    @admin.display(description=_("problem"))
    def why_not_offered(self, tool: Tool) -> str:
        """Return why the tool cannot be offered to models."""
        return shown(tool.problem)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the tool. A new one gets the secret that signs its calls; `response_add` shows it."""
        if not change:
            obj.new_secret = tools.new_secret()
            obj.credentials = {"secret": obj.new_secret}
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the only page that ever shows the secret."""
        return show_once(self, request, obj, title=gettext("Secret"), about=_about(obj), secret=obj.new_secret)

    @confirmed(
        _("Replace the secret"),
        question=_("Calls are signed with a new secret from now on. The tool refuses them until you enter it there."),
        icon="key",
        path="secret",
    )
    def replace_secret(self, request: HttpRequest, tool: Tool) -> str | HttpResponse:
        """Replace the secret that signs the tool's calls, and show the new one once."""
        if tool.server_id:
            return gettext("Calls of an MCP server are not signed.")
        secret = tools.renew_secret(tool)
        self.record(request, "replaced the secret of", tool)
        return show_once(self, request, tool, title=gettext("Secret"), about=_about(tool), secret=secret)


def _about(tool: Tool) -> str:
    return gettext("This is the secret of %(name)s. Its calls are signed with it, as Standard Webhooks.") % {
        "name": repr(tool.name)
    }


class McpServerForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of an MCP server. A blank token keeps what is stored."""

    token = forms.CharField(
        required=False,
        max_length=2_000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
        help_text=_("Sent as Authorization: Bearer. Stored encrypted and never shown. Blank keeps the stored one."),
    )

    class Meta:
        model = McpServer
        fields = "__all__"  # noqa: DJ007 - the page's fieldsets say which

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse a name that another server of the client has."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        refuse_used_name(self, cleaned.get("client") or getattr(self.instance, "client", None))
        return cleaned

    def clean_token(self) -> str:
        """Return the token, and put it into the server's headers. Refuse one that fits in no header."""
        token: str = self.cleaned_data["token"].strip()
        try:
            self.instance.headers = tools.bearer_header(token) or self.instance.headers
        except InvalidError as error:
            raise ValidationError(str(error)) from None
        return token


@admin.register(McpServer)
class McpServerAdmin(ClientScopedAdmin):
    """MCP servers. Their tools are listed with a button, and then chosen one by one under Tools."""

    form = McpServerForm
    client_path = "client"
    empty_message = _("No MCP server yet.")
    list_display = ["name", "client", "url", "is_active", "listed_at"]
    list_filter = ["is_active", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "url"]
    actions_detail = ["list_tools"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. Who may only look sees no field for the token."""
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        where = ["client", "name", "url", *(["token"] if may_write else []), "timeout_seconds", "is_active"]
        return [
            (None, {"fields": where}),
            *([(gettext("State"), {"fields": ["listed_at", "id", "created_at"]})] if obj else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed."""
        return ["listed_at", "id", "created_at", *(["client"] if obj else [])]

    @confirmed(
        _("List tools"),
        question=_("The server is asked for its tools. New ones are not offered until you switch them on under Tools."),
        icon="list",
        path="list",
    )
    def list_tools(self, request: HttpRequest, server: McpServer) -> str:
        """Ask the server for its tools and store them."""
        new = tools.list_tools(server, timezone.now())
        self.record(request, "listed the tools of", server)
        return gettext("New tools: %(new)s. Switch on under Tools what the assistants may call.") % {"new": len(new)}


@admin.register(ToolCall)
class ToolCallAdmin(ConversationRowsAdmin):
    """Tool calls, newest first. Each is approved, refused or settled on the page of its conversation."""

    client_path = "client"
    empty_message = _("No tool was called yet.")
    exclude = ["arguments", "answer"]
    list_display = ["in_conversation", "name", "state", "code", "tries", "created_at", "ended_at", "id"]
    list_filter = ["status"]
    ordering = ["-created_at"]

    @display(description=_("Status"), label=GRAVITY)  # type: ignore[untyped-decorator]
    def state(self, call: ToolCall) -> str:
        """Return the status with the label of the transcript."""
        return OUTCOMES[ToolCall.Status(call.status)][0]
