"""The clients (tenants), their API keys, and the staff who may see them."""

from __future__ import annotations

import uuid
import zoneinfo
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from channels_out.kinds import Channel
from conversations.models.checks import one_of
from conversations.models.choices import Choices
from memory.redaction import MAX_PATTERNS, pattern_problem

DEFAULT_GOAL = "Handle inbound enquiry"

sub_domain_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
    _("A sub-domain is 1 to 63 lower-case letters, digits and hyphens, and neither starts nor ends with a hyphen."),
)


# Seconds. People write texts in bursts; calls and web pages get their reply at once.
QUIET_WINDOWS = {channel.value: 0 if channel in (Channel.VOICE, Channel.WEB) else 1.5 for channel in Channel}
LONGEST_QUIET_WINDOW = 60
MOST_WEIGHT = 100
LONGEST_SENTENCE = 1_000


def default_quiet_windows() -> dict[str, float]:
    """Return the quiet windows of a new client."""
    return dict(QUIET_WINDOWS)


def validate_patterns(value: Any) -> None:
    """Raise ValidationError if the value is no list of valid redaction patterns."""
    problem = pattern_problem(value) if isinstance(value, list) else _("The patterns must be a list.")
    if problem:
        raise ValidationError(problem, code="unfit_patterns")


class _AreTexts(models.Func):
    """The condition that a JSON value is a list of at most MAX_PATTERNS texts."""

    template = (
        'jsonb_path_match(%(expressions)s, \'$.type() == "array" && '
        f'$.size() <= {MAX_PATTERNS} && !exists($[*] ? (@.type() != "string"))\')'
    )
    output_field = models.BooleanField()


class _AreSeconds(models.Func):
    """The condition that every value of a JSON object is a number from 0 to LONGEST_QUIET_WINDOW."""

    template = (
        'jsonb_path_match(%(expressions)s, \'$.type() == "object" && '
        f'!exists($.* ? (@.type() != "number" || @ < 0 || @ > {LONGEST_QUIET_WINDOW}))\')'
    )
    output_field = models.BooleanField()


def validate_time_zone(name: str) -> None:
    """Raise ValidationError unless the IANA database has a time zone of the name."""
    if name not in available_time_zones():
        raise ValidationError(_("Write the name of a time zone, such as Europe/Madrid or America/Bogota."))


@cache
def available_time_zones() -> frozenset[str]:
    """Return the names of the time zones in the IANA database."""
    return frozenset(zoneinfo.available_timezones())


class WhenAway(models.TextChoices):
    """The choices of what becomes of conversations that wait for a colleague who goes away or may answer no more."""

    KEEP = "keep", _("They stay with the colleague")
    ASK = "ask", _("The colleague is asked")
    GIVE_BACK = "give_back", _("They go back to their team, or to unassigned")


class Client(models.Model):
    """A tenant: a business whose assistants talk to people. Its policies set how conversations age and who answers."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    sub_domain = models.CharField(max_length=63, unique=True, validators=[sub_domain_validator])
    is_active = models.BooleanField(default=True, db_default=True)
    requires_second_factor = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether members, and superusers, need a second factor to sign in.",
    )
    auto_reply = models.BooleanField(
        default=True, db_default=True, help_text="Whether the assistant answers by itself what people write."
    )
    answers_synced = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether the assistant also answers what agents record by the sync protocol.",
    )
    numbers_apart = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether a person who writes to two of the client's numbers has a conversation with each.",
    )
    default_goal = models.TextField(default=DEFAULT_GOAL, db_default=DEFAULT_GOAL)
    help_text = models.TextField(blank=True, default="", db_default="")  # the answer to HELP on SMS; '': HELP_TEXT
    # Seconds by channel; a channel without a number has no quiet window.
    quiet_windows = models.JSONField(default=default_quiet_windows, db_default=QUIET_WINDOWS)
    longest_wait = models.DurationField(default=timedelta(seconds=6), db_default=timedelta(seconds=6))
    hand_back_after = models.DurationField(default=timedelta(hours=2), db_default=timedelta(hours=2))
    asks_before_takeover = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether staff are asked before their reply takes a conversation over from the assistant.",
    )
    when_away = models.CharField(max_length=10, choices=WhenAway, default=WhenAway.ASK, db_default=WhenAway.ASK)
    # What staff promise: a conversation that waits for a person for longer is late. Empty: no promise.
    answer_within = models.DurationField(null=True, blank=True)
    stale_after = models.DurationField(default=timedelta(minutes=10), db_default=timedelta(minutes=10))
    expire_after = models.DurationField(default=timedelta(hours=24), db_default=timedelta(hours=24))
    archive_after = models.DurationField(default=timedelta(days=30), db_default=timedelta(days=30))
    semantic_recall = models.BooleanField(
        default=False,
        db_default=False,
        help_text="With the first message of a conversation, tell the assistant of earlier ones on the same subject.",
    )
    time_zone = models.CharField(
        max_length=64, default="UTC", db_default="UTC", validators=[validate_time_zone]
    )  # the name of the IANA database; assistants are told its date and time
    # Who writes summaries and makes the vectors of global memory. Null: the installation's provider.
    summary_provider = models.ForeignKey(
        "conversations.ModelProvider", on_delete=models.RESTRICT, null=True, blank=True, related_name="+"
    )
    summary_model = models.CharField(max_length=100, blank=True, default="", db_default="")
    embedding_provider = models.ForeignKey(
        "conversations.ModelProvider", on_delete=models.RESTRICT, null=True, blank=True, related_name="+"
    )
    # Who writes down recordings. Null: the installation's provider; no model: OPENAI_TRANSCRIPTION_MODEL.
    transcription_provider = models.ForeignKey(
        "conversations.ModelProvider", on_delete=models.RESTRICT, null=True, blank=True, related_name="+"
    )
    transcription_model = models.CharField(max_length=100, blank=True, default="", db_default="")
    transcribes = models.BooleanField(default=True, db_default=True)  # where there is such a provider
    # The redaction of every text before it is stored or shown to a model: see memory/redaction.py.
    redact_cards = models.BooleanField(default=True, db_default=True)
    redaction_patterns = models.JSONField(blank=True, default=list, db_default=[], validators=[validate_patterns])
    # The client's share of a dispatcher where others wait as well: see services/core/slots.py.
    weight = models.PositiveSmallIntegerField(default=1, db_default=1)
    # Quotas: messages in our own JSON for each web process (tenants/quotas.py), replies in flight for each dispatcher.
    messages_per_minute = models.PositiveIntegerField(default=600_000, db_default=600_000)
    replies_at_once = models.PositiveSmallIntegerField(default=1_000, db_default=1_000)
    # Quotas of language models for each day of the client (tenants/day_quotas.py). Null: no quota.
    tokens_per_day = models.BigIntegerField(null=True, blank=True)
    cost_per_day = models.DecimalField(max_digits=12, decimal_places=2, null=True, blank=True)  # US dollars
    # What people read once a day in a conversation while such a quota is used up. Empty: a person is called.
    quota_sentence = models.TextField(
        blank=True, default="", db_default="", validators=[MaxLengthValidator(LONGEST_SENTENCE)]
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "clients"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="client_ages_in_order",
                condition=models.Q(stale_after__gt=timedelta(0), expire_after__gte=models.F("stale_after")),
                violation_error_message=_(
                    "A conversation must become stale after some time, and expire no sooner than that."
                ),
            ),
            models.CheckConstraint(name="client_archives_later", condition=models.Q(archive_after__gte=timedelta(0))),
            models.CheckConstraint(
                name="client_waits_for_bursts_a_while",
                condition=models.Q(longest_wait__gte=timedelta(0), longest_wait__lte=timedelta(minutes=10)),
                violation_error_message=_("A burst is answered within 10 minutes."),
            ),
            models.CheckConstraint(
                name="client_names_its_summary_model",
                condition=models.Q(summary_provider__isnull=True) | ~models.Q(summary_model=""),
                violation_error_message=_("A provider of summaries needs a model."),
            ),
            models.CheckConstraint(
                name="client_hands_back_later",
                condition=models.Q(hand_back_after__gt=timedelta(0)),
                violation_error_message=_("A takeover must last some time."),
            ),
            models.CheckConstraint(name="client_when_away_known", condition=one_of("when_away", WhenAway)),
            models.CheckConstraint(
                name="client_promises_some_time",
                condition=models.Q(answer_within__isnull=True) | models.Q(answer_within__gt=timedelta(0)),
                violation_error_message=_("A promise needs some time. Without one it is empty."),
            ),
            # Every webhook reads the values as numbers.
            models.CheckConstraint(
                name="client_quiet_windows_are_seconds", condition=models.Q(_AreSeconds("quiet_windows"))
            ),
            models.CheckConstraint(
                name="client_weighs_something",
                condition=models.Q(weight__gte=1, weight__lte=MOST_WEIGHT),
                violation_error_message=_("A weight is a number from 1 to 100."),
            ),
            models.CheckConstraint(
                name="client_quotas_allow_something",
                condition=models.Q(messages_per_minute__gte=1, replies_at_once__gte=1),
                violation_error_message=_("A quota is at least 1."),
            ),
            models.CheckConstraint(
                name="client_day_quotas_allow_something",
                condition=(models.Q(tokens_per_day__isnull=True) | models.Q(tokens_per_day__gte=1))
                & (models.Q(cost_per_day__isnull=True) | models.Q(cost_per_day__gt=0)),
                violation_error_message=_("A quota of a day is more than 0. Without one it is empty."),
            ),
            models.CheckConstraint(
                name="client_redaction_patterns_are_texts", condition=models.Q(_AreTexts("redaction_patterns"))
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def quiet_window(self, channel: str) -> timedelta:
        """Return how long the assistant waits for another message after one on the channel."""
        return timedelta(seconds=self.quiet_windows.get(channel, 0))


class Scope(Choices):
    """The permissions of API keys. `admin` stands for all of them but `private:read`, which is always given by name."""

    MESSAGES_WRITE = "messages:write", "messages:write - pass on people's messages, and send messages"
    CONVERSATIONS_READ = "conversations:read", "conversations:read - read conversations, events and what waits"
    CONVERSATIONS_WRITE = "conversations:write", "conversations:write - open, steer and close conversations"
    MEMORY_READ = "memory:read", "memory:read - search ended conversations"
    PRIVATE_READ = "private:read", "private:read - the same for the private conversations of the copilot's users"
    ADMIN = "admin", "admin - all of these but private:read"


# The scopes of a key that names none, and of keys from before there were scopes.
USUAL_SCOPES = [
    *(Scope.MESSAGES_WRITE.value, Scope.CONVERSATIONS_READ.value),
    *(Scope.CONVERSATIONS_WRITE.value, Scope.MEMORY_READ.value),
]


def usual_scopes() -> list[str]:
    """Return the scopes of a key that names none."""
    return list(USUAL_SCOPES)


class ApiKey(models.Model):
    """A key for programs that act for one client. Only its SHA-256 is stored: the key has 256 random bits."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, default="key")
    prefix = models.CharField(max_length=16, help_text="The key's beginning, to tell keys apart.")
    key_hash = models.BinaryField(max_length=32, unique=True)
    scopes = models.JSONField(default=usual_scopes, db_default=USUAL_SCOPES)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(
        null=True, blank=True, help_text="The key is refused from then on. Leave it empty for a key without an end."
    )
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "api_keys"
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                name="api_key_scopes_known", condition=models.Q(scopes__contained_by=list(Scope.values))
            ),
            models.CheckConstraint(name="api_key_has_a_scope", condition=~models.Q(scopes=[])),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}…"

    def allows(self, scope: str) -> bool:
        """Return whether the key may do what the scope stands for. `core/key_sql.py` says the same in SQL."""
        return scope in self.scopes or (scope != Scope.PRIVATE_READ and Scope.ADMIN in self.scopes)


class Membership(models.Model):
    """A Django user's role for a client. Superusers see all clients."""

    class Role(Choices):
        """The roles; each includes the one before."""

        VIEWER = "viewer"
        AGENT = "agent"
        MANAGER = "manager"

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.VIEWER)
    sees_receipts = models.BooleanField(
        "sees what the model was given",
        default=False,
        db_default=False,
        help_text="The messages and the system prompt that each reply was written from. Managers always see them.",
    )
    # The person's own switch in the inbox: round robin gives conversations to those who are available.
    is_available = models.BooleanField(default=False, db_default=False, editable=False)
    # The identity provider whose groups gave the role; '' for one that a colleague gave. A sign-in by the provider
    # changes and deletes only its own.
    provider = models.CharField(max_length=40, blank=True, default="", db_default="", editable=False)

    class Meta:
        db_table = "memberships"
        constraints = [
            models.UniqueConstraint(name="one_membership_per_client", fields=["client", "user"]),
            models.CheckConstraint(
                name="membership_role_known", condition=models.Q(role__in=["viewer", "agent", "manager"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.client}"
