"""The personas that answer."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from conversations.admin.base import ClientsOwn, Page
from conversations.admin.confirmed import confirmed
from conversations.models import Assistant
from conversations.services.tenants import setup


@admin.register(Assistant)
class AssistantAdmin(Page):
    """One of them is the client's default: it answers where an account names no other."""

    client_path = "client"
    nothing = "There is no assistant yet: nobody answers until there is one."
    list_display = ["name", "key", "client", "engine", "model", "is_default", "in_copilot"]
    list_filter = ["engine", "is_default", ("client", ClientsOwn)]
    list_select_related = ["client"]
    search_fields = ["name", "key"]
    actions_detail = ["answer_by_default"]
    fieldsets = [
        (None, {"fields": ["client", ("name", "key"), ("is_default", "in_copilot"), "system_prompt", "fallback"]}),
        (
            "Engine",
            {"fields": [("engine", "model"), ("temperature", "max_tokens"), ("history_length", "context_budget")]},
        ),
        ("On the phone", {"fields": ["greeting", ("spoken_language", "voice")]}),
        ("Where free text is not taken any more", {"fields": [("template_name", "template_language")]}),
        (
            "Beside speaking",
            {"fields": ["uses_tools", "goodbye_phrases"]},
        ),
        (
            "A person instead",
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
        """An assistant stays with its client, and is made the default by its action."""
        return ["id", "created_at", "is_default", *(["client"] if obj else [])]

    @confirmed(
        "Make default",
        question="This assistant answers for its client wherever an account names no other. Shall it?",
        icon="star",
        path="default",
    )
    def answer_by_default(self, request: HttpRequest, assistant: Assistant) -> str:
        """In the place of whoever did."""
        setup.make_default(assistant)
        self.note(request, "made default", assistant)
        return f"{assistant} answers by default."
