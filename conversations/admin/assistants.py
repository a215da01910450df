"""Assistants: who answers, with which engine, model and system prompt."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from conversations.admin.base import VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.try_assistant import TryAssistantPage
from conversations.models import Assistant
from conversations.services.tenants import setup


@admin.register(Assistant)
class AssistantAdmin(TryAssistantPage):
    """The assistants of a client. The default assistant answers for accounts that name no other."""

    client_path = "client"
    empty_message = "There is no assistant yet. Nobody answers until you add one."
    list_display = ["name", "key", "client", "engine", "model", "is_default", "in_copilot"]
    list_filter = ["engine", "is_default", ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name", "key"]
    actions_detail = ["open_try", "answer_by_default"]
    fieldsets = [
        (None, {"fields": ["client", ("name", "key"), ("is_default", "in_copilot"), "system_prompt", "fallback"]}),
        (
            "Engine",
            {"fields": [("engine", "model"), ("temperature", "max_tokens"), ("history_length", "context_budget")]},
        ),
        ("On the phone", {"fields": ["greeting", ("spoken_language", "voice")]}),
        ("Outside the reply window", {"fields": [("template_name", "template_language")]}),
        (
            "Tools and goodbyes",
            {"fields": ["uses_tools", "goodbye_phrases"]},
        ),
        (
            "Handing over to a person",
            {
                "fields": [
                    "takeover_sentence",
                    "human_phrases",
                    ("human_after_failures", "human_below_confidence"),
                ]
            },
        ),
        ("Retell", {"fields": [("retell_agent_id", "opener")]}),
        ("For programs", {"fields": ["id", "created_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed. The client is fixed, and `is_default` is set by an action."""
        return ["id", "created_at", "is_default", *(["client"] if obj else [])]

    @confirmed(
        "Make default",
        question="This assistant will reply for all accounts of its client that name no other. Make it the default?",
        icon="star",
        path="default",
    )
    def answer_by_default(self, request: HttpRequest, assistant: Assistant) -> str:
        """Make the assistant its client's default, in place of the current one."""
        setup.make_default(assistant)
        self.record(request, "made default", assistant)
        return f"{assistant} is the default assistant now."
