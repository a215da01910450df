"""Assistants: who answers, with which engine, model and system prompt."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.translation import gettext

from conversations.admin.base import VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.own_agents import OwnAgentForm, OwnAgentPages
from conversations.admin.provider_choice import NamesProviders, check_own, narrow_to
from conversations.admin.try_assistant import TryAssistantPage
from conversations.models import Assistant
from conversations.services.tenants import model_endings, model_overview, setup
from conversations.words import lazy as _

PROVIDERS = ("model_provider", "fallback_provider")


class AssistantForm(OwnAgentForm):
    """The form of an assistant, which may name its client's model providers and the installation's."""

    class Meta:
        model = Assistant
        fields = "__all__"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.client_id:
            narrow_to(self.instance.client, self, PROVIDERS)

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse another client's model provider."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        check_own(cleaned.get("client") or getattr(self.instance, "client", None), self, PROVIDERS)
        return cleaned


FOR_PROGRAMS = _("For programs")  # what an assistant has once it is stored


@admin.register(Assistant)
class AssistantAdmin(TryAssistantPage, OwnAgentPages, NamesProviders):
    """The assistants of a client. The default assistant answers for accounts that name no other."""

    client_path = "client"
    form = AssistantForm
    empty_message = _("There is no assistant yet. Nobody answers until you add one.")
    list_display = ["name", "key", "client", "engine", "model", "is_default", "in_copilot"]
    list_filter = ["engine", "is_default", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "key"]
    actions_detail = ["open_try", "answer_by_default", "new_agent_secret"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "client",
                    ("name", "key"),
                    ("is_default", "in_copilot"),
                    "proposes",
                    "system_prompt",
                    "disclosure",
                    "fallback",
                ]
            },
        ),
        (
            _("Engine"),
            {
                "fields": [
                    "engine",
                    ("model_provider", "model"),
                    "reasoning_effort",
                    ("fallback_provider", "fallback_model"),
                    ("temperature", "max_tokens"),
                    ("history_length", "context_budget"),
                    "learned",
                ]
            },
        ),
        (_("On the phone"), {"fields": ["greeting", ("spoken_language", "voice"), "transfer_number"]}),
        (
            _("Outside the reply window"),
            {"fields": [("template_name", "template_language"), "template_variables", "template_header"]},
        ),
        (
            _("Tools, files and goodbyes"),
            {"fields": [("uses_tools", "sees_files"), "goodbye_phrases"]},
        ),
        (
            _("Handing over to a person"),
            {
                "fields": [
                    "takeover_sentence",
                    "human_phrases",
                    ("human_after_failures", "human_below_confidence"),
                ]
            },
        ),
        ("Retell", {"fields": [("retell_agent_id", "opener")]}),
        (FOR_PROGRAMS, {"fields": ["id", "created_at"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. A new assistant has nothing for programs yet."""
        groups = super().get_fieldsets(request, obj)
        return [(title, options) for title, options in groups if obj or title != FOR_PROGRAMS]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed. The client is fixed, and `is_default` is set by an action."""
        return ["id", "created_at", "is_default", "learned", *(["client"] if obj else [])]

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """Return the page. It says first which of the assistant's models ends soon, or has ended."""
        if obj and request.method == "GET":
            for ending in model_endings.endings_of(obj, timezone.now().date()):
                messages.warning(request, ending.sentence)
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description=_("Learned of the model"))
    def learned(self, assistant: Assistant) -> str:
        """Return what the model's answers taught of it."""
        facts = model_overview.learned_by(assistant) if assistant.pk and assistant.client_id else ()
        return format_html_join("", "{}<br>", ((fact.sentence,) for fact in facts)) or gettext("nothing yet")

    @confirmed(
        _("Make default"),
        question=_("This assistant will reply for all accounts of its client that name no other. Make it the default?"),
        icon="star",
        path="default",
    )
    def answer_by_default(self, request: HttpRequest, assistant: Assistant) -> str:
        """Make the assistant its client's default, in place of the current one."""
        setup.make_default(assistant)
        self.record(request, "made default", assistant)
        return gettext("%(assistant)s is the default assistant now.") % {"assistant": assistant}
