"""Clients and their policies: replies, bursts, timeouts, and what is not stored."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext, pgettext_lazy
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from channels_out.opt_out import HELP_TEXT
from conversations.admin import client_hours as hours_form
from conversations.admin.access import SUPERUSER
from conversations.admin.durations import DurationInWordsField
from conversations.admin.provider_choice import NamesProviders, check_own, narrow_to
from conversations.admin.retention import RetentionPage
from conversations.models import Client
from conversations.models.client import LONGEST_QUIET_WINDOW, validate_patterns
from conversations.services.core.durations import in_words
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import client_hours, day_quotas, provider_rules, setup
from conversations.words import lazy as _
from memory.redaction import CARD_REMOVED, REDACTED

SHARES = ("weight", "messages_per_minute", "replies_at_once")
DAY_QUOTAS = ("tokens_per_day", "cost_per_day")
ONLY_SUPERUSERS = ["name", "sub_domain", "is_active", *SHARES, *DAY_QUOTAS]
BURSTS = _("Bursts")
FOR_PROGRAMS = _("For programs")  # what a client has once it is stored
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


class ClientForm(hours_form.ClientHoursForm):
    """The form of a client. The quiet window of each channel is a field of its own."""

    quiet_whatsapp = _seconds("WhatsApp")
    quiet_messenger = _seconds("Messenger")
    quiet_sms = _seconds("SMS")
    quiet_orb = _seconds("Orb")
    quiet_voice = _seconds(_("Voice"))
    quiet_web = _seconds(_("Web"))
    redaction_patterns = PatternsField(
        label=_("Patterns to remove"),
        required=False,
        help_text=format_lazy(
            _("One pattern per line, in the syntax of RE2: {example} Text that matches is replaced by {mark}."),
            example="(?i)\\bIBAN [A-Z]{2}\\d{2}[A-Z0-9 ]{11,30}.",
            mark=REDACTED,
        ),
    )

    class Meta:
        model = Client
        exclude = ["quiet_windows"]  # the page's fieldsets say which of the others
        labels = {
            "is_active": pgettext_lazy("in use", "Active"),
            "requires_second_factor": _("A second factor is required"),
            "weight": _("Share"),
            "messages_per_minute": _("Messages a minute"),
            "replies_at_once": _("Replies at once"),
            "tokens_per_day": _("Tokens a day"),
            "cost_per_day": _("US dollars a day"),
            "quota_sentence": _("Sentence where a quota is used up"),
            "auto_reply": _("The assistant replies automatically"),
            "answers_synced": _("The assistant also replies in conversations of the sync protocol"),
            "numbers_apart": _("Each number has its own conversation with a person"),
            "default_goal": _("Goal of a new conversation"),
            "time_zone": _("Time zone"),
            "help_text": _("Answer to HELP on SMS"),
            "longest_wait": _("Longest wait"),
            "asks_before_takeover": _("Ask before a reply takes a conversation over"),
            "hand_back_after": _("A takeover ends after"),
            "when_away": _("Conversations that wait for a colleague who goes away"),
            "answer_within": _("Staff answer within"),
            "stale_after": _("A conversation becomes stale after"),
            "expire_after": _("A conversation expires after"),
            "archive_after": _("A conversation is archived after"),
            "redact_cards": _("Remove card numbers"),
            "summary_provider": _("Provider of summaries"),
            "summary_model": _("Model of summaries"),
            "embedding_provider": _("Provider of embeddings"),
            "transcription_provider": _("Provider of transcriptions"),
            "transcription_model": _("Model of transcriptions"),
            "transcribes": _("Write recordings down"),
            "semantic_recall": _("The assistant recalls earlier conversations on the same topic"),
        }
        help_texts = {
            "sub_domain": _("Lower-case letters, digits and hyphens. Programs name the client by it."),
            "is_active": _("Off: the client's API keys and messages are refused."),
            "requires_second_factor": _(
                "Members of the client, and superusers, sign in with an authenticator app or a"
                " passkey. Whoever has none sets one up before they go on, also where they are signed in already."
            ),
            "weight": _(
                "A client of share 2 gets twice as much of the dispatchers as one of share 1, where both wait."
            ),
            "messages_per_minute": _("Messages in Convo's own JSON for one web process. More are refused with a 429."),
            "replies_at_once": _("Replies that one dispatcher writes at a time. More wait."),
            "tokens_per_day": _("Tokens of language models, in and out. Empty: no quota."),
            "cost_per_day": _("What language models may cost, by the known prices. Empty: no quota."),
            "quota_sentence": _(
                "Sent once a day in a conversation; then a person is called. Empty: a person is called at"
                " once. Only superusers set the quotas."
            ),
            "auto_reply": _("Off: messages wait for a reply of the staff."),
            "answers_synced": _("Off: the agent that records a conversation by the sync protocol replies itself."),
            "numbers_apart": _(
                "Off: a person who writes to several numbers has one conversation, where one assistant"
                " answers on them. Numbers with assistants of their own are always apart."
            ),
            "default_goal": _(
                "What the assistant is to achieve, if whoever opens the conversation names no other goal."
            ),
            "time_zone": _("Such as Europe/Madrid or America/Bogota. The assistant is told the date and time there."),
            "help_text": format_lazy(
                _("Carriers want it to name the business and STOP. {name} stands for the client's name. Empty: {text}"),
                name="{business}",
                text=HELP_TEXT,
            ),
            "longest_wait": _("The assistant replies at the latest this long after the first unanswered message."),
            "asks_before_takeover": _("Off: whoever replies has the conversation, without a question."),
            "hand_back_after": _("The assistant goes on if the colleague who took over has not written for this long."),
            "when_away": _(
                "Where they go back, round robin or another colleague takes them. The same holds for colleagues who are"
                " let in no more; then whoever ends their access is asked."
            ),
            "answer_within": _("From when a conversation waits for a person. Such as 15 minutes. Empty: no promise."),
            "stale_after": _("Time without a message. The next message makes the conversation active again."),
            "expire_after": _("Time without a message. The next message opens a new conversation."),
            "semantic_recall": _(
                "The first message of a conversation is searched in the contact's earlier ones: by"
                " meaning if Pinecone is configured, otherwise by words. The first reply waits for the search."
            ),
            "redact_cards": format_lazy(
                _("13 to 19 digits with a valid check digit are replaced by {mark}."), mark=CARD_REMOVED
            ),
            "summary_provider": _("Empty: the installation's provider."),
            "summary_model": _("Empty: OPENAI_MODEL, at the installation's provider."),
            "embedding_provider": _("Makes the vectors of memory. Empty: the installation's provider."),
            "transcription_provider": _("Writes down recordings. Empty: the installation's provider."),
            "transcription_model": _("Empty: OPENAI_TRANSCRIPTION_MODEL."),
            "transcribes": _(
                "Voice notes and videos are written down before they are answered, where a provider of"
                " transcriptions is configured."
            ),
            "archive_after": _("Time after its end. The transcript is then kept in memory alone."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in QUIET.keys() & self.fields.keys():
            self.initial[name] = self.instance.quiet_windows.get(QUIET[name], 0)
        for name in {"time_zone", *SHARES} & self.fields.keys():
            self.fields[name].required = False
        narrow_to(None if self.instance._state.adding else self.instance, self, PROVIDERS)

    def clean_time_zone(self) -> str:
        """Return the time zone; the present one if the field is empty."""
        return str(self.cleaned_data["time_zone"] or self.instance.time_zone)

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values, with the quiet windows set on the client. Refuse providers that it cannot use."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        for name in SHARES:
            if name in given and given[name] is None:
                given[name] = getattr(self.instance, name)
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
    """Clients. Managers set the policies; only superusers set name, sub-domain and shares, and whether it is active."""

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
        (_("Shares"), {"fields": [*SHARES]}),
        (
            _("Quotas of a day"),
            {
                "fields": [DAY_QUOTAS, "quota_sentence", "used_today"],
                "description": _(
                    "The day is that of the client's time zone. Staff are warned at 80 %. Where a quota is"
                    " used up, messages are stored and replies wait for the next day."
                ),
            },
        ),
        (
            _("Replies"),
            {
                "fields": [
                    "auto_reply",
                    "answers_synced",
                    "numbers_apart",
                    "default_goal",
                    "time_zone",
                    "semantic_recall",
                    "help_text",
                ]
            },
        ),
        (
            _("Models"),
            {
                "fields": [
                    ("summary_provider", "summary_model"),
                    ("transcription_provider", "transcription_model"),
                    "transcribes",
                    "embedding_provider",
                ]
            },
        ),
        (
            BURSTS,
            {
                "fields": [*QUIET, "longest_wait"],
                "description": _("The assistant replies after this many seconds without another message. 0: at once."),
            },
        ),
        (_("Signing in"), {"fields": ["requires_second_factor"]}),
        (_("Takeovers"), {"fields": ["asks_before_takeover", "hand_back_after", "when_away"]}),
        *hours_form.FIELDSETS,
        (_("Timeouts"), {"fields": ["stale_after", "expire_after", "archive_after"]}),
        (
            _("What is not stored"),
            {
                "fields": ["redact_cards", "redaction_patterns"],
                "description": _(
                    "Removed from the messages of contacts, assistants and staff before they are stored or"
                    " shown to a model. Messages that are stored already stay as they are; models see them without it."
                ),
            },
        ),
        (FOR_PROGRAMS, {"fields": ["id", "created_at"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the groups of fields. Users who cannot change the quiet windows see them in one line."""
        shown = [(title, options) for title, options in self.fieldsets if obj or title != FOR_PROGRAMS]
        if self.has_change_permission(request, obj):
            return shown
        read_only = {
            BURSTS: ["quiet", "longest_wait"],
            hours_form.HOURS: ["hours_in_words"],
            hours_form.PROMISES: ["promises_in_words"],
        }
        return [
            (title, {**options, "fields": read_only[title]} if title in read_only else options)
            for title, options in shown
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that the user cannot change."""
        return [
            "id",
            "created_at",
            "quiet",
            "used_today",
            "hours_in_words",
            "promises_in_words",
            *([] if request.user.is_superuser else ONLY_SUPERUSERS),
        ]

    def save_model(self, request: HttpRequest, obj: Client, form: Any, change: bool) -> None:
        """Save the client. A new one gets a default assistant."""
        if change:
            super().save_model(request, obj, form, change)
            if {*DAY_QUOTAS} & {*form.changed_data}:
                day_quotas.release(obj, timezone.now())
        else:
            setup.store_client(obj)
        if {*hours_form.FIELDS} & {*form.changed_data}:
            client_hours.store(obj, form.values_of_hours())

    @admin.display(description=_("Quiet windows (seconds)"))
    def quiet(self, client: Client) -> str:
        """Return the quiet windows by channel."""
        return ", ".join(
            f"{channel} {seconds:g}" for channel, seconds in sorted(client.quiet_windows.items()) if seconds
        )

    @admin.display(description=_("Business hours"))
    def hours_in_words(self, client: Client) -> str:
        """Return the hours."""
        return hours_form.summary(client)

    @admin.display(description=_("Promises"))
    def promises_in_words(self, client: Client) -> str:
        """Return the promises."""
        return hours_form.promises_summary(client)

    @admin.display(description=_("Used today"))
    def used_today(self, client: Client) -> str:
        """Return what language models took today, and when staff were warned."""
        if client._state.adding:
            return "—"
        day = day_quotas.today(client, timezone.now())
        return (
            gettext("%(sentence)s Staff were warned at %(warned_time)s.")
            % {"sentence": day.sentence, "warned_time": day.warned_time}
            if day.warned_at
            else day.sentence
        )

    @admin.display(description=_("Becomes stale after"), ordering="stale_after")
    def becomes_stale(self, client: Client) -> str:
        """Return the time in words."""
        return in_words(client.stale_after)

    @admin.display(description=_("Expires after"), ordering="expire_after")
    def expires(self, client: Client) -> str:
        """Return the time in words."""
        return in_words(client.expire_after)
