"""The hours and promises of clients, and what waits for the next opening."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from conversations.models.checks import Rule, one_of
from conversations.models.client import LONGEST_SENTENCE, Client
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey

DEFAULT_SENTENCE = "Our colleagues are away right now. One of them answers you from {when} on."


def no_hours() -> list[Any]:
    """Return a week without hours."""
    return [[] for _day in range(7)]


class ClientHours(models.Model):
    """A client's business hours, what happens outside them, and what the client promises.

    There is a row only where a manager set something. The hours are in the client's time zone; services/core/hours.py
    reads them.
    """

    class Outside(models.TextChoices):
        """The choices of what happens outside the hours."""

        ALWAYS = "always", _("Nothing changes: people are handed over at once")
        ASSISTANT = "assistant", _("The assistant answers alone; every hand-over waits for the next opening")
        WISH = "wish", _("The same, but who asks for a person is handed over at once")

    client = models.OneToOneField(Client, on_delete=models.CASCADE, primary_key=True, related_name="+")
    # Seven lists, Monday first, of [begin, end] in minutes after midnight; all empty: hours are not set.
    week = models.JSONField(default=no_hours, db_default=[[], [], [], [], [], [], []])
    holidays = models.JSONField(default=list, db_default=[])  # of {"on": date, "name", "hours": as a day of the week}
    outside = models.CharField(max_length=10, choices=Outside, default=Outside.ALWAYS, db_default=Outside.ALWAYS)
    outside_sentence = models.TextField(
        blank=True,
        default=DEFAULT_SENTENCE,
        db_default=DEFAULT_SENTENCE,
        validators=[MaxLengthValidator(LONGEST_SENTENCE)],
    )
    outside_language = models.CharField(max_length=10, default="en", db_default="en")  # of the day in the sentence
    # Promises; Client.answer_within is the third. Null: no promise.
    first_response_within = models.DurationField(null=True, blank=True)
    resolve_within = models.DurationField(null=True, blank=True)
    counts_business_time = models.BooleanField(default=True, db_default=True)  # else time by the clock

    class Meta:
        db_table = "client_hours"
        constraints = [
            models.CheckConstraint(
                name="client_hours_outside_known", condition=one_of("outside", ("always", "assistant", "wish"))
            ),
            models.CheckConstraint(
                name="client_hours_are_of_a_week",
                condition=Rule("CASE WHEN jsonb_typeof({0}) = 'array' THEN jsonb_array_length({0}) END = 7", "week"),
            ),
            models.CheckConstraint(
                name="client_holidays_are_a_list", condition=Rule("jsonb_typeof({0}) = 'array'", "holidays")
            ),
            models.CheckConstraint(
                name="client_hours_promise_some_time",
                condition=(
                    models.Q(first_response_within__isnull=True) | models.Q(first_response_within__gt=timedelta(0))
                )
                & (models.Q(resolve_within__isnull=True) | models.Q(resolve_within__gt=timedelta(0))),
            ),
        ]

    def __str__(self) -> str:
        return f"hours of {self.client_id}"


class PendingHandover(OfClient):
    """A hand-over to a person that was noted outside the hours and happens at `due_at`, when the next opening begins.

    noted ──► gone    handed over (transitions/handovers.py), a colleague took it over or answered, or it ended
    """

    # Cascades in the database.
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    due_at = models.DateTimeField()
    reason = models.CharField(max_length=200, blank=True)
    actor = models.CharField(max_length=10)  # as in the ledger
    actor_name = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "desk_handovers"
        constraints = [models.UniqueConstraint(name="one_pending_handover", fields=["client", "conversation"])]
        # Used by the task of each minute: the clients that have any, and then each client's that are due.
        indexes = [models.Index(name="handovers_due", fields=["client", "due_at"])]

    def __str__(self) -> str:
        return f"hand-over of {self.conversation_id} at {self.due_at:%Y-%m-%d %H:%M}"
