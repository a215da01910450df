"""Clients and their policies."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from conversations.admin.access import SUPERUSER
from conversations.admin.retention import RetentionPages
from conversations.admin.spans import SpanField
from conversations.models import Client
from conversations.models.client import LONGEST_QUIET_WINDOW, validate_patterns
from conversations.services.core.durations import in_words
from conversations.services.tenants import setup
from memory.redaction import CARD_REMOVED, REDACTED

ONLY_SUPERUSERS = ["name", "sub_domain", "is_active"]
BURSTS = "Bursts"
QUIET = {f"quiet_{channel}": channel for channel in ("whatsapp", "messenger", "sms", "orb", "voice", "web")}


def _seconds(channel: str) -> forms.FloatField:
    widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    return forms.FloatField(label=channel, min_value=0, max_value=LONGEST_QUIET_WINDOW, required=False, widget=widget)


class PatternsField(forms.CharField):
    """A list of patterns, one a line."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        """As text."""
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """As a list."""
        return value if isinstance(value, list) else [line for line in (value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Whether the lists differ."""
        return bool(self.to_python(initial) != self.to_python(data))

    def validate(self, value: Any) -> None:
        """Raises ValidationError with a sentence about the first that cannot be taken."""
        validate_patterns(value)


class ClientForm(forms.ModelForm):  # type: ignore[type-arg]
    """The policies, each with a sentence. The quiet windows are a field a channel."""

    quiet_whatsapp = _seconds("WhatsApp")
    quiet_messenger = _seconds("Messenger")
    quiet_sms = _seconds("SMS")
    quiet_orb = _seconds("Orb")
    quiet_voice = _seconds("Voice")
    quiet_web = _seconds("Web")
    redaction_patterns = PatternsField(
        label="Also remove what matches",
        required=False,
        help_text="One pattern a line, in RE2's syntax: (?i)\\bIBAN [A-Z]{2}\\d{2}[A-Z0-9 ]{11,30}."
        f" What matches becomes {REDACTED}.",
    )

    class Meta:
        model = Client
        exclude = ["quiet_windows"]  # noqa: DJ006 - the page's fieldsets say which of the others
        labels = {
            "is_active": "Open for business",
            "auto_reply": "The assistant answers by itself",
            "answers_synced": "It also answers in sessions that agents keep here",
            "default_goal": "Goal of a new session",
            "longest_wait": "Longest wait",
            "hand_back_after": "A takeover ends after",
            "stale_after": "A session becomes stale after",
            "expire_after": "A session expires after",
            "archive_after": "A session is archived after",
            "redact_cards": "Remove card numbers",
            "semantic_recall": "It recalls earlier sessions on the same",
        }
        help_texts = {
            "sub_domain": "Lower-case letters, digits and hyphens; programs name the client by it.",
            "is_active": "Switched off, its keys open nothing and its messages are not taken.",
            "auto_reply": "Off: what people write waits for a person.",
            "answers_synced": "Off: what an agent records by the sync protocol is only recorded; it answers by itself.",
            "default_goal": "What the assistant is to achieve, unless whoever opens the session says otherwise.",
            "longest_wait": "A reply is begun so long after the first unanswered message, whatever comes after it.",
            "hand_back_after": "When whoever took a session over has not written for so long, the assistant goes on.",
            "stale_after": "Without a message for so long, a session is stale; the next message revives it.",
            "expire_after": "Without a message for so long, a session is over; the next message opens a new one.",
            "semantic_recall": "With the first message of a session it is told what the person said about it in earlier"
            " ones, found by meaning where Pinecone is configured, else by words. The first reply waits for that.",
            "redact_cards": f"13 to 19 digits with a right check digit become {CARD_REMOVED}.",
            "archive_after": "So long after its end its transcript leaves the session and is kept in memory alone.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in QUIET.keys() & self.fields.keys():
            self.initial[name] = self.instance.quiet_windows.get(QUIET[name], 0)

    def clean(self) -> dict[str, Any]:
        """The windows are the client's."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        windows = {channel: given.get(name) or 0 for name, channel in QUIET.items() if name in self.fields}
        self.instance.quiet_windows = {**self.instance.quiet_windows, **windows}
        return given


@admin.register(Client)
class ClientAdmin(RetentionPages):
    """A manager sets the policies; what the client is called, and whether it is served, a superuser does."""

    client_path = "pk"
    to_add = SUPERUSER
    form = ClientForm
    list_display = ["name", "sub_domain", "is_active", "auto_reply", "becomes_stale", "expires", "created_at"]
    list_filter = ["is_active", "auto_reply"]
    search_fields = ["name", "sub_domain"]
    formfield_overrides = {models.DurationField: {"form_class": SpanField, "widget": UnfoldAdminTextInputWidget}}
    fieldsets = [
        (None, {"fields": [("name", "sub_domain"), "is_active"]}),
        ("Replies", {"fields": ["auto_reply", "answers_synced", "default_goal", "semantic_recall"]}),
        (
            BURSTS,
            {
                "fields": [tuple(QUIET), "longest_wait"],
                "description": "After how many seconds without a further message the assistant answers; 0: at once.",
            },
        ),
        ("People", {"fields": ["hand_back_after"]}),
        ("A session's life", {"fields": ["stale_after", "expire_after", "archive_after"]}),
        (
            "What is not kept",
            {
                "fields": ["redact_cards", "redaction_patterns"],
                "description": "Removed from whatever people, assistants and staff write, before it is kept or shown to"
                " a model. What was kept before stays as it is, and is no more shown to a model.",
            },
        ),
        ("For programs", {"fields": ["id", "created_at"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who may not change the quiet windows reads them in a line."""
        if self.has_change_permission(request, obj):
            return self.fieldsets
        return [
            (title, {**options, "fields": ["quiet", "longest_wait"]} if title == BURSTS else options)
            for title, options in self.fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """See the class."""
        return ["id", "created_at", "quiet", *([] if request.user.is_superuser else ONLY_SUPERUSERS)]

    def save_model(self, request: HttpRequest, obj: Client, form: Any, change: bool) -> None:
        """A new client gets its default assistant with it."""
        if change:
            super().save_model(request, obj, form, change)
        else:
            setup.open_for_business(obj)

    @admin.display(description="Seconds of silence awaited")
    def quiet(self, client: Client) -> str:
        """By channel."""
        return ", ".join(
            f"{channel} {seconds:g}" for channel, seconds in sorted(client.quiet_windows.items()) if seconds
        )

    @admin.display(description="Becomes stale after", ordering="stale_after")
    def becomes_stale(self, client: Client) -> str:
        """In words."""
        return in_words(client.stale_after)

    @admin.display(description="Expires after", ordering="expire_after")
    def expires(self, client: Client) -> str:
        """In words."""
        return in_words(client.expire_after)
