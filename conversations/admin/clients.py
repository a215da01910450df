"""Clients and their policies: replies, bursts, timeouts, and what is not stored."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from conversations.admin.access import SUPERUSER
from conversations.admin.durations import DurationInWordsField
from conversations.admin.provider_choice import NamesProviders, check_own, narrow_to
from conversations.admin.retention import RetentionPage
from conversations.models import Client
from conversations.models.client import LONGEST_QUIET_WINDOW, validate_patterns
from conversations.services.core.durations import in_words
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import provider_rules, setup
from memory.redaction import CARD_REMOVED, REDACTED

ONLY_SUPERUSERS = ["name", "sub_domain", "is_active"]
BURSTS = "Bursts"
PROVIDERS = ("summary_provider", "embedding_provider", "transcription_provider")
QUIET = {f"quiet_{channel}": channel for channel in ("whatsapp", "messenger", "sms", "orb", "voice", "web")}


def _seconds(channel: str) -> forms.FloatField:
    widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    return forms.FloatField(label=channel, min_value=0, max_value=LONGEST_QUIET_WINDOW, required=False, widget=widget)


class PatternsField(forms.CharField):
    """A text area for a list of patterns, one per line."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        """Return the patterns as text."""
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """Return the patterns as a list."""
        return value if isinstance(value, list) else [line for line in (value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the lists differ."""
        return bool(self.to_python(initial) != self.to_python(data))

    def validate(self, value: Any) -> None:
        """Raise ValidationError with a sentence about the first pattern that is refused."""
        validate_patterns(value)


class ClientForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a client. The quiet window of each channel is a field of its own."""

    quiet_whatsapp = _seconds("WhatsApp")
    quiet_messenger = _seconds("Messenger")
    quiet_sms = _seconds("SMS")
    quiet_orb = _seconds("Orb")
    quiet_voice = _seconds("Voice")
    quiet_web = _seconds("Web")
    redaction_patterns = PatternsField(
        label="Patterns to remove",
        required=False,
        help_text="One pattern per line, in the syntax of RE2: (?i)\\bIBAN [A-Z]{2}\\d{2}[A-Z0-9 ]{11,30}."
        f" Text that matches is replaced by {REDACTED}.",
    )

    class Meta:
        model = Client
        exclude = ["quiet_windows"]  # noqa: DJ006 - the page's fieldsets say which of the others
        labels = {
            "is_active": "Active",
            "auto_reply": "The assistant replies automatically",
            "answers_synced": "The assistant also replies in conversations of the sync protocol",
            "default_goal": "Goal of a new conversation",
            "time_zone": "Time zone",
            "longest_wait": "Longest wait",
            "hand_back_after": "A takeover ends after",
            "stale_after": "A conversation becomes stale after",
            "expire_after": "A conversation expires after",
            "archive_after": "A conversation is archived after",
            "redact_cards": "Remove card numbers",
            "summary_provider": "Provider of summaries",
            "summary_model": "Model of summaries",
            "embedding_provider": "Provider of embeddings",
            "transcription_provider": "Provider of transcriptions",
            "transcription_model": "Model of transcriptions",
            "semantic_recall": "The assistant recalls earlier conversations on the same topic",
        }
        help_texts = {
            "sub_domain": "Lower-case letters, digits and hyphens. Programs name the client by it.",
            "is_active": "Off: the client's API keys and messages are refused.",
            "auto_reply": "Off: messages wait for a reply of the staff.",
            "answers_synced": "Off: the agent that records a conversation by the sync protocol replies itself.",
            "default_goal": "What the assistant is to achieve, if whoever opens the conversation names no other goal.",
            "time_zone": "Such as Europe/Madrid or America/Bogota. The assistant is told the date and time there.",
            "longest_wait": "The assistant replies at the latest this long after the first unanswered message.",
            "hand_back_after": "The assistant goes on if the colleague who took over has not written for this long.",
            "stale_after": "Time without a message. The next message makes the conversation active again.",
            "expire_after": "Time without a message. The next message opens a new conversation.",
            "semantic_recall": "The first message of a conversation is searched in the contact's earlier ones: by"
            " meaning if Pinecone is configured, otherwise by words. The first reply waits for the search.",
            "redact_cards": f"13 to 19 digits with a valid check digit are replaced by {CARD_REMOVED}.",
            "summary_provider": "Empty: the installation's provider.",
            "summary_model": "Empty: OPENAI_MODEL, at the installation's provider.",
            "embedding_provider": "Makes the vectors of memory. Empty: the installation's provider.",
            "transcription_provider": "Writes down recordings. Empty: the installation's provider.",
            "transcription_model": "Empty: OPENAI_TRANSCRIPTION_MODEL.",
            "archive_after": "Time after its end. The transcript is then kept in memory alone.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in QUIET.keys() & self.fields.keys():
            self.initial[name] = self.instance.quiet_windows.get(QUIET[name], 0)
        if "time_zone" in self.fields:
            self.fields["time_zone"].required = False
        narrow_to(None if self.instance._state.adding else self.instance, self, PROVIDERS)

    def clean_time_zone(self) -> str:
        """Return the time zone; the present one if the field is empty."""
        return str(self.cleaned_data["time_zone"] or self.instance.time_zone)

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values, with the quiet windows set on the client. Refuse providers that it cannot use."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        windows = {channel: given.get(name) or 0 for name, channel in QUIET.items() if name in self.fields}
        self.instance.quiet_windows = {**self.instance.quiet_windows, **windows}
        check_own(self.instance, self, PROVIDERS)
        checks = {
            "embedding_provider": provider_rules.check_embeds,
            "transcription_provider": provider_rules.check_transcribes,
        }
        for name, check in checks.items():
            try:
                check(given.get(name))
            except InvalidError as error:
                self.add_error(name, str(error))
        return given


@admin.register(Client)
class ClientAdmin(RetentionPage, NamesProviders):
    """Clients. Managers set the policies; only superusers set the name, the sub-domain and whether it is active."""

    client_path = "pk"
    add_role = SUPERUSER
    form = ClientForm
    list_display = ["name", "sub_domain", "is_active", "auto_reply", "becomes_stale", "expires", "created_at"]
    list_filter = ["is_active", "auto_reply"]
    search_fields = ["name", "sub_domain"]
    formfield_overrides = {
        models.DurationField: {"form_class": DurationInWordsField, "widget": UnfoldAdminTextInputWidget}
    }
    fieldsets = [
        (None, {"fields": [("name", "sub_domain"), "is_active"]}),
        ("Replies", {"fields": ["auto_reply", "answers_synced", "default_goal", "time_zone", "semantic_recall"]}),
        (
            "Models",
            {
                "fields": [
                    ("summary_provider", "summary_model"),
                    ("transcription_provider", "transcription_model"),
                    "embedding_provider",
                ]
            },
        ),
        (
            BURSTS,
            {
                "fields": [tuple(QUIET)[:3], tuple(QUIET)[3:], "longest_wait"],
                "description": "The assistant replies after this many seconds without another message. 0: at once.",
            },
        ),
        ("Takeovers", {"fields": ["hand_back_after"]}),
        ("Timeouts", {"fields": ["stale_after", "expire_after", "archive_after"]}),
        (
            "What is not stored",
            {
                "fields": ["redact_cards", "redaction_patterns"],
                "description": "Removed from the messages of contacts, assistants and staff before they are stored or"
                " shown to a model. Messages that are stored already stay as they are; models see them without it.",
            },
        ),
        ("For programs", {"fields": ["id", "created_at"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. Users who cannot change the quiet windows see them in one line."""
        if self.has_change_permission(request, obj):
            return self.fieldsets
        return [
            (title, {**options, "fields": ["quiet", "longest_wait"]} if title == BURSTS else options)
            for title, options in self.fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that the user cannot change."""
        return ["id", "created_at", "quiet", *([] if request.user.is_superuser else ONLY_SUPERUSERS)]

    def save_model(self, request: HttpRequest, obj: Client, form: Any, change: bool) -> None:
        """Save the client. A new one gets a default assistant."""
        if change:
            super().save_model(request, obj, form, change)
        else:
            setup.store_client(obj)

    @admin.display(description="Quiet windows (seconds)")
    def quiet(self, client: Client) -> str:
        """Return the quiet windows by channel."""
        return ", ".join(
            f"{channel} {seconds:g}" for channel, seconds in sorted(client.quiet_windows.items()) if seconds
        )

    @admin.display(description="Becomes stale after", ordering="stale_after")
    def becomes_stale(self, client: Client) -> str:
        """Return the time in words."""
        return in_words(client.stale_after)

    @admin.display(description="Expires after", ordering="expire_after")
    def expires(self, client: Client) -> str:
        """Return the time in words."""
        return in_words(client.expire_after)
