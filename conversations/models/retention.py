"""The retention policies of clients, and the reports of what each run deleted."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import Channel
from conversations.models.choices import CHANNELS, Choices
from conversations.models.client import Client

FOR_EVER = 36_500  # days: a hundred years


class RetentionRule(Choices):
    """The kinds of data with a retention period, and the start of their age."""

    GUESTS = "guests", "Expired conversations of guests, after their end"
    WEB = "web", "Open conversations on the web, after the last message"
    SESSIONS = "sessions", "Ended conversations and what memory has of them, after their end"
    MEMORY = "memory", "What memory has of ended conversations (archived transcripts), after their end"
    TURNS = "turns", "What the model was given and wrote (turns), after the conversation's end"
    SENDS = "receipts", "Sends and their receipts, after the conversation's end"  # the stored value keeps its old name
    EVENTS = "events", "Raw payloads that became no message, after they arrived"

    @property
    def shown(self) -> str:
        """The rule's name for people and commands, such as "sends"."""
        return self.name.lower()


BY_STATUS = (
    RetentionRule.SESSIONS,
    RetentionRule.TURNS,
    RetentionRule.SENDS,
)  # rules whose days may differ by the status in which the conversation ended
ENDED_STATUSES = ("closed", "expired", "archived")


class RetentionPolicy(models.Model):
    """The number of days that a client keeps the data of a rule.

    The most specific policy counts: one for the channel before one for all channels, then one for the status. Without
    a policy the rule's setting counts.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="retention_policies", db_index=False)
    rule = models.CharField(max_length=10, choices=RetentionRule)
    channel = models.CharField(max_length=10, choices=CHANNELS, blank=True, default="")
    status = models.CharField(max_length=10, choices=[(s, s) for s in ENDED_STATUSES], blank=True, default="")
    days = models.PositiveIntegerField()

    class Meta:
        db_table = "retention_policies"
        ordering = ["client", "rule", "channel", "status"]
        verbose_name_plural = "retention policies"
        constraints = [
            # Used by every rule, for each row that it reads.
            models.UniqueConstraint(
                name="one_retention_policy_a_place", fields=["client", "rule", "channel", "status"]
            ),
            models.CheckConstraint(
                name="retention_rule_known", condition=models.Q(rule__in=[r.value for r in RetentionRule])
            ),
            models.CheckConstraint(
                name="retention_channel_known",
                condition=models.Q(channel__in=["", *(c.value for c in Channel)]),
            ),
            models.CheckConstraint(
                name="retention_status_only_where_it_matters",
                condition=models.Q(status="")
                | models.Q(status__in=ENDED_STATUSES, rule__in=[rule.value for rule in BY_STATUS]),
            ),
            models.CheckConstraint(name="retention_days_possible", condition=models.Q(days__lte=FOR_EVER)),
        ]

    def __str__(self) -> str:
        where = " ".join(word for word in (self.channel, self.status) if word)
        return f"{self.rule}{f' ({where})' if where else ''}: {self.days} days"


class RetentionReport(models.Model):
    """The data of one client (or of no client) that one run deleted.

    `lines` has one object for each rule: {"rule", "deleted", "oldest", "held_back", "error"}. A run without anything to
    delete leaves a report without lines. `run` is the same for all reports of a run; `by` is the job, the command or
    the person who started it.
    """

    run = models.UUIDField(default=uuid.uuid4)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    by = models.CharField(max_length=150)
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(db_default=Now())
    lines: models.JSONField[list[dict[str, Any]], list[dict[str, Any]]] = models.JSONField(default=list)

    class Meta:
        db_table = "retention_reports"
        ordering = ["-id"]
        indexes = [
            # Used by the list of reports: a client's newest first.
            models.Index(name="retention_reports_of_client", fields=["client", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.by}, {self.started_at:%Y-%m-%d %H:%M}"
