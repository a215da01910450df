"""The figures of each quarter of an hour, from which reports are made, and their sums by day. They hold no words and
name no contact."""

from __future__ import annotations

import uuid

from django.db import models

from conversations.models.client import Client
from conversations.models.of_client import OfClient

NOBODY = uuid.UUID(int=0)


class Split(OfClient):
    """A row of some time, for one combination of what reports are split by.

    NOBODY and 0 stand for none: no assistant, no colleague. Rows without a label and a team count every conversation; a
    row with one of them, or both, counts the conversations that have it, once more.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    label_id = models.BigIntegerField(default=0, db_default=0)
    team_id = models.BigIntegerField(default=0, db_default=0)
    channel = models.CharField(max_length=10)
    assistant_id = models.UUIDField(default=NOBODY, db_default=NOBODY)
    colleague_id = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        abstract = True


class OfQuarter(Split):
    """A row of one quarter of an hour.

    `of_deleted` marks what was counted when conversations were deleted before their quarter was
    (services/figures/deleted.py).
    """

    quarter = models.DateTimeField()
    of_deleted = models.BooleanField(default=False, db_default=False)

    class Meta:
        abstract = True


class OfDay(Split):
    """A row of one day of the client's time zone."""

    day = models.DateTimeField()  # its beginning

    class Meta:
        abstract = True


# What a row is of, in the order of its key: reports read one label and team, or none, over a range of time.
DIMENSIONS = ("client", "label_id", "team_id", "quarter", "channel", "assistant_id", "colleague_id", "of_deleted")
DAY_DIMENSIONS = ("client", "label_id", "team_id", "day", "channel", "assistant_id", "colleague_id")


class Sums(models.Model):
    """The sums of some time. services/figures/counting.py says what each counts."""

    opened = models.IntegerField(default=0, db_default=0)
    ended = models.IntegerField(default=0, db_default=0)
    answered_alone = models.IntegerField(default=0, db_default=0)
    handed_over = models.IntegerField(default=0, db_default=0)
    late = models.IntegerField(default=0, db_default=0)
    messages_in = models.IntegerField(default=0, db_default=0)
    messages_out = models.IntegerField(default=0, db_default=0)
    asked = models.IntegerField(default=0, db_default=0)
    ratings = models.IntegerField(default=0, db_default=0)
    satisfied = models.IntegerField(default=0, db_default=0)
    rating_sum = models.IntegerField(default=0, db_default=0)
    tokens = models.BigIntegerField(default=0, db_default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=8, default=0, db_default=0, help_text="US dollars.")

    class Meta:
        abstract = True


COLUMNS = tuple(field.name for field in Sums._meta.local_fields)


class QuarterFigures(OfQuarter, Sums):
    """The sums of a quarter of an hour."""

    class Meta:
        db_table = "quarter_figures"
        constraints = [models.UniqueConstraint(name="one_row_of_a_quarter", fields=DIMENSIONS)]

    def __str__(self) -> str:
        return f"{self.quarter:%Y-%m-%d %H:%M} {self.channel}"


class DayFigures(OfDay, Sums):
    """The sums of a day, of all its quarters."""

    class Meta:
        db_table = "day_figures"
        constraints = [models.UniqueConstraint(name="one_row_of_a_day", fields=DAY_DIMENSIONS)]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d %H:%M} {self.channel}"


class QuarterTimes(OfQuarter):
    """How many times of a kind fell into a bucket (services/figures/buckets.py), in a quarter of an hour."""

    class Kind(models.TextChoices):
        """The kinds of times."""

        FIRST_RESPONSE = "first"
        RESOLUTION = "resolution"

    kind = models.CharField(max_length=10, choices=Kind)
    bucket = models.SmallIntegerField()
    number = models.IntegerField()

    class Meta:
        db_table = "quarter_times"
        constraints = [
            models.UniqueConstraint(name="one_bucket_of_a_quarter", fields=[*DIMENSIONS, "kind", "bucket"]),
            models.CheckConstraint(name="time_kind_known", condition=models.Q(kind__in=["first", "resolution"])),
        ]

    def __str__(self) -> str:
        return f"{self.number} in bucket {self.bucket}"


class DayTimes(OfDay):
    """The number of times of a kind that fell into a bucket, in a day."""

    kind = models.CharField(max_length=10, choices=QuarterTimes.Kind)
    bucket = models.SmallIntegerField()
    number = models.IntegerField()

    class Meta:
        db_table = "day_times"
        constraints = [models.UniqueConstraint(name="one_bucket_of_a_day", fields=[*DAY_DIMENSIONS, "kind", "bucket"])]

    def __str__(self) -> str:
        return f"{self.number} in bucket {self.bucket}"


class DaysSummed(models.Model):
    """The days of a client that are summed: every one before `upto`, of this time zone."""

    client = models.OneToOneField(Client, on_delete=models.CASCADE, primary_key=True, related_name="+")
    zone = models.CharField(max_length=64)
    upto = models.DateTimeField()

    class Meta:
        db_table = "days_summed"

    def __str__(self) -> str:
        return f"up to {self.upto:%Y-%m-%d %H:%M}, {self.zone}"


class FiguresDone(models.Model):
    """How far the figures of the installation are counted: every quarter before `upto`. It has one row."""

    upto = models.DateTimeField()

    class Meta:
        db_table = "figures_done"
        constraints = [models.CheckConstraint(name="figures_done_once", condition=models.Q(pk=1))]

    def __str__(self) -> str:
        return f"up to {self.upto:%Y-%m-%d %H:%M}"
