"""E-mails to staff: what each person wants to be told, the mails, and which conversations each has told of."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from conversations.models.checks import none_negative, one_of
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey

LONGEST_MINUTES = 1440


class MailChoice(models.Model):
    """A user's own choice of e-mails. It belongs to the user, and to no client. Without a row there are none."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    address = models.EmailField()
    time_zone = models.CharField(max_length=64, default="UTC")
    # What waits for longer than so many minutes: conversations of their own, and of their clients that nobody has.
    tells_mine = models.BooleanField(default=False, db_default=False)
    tells_unassigned = models.BooleanField(default=False, db_default=False)
    after_minutes = models.PositiveSmallIntegerField(default=15, db_default=15)
    # What waits, once a day at this hour of theirs, where they are not in the back office.
    tells_digest = models.BooleanField(default=False, db_default=False)
    digest_hour = models.PositiveSmallIntegerField(default=8, db_default=8)
    here_at = models.DateTimeField(null=True)  # when they had the back office open last, give or take a minute

    class Meta:
        db_table = "mail_choices"
        constraints = [
            models.CheckConstraint(
                name="mail_choice_minutes_fit",
                condition=models.Q(after_minutes__gte=1, after_minutes__lte=LONGEST_MINUTES),
            ),
            models.CheckConstraint(name="mail_choice_hour_fits", condition=models.Q(digest_hour__lte=23)),
        ]

    def __str__(self) -> str:
        return f"e-mails to {self.user_id}"


class StaffMail(OfClient):
    """An e-mail to a member of staff about what waits at one client.

    queued ──► sent       the mail server took it
       │  ▲
       │  └── claimed     `lease_until` is set; after it, the claim was lost with its process
       ├────► dropped     nothing of it waits any more, or the user wants no such mail
       └────► failed      given up: refused for good, tried too often, or lost twice
    """

    class Kind(models.TextChoices):
        """The kinds."""

        WAITING = "waiting"
        DIGEST = "digest"

    class State(models.TextChoices):
        """The states; all but the first are final."""

        QUEUED = "queued"
        SENT = "sent"
        DROPPED = "dropped"
        FAILED = "failed"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind)
    day = models.DateField(null=True)  # of a digest, in the user's zone
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED, db_default=State.QUEUED)
    due_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)  # that the mail server did not take
    lost = models.PositiveSmallIntegerField(default=0, db_default=0)  # claims of which nobody knows what became of them
    error = models.CharField(max_length=100, blank=True, default="", db_default="")  # a class or code, never an address
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "staff_mails"
        constraints = [
            models.UniqueConstraint(
                name="one_digest_a_day", fields=["client", "user", "day"], condition=models.Q(day__isnull=False)
            ),
            models.CheckConstraint(
                name="staff_mail_state_known", condition=one_of("state", ("queued", "sent", "dropped", "failed"))
            ),
            models.CheckConstraint(name="staff_mail_kind_known", condition=one_of("kind", ("waiting", "digest"))),
            models.CheckConstraint(name="staff_mail_counts_from_zero", condition=none_negative("attempts", "lost")),
        ]
        indexes = [
            # Used by the task of each minute: the clients with mails to send, and then each client's.
            models.Index(name="staff_mails_queued", fields=["client", "due_at"], condition=models.Q(state="queued")),
            # Used by their deletion.
            models.Index(name="staff_mails_by_age", fields=["client", "created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.user_id}"


class MailMark(OfClient):
    """That a user was told, or is about to be, that a conversation waits since this time. It is told once."""

    # Both cascade in the database.
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    mail = SameClientKey(
        StaffMail, on_delete=models.DO_NOTHING, related_name="marks", db_constraint=False, db_index=False
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    since = models.DateTimeField()

    class Meta:
        db_table = "staff_mail_marks"
        constraints = [
            models.UniqueConstraint(name="told_once", fields=["client", "conversation", "user", "since"]),
        ]
        # Used by the sending of a mail, and by its deletion.
        indexes = [models.Index(name="marks_of_mail", fields=["client", "mail"])]

    def __str__(self) -> str:
        return f"{self.user_id} was told of {self.conversation_id}"
