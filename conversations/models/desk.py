"""The tables of the desk: notes of staff beside conversations. An append of a message touches none of these tables."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from conversations.models.checks import one_of
from conversations.models.client import Client
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey
from conversations.models.teams import Team

LONGEST_NOTE = 20_000  # characters
LONGEST_REPLY = 10_000  # characters of a canned reply


def _conversation() -> models.ForeignKey[Conversation, Conversation]:
    # Cascades in the database.
    return SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )


class DeskState(OfClient):
    """The state of a conversation at the desk: who is responsible (a person, a team, or a member of a team), how urgent
    it is, until when it is out of sight.

    There is a row only where staff set something. A snooze is over at `snoozed_until`, or with the person's next
    message: `snoozed_sequence` is the conversation's inbound sequence at the time.
    """

    class Priority(models.IntegerChoices):
        """The priorities; the screen names all but the first."""

        NORMAL = 0
        HIGH = 1
        URGENT = 2

    conversation = _conversation()
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    # Set to null by services/desk/teams.py before a team is deleted.
    team = SameClientKey(Team, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False)
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL, db_default=Priority.NORMAL)
    snoozed_until = models.DateTimeField(null=True)
    snoozed_sequence = models.IntegerField(null=True)

    class Meta:
        db_table = "desk_states"
        # Used where a team is deleted.
        indexes = [
            models.Index(name="states_of_team", fields=["client", "team"], condition=models.Q(team__isnull=False))
        ]
        constraints = [
            models.UniqueConstraint(name="one_desk_state", fields=["client", "conversation"]),
            models.CheckConstraint(name="desk_priority_known", condition=models.Q(priority__in=[0, 1, 2])),
            models.CheckConstraint(
                name="desk_snooze_has_both",
                condition=models.Q(snoozed_until__isnull=True, snoozed_sequence__isnull=True)
                | models.Q(snoozed_until__isnull=False, snoozed_sequence__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"state of {self.conversation_id}"


class Label(models.Model):
    """A word of a client's by which staff sort conversations."""

    COLOURS = ("grey", "red", "amber", "green", "blue", "violet")

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="labels", db_index=False)
    name = models.CharField(max_length=40)
    colour = models.CharField(
        max_length=10, choices=[(each, each) for each in COLOURS], default="grey", db_default="grey"
    )

    class Meta:
        db_table = "desk_labels"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(name="one_label_of_a_name", fields=["client", "name"]),
            models.CheckConstraint(
                name="label_colour_known",
                condition=one_of("colour", ("grey", "red", "amber", "green", "blue", "violet")),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ConversationLabel(OfClient):
    """A label on a conversation."""

    conversation = _conversation()
    label = SameClientKey(Label, on_delete=models.CASCADE, related_name="+", db_index=False)

    class Meta:
        db_table = "desk_conversation_labels"
        constraints = [
            models.UniqueConstraint(name="one_label_once", fields=["client", "conversation", "label"]),
        ]
        indexes = [
            # Used by the inbox: the conversations with a label.
            models.Index(name="conversations_of_label", fields=["client", "label", "conversation"])
        ]

    def __str__(self) -> str:
        return f"{self.label_id} on {self.conversation_id}"


class StaffNote(OfClient):
    """A private note of staff in a conversation. Neither the contact nor a model ever reads it."""

    conversation = _conversation()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    author_name = models.CharField(max_length=150)
    text = models.TextField(validators=[MaxLengthValidator(LONGEST_NOTE)])
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "desk_notes"
        ordering = ["id"]
        indexes = [models.Index(name="staff_notes_of_conversation", fields=["client", "conversation", "id"])]

    def __str__(self) -> str:
        return f"note of {self.author_name}"


class Mention(OfClient):
    """A colleague whom a note mentions. It is unread until they open the conversation, and goes with the note."""

    conversation = _conversation()
    note = SameClientKey(
        StaffNote, on_delete=models.DO_NOTHING, related_name="mentions", db_constraint=False, db_index=False
    )  # cascades in the database
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    read_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "desk_mentions"
        constraints = [models.UniqueConstraint(name="one_mention_once", fields=["client", "note", "user"])]
        indexes = [
            # Used by merging, exports of a person and notes of a conversation.
            models.Index(name="mentions_in_conversation", fields=["client", "conversation"]),
            # Used by the inbox: where a colleague is mentioned.
            models.Index(name="mentions_of_user", fields=["client", "user", "conversation"]),
        ]

    def __str__(self) -> str:
        return f"mention of {self.user_id}"


class Draft(OfClient):
    """A reply that a member of staff has begun and not sent. Everyone has their own."""

    conversation = _conversation()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    text = models.TextField()
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "desk_drafts"
        constraints = [models.UniqueConstraint(name="one_draft_of_a_user", fields=["client", "conversation", "user"])]

    def __str__(self) -> str:
        return f"draft of {self.user_id}"


class SeenPosition(OfClient):
    """The position up to which a member of staff has seen a conversation."""

    conversation = _conversation()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    position = models.IntegerField()

    class Meta:
        db_table = "desk_seen"
        constraints = [
            models.UniqueConstraint(name="one_seen_position_of_a_user", fields=["client", "conversation", "user"])
        ]

    def __str__(self) -> str:
        return f"seen by {self.user_id} up to {self.position}"


class Presence(OfClient):
    """A member of staff who has a conversation open, and until when they count as typing.

    The browser says so every few seconds. It counts while `seen_at` is recent (services/desk/live.py).
    """

    conversation = _conversation()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    seen_at = models.DateTimeField()
    typing_until = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)  # when the customer was last shown that they are typing

    class Meta:
        db_table = "desk_presences"
        constraints = [
            models.UniqueConstraint(name="one_presence_of_a_user", fields=["client", "user", "conversation"])
        ]
        # Used by everyone who has the conversation open, and by its deletion.
        indexes = [models.Index(name="presences_in_conversation", fields=["client", "conversation"])]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.conversation_id}"


class CannedReply(models.Model):
    """A text that staff of a client send often. `{name}` and its like are filled in when it is chosen."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="canned_replies", db_index=False)
    shortcut = models.CharField(
        max_length=40,
        validators=[RegexValidator(r"^[\w-]{1,40}\Z", _("Write letters, digits, - and _, without spaces."))],
        help_text="Staff type / and the beginning of it.",
    )
    text = models.TextField(
        validators=[MaxLengthValidator(LONGEST_REPLY)],
        help_text="{name}, {first_name}, {agent} and {client} are filled in when it is chosen.",
    )

    class Meta:
        db_table = "canned_replies"
        ordering = ["shortcut"]
        verbose_name_plural = "canned replies"
        constraints = [models.UniqueConstraint(name="one_canned_reply_of_a_shortcut", fields=["client", "shortcut"])]

    def __str__(self) -> str:
        return f"/{self.shortcut}"
