"""The conversations, their chunks and their steps."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Self

from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import Channel
from conversations.models.assistant import Assistant
from conversations.models.channel_account import ChannelAccount
from conversations.models.checks import Rule, none_negative, one_of
from conversations.models.choices import CHANNELS, Choices
from conversations.models.client import DEFAULT_GOAL, Client
from conversations.models.contact import Contact, ContactIdentity
from conversations.models.of_client import OfClient, OfSession, SameClientKey


class Status(Choices):
    """The status of a conversation; the first two are open."""

    ACTIVE = "active"
    STALE = "stale"
    EXPIRED = "expired"
    CLOSED = "closed"
    ARCHIVED = "archived"


OPEN = (Status.ACTIVE, Status.STALE)


class EndedBy(Choices):
    """The author of a conversation's end."""

    TIMEOUT = "timeout"
    USER = "user"
    SYSTEM = "system"
    STAFF = "staff"


# Conversations that need staff: see `waits_for_staff_since`. Read by two partial indexes: needs_staff and reply_owed.
WAITS_FOR_STAFF = models.Q(needs_staff_since__isnull=False) | models.Q(reply_owed=True, taken_over_at__isnull=False)


# A session of the copilot; agents elsewhere keep theirs without a thread. `core/key_sql.py` says the same in SQL.
_PRIVATE = models.Q(channel=Channel.WEB) & ~models.Q(thread="")


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Queries of conversations."""

    def of(self, client: Client | uuid.UUID) -> Self:
        """Return the conversations of one client."""
        return self.filter(client=client)

    def open(self) -> Self:
        """Return the open conversations, which take messages."""
        return self.filter(status__in=OPEN)

    def private(self) -> Self:
        """Return the copilot's, each of which is one signed-in user's own."""
        return self.filter(_PRIVATE)

    def not_private(self) -> Self:
        """Return all but the copilot's."""
        return self.exclude(_PRIVATE)


class Conversation(OfClient):
    """One conversation with one contact on one channel.

                     message                      staff, API, the user's own goodbye, the system
            ┌──────────────────┐          ┌──────────────────────────────────────────────┐
            ▼                  │          │                                              ▼
         active ──10 min──► stale ──24 h──┼──► expired ──┬─ guest ──► deleted          closed
            └──────────────── 24 h ───────┘              └─ else ──30 d──► archived ◄──30 d

    `thread` is the call's id on voice and the conversation's own id on web. On text channels it is '', or the account's
    id where a number has a conversation of its own (core/threads.py). `last_position` is
    the position of the newest chunk and `inbound_sequence` counts the person's messages. Both grow while the row is
    locked: so positions have no gaps, and a reply can detect that it was overtaken.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, db_default=RandomUUID(), editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="conversations", db_index=False)
    # RESTRICT: a contact cannot be deleted while a new conversation is being opened for it.
    contact = SameClientKey(
        Contact, on_delete=models.RESTRICT, related_name="conversations", db_constraint=False, db_index=False
    )
    # The contact's identity, which is deleted with the contact, and the contact only after the conversation. No
    # constraint: to check it, each deletion of a guest would read all conversations, or need one more index.
    device = SameClientKey(
        ContactIdentity,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    assistant = models.ForeignKey(
        Assistant, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    channel_account = SameClientKey(
        ChannelAccount, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    channel = models.CharField(max_length=10, choices=CHANNELS)
    thread = models.CharField(max_length=200, blank=True, default="", db_default="")

    status = models.CharField(max_length=10, choices=Status, default=Status.ACTIVE, db_default=Status.ACTIVE)
    is_guest = models.BooleanField(default=False, db_default=False)
    goal = models.TextField(blank=True, default=DEFAULT_GOAL, db_default=DEFAULT_GOAL)
    summary = models.TextField(blank=True, default="", db_default="")
    topic = models.CharField(max_length=200, blank=True, default="", db_default="")
    current_goal = models.JSONField(null=True, blank=True)
    metadata = models.JSONField(blank=True, default=dict, db_default={})
    # Values given when it was opened, as text by name: for the prompt, and for a Retell agent's dynamic variables.
    variables = models.JSONField(blank=True, default=dict, db_default={})
    recalled_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When earlier conversations on the subject of the first message were looked up.",
    )
    chat_id = models.CharField(max_length=100, blank=True, default="", db_default="", help_text="At Retell.")

    started_at = models.DateTimeField(db_default=Now())
    last_message_at = models.DateTimeField(db_default=Now())
    extended_until = models.DateTimeField(null=True, blank=True, help_text="It does not expire before.")
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=10, choices=EndedBy, blank=True, default="", db_default="")
    end_reason = models.CharField(max_length=200, blank=True, default="", db_default="")

    # Remembering: due from the end on, and retried until it is done. Guests are deleted instead.
    remembered_at = models.DateTimeField(null=True, blank=True)
    remember_due_at = models.DateTimeField(null=True, blank=True)
    remember_attempts = models.SmallIntegerField(default=0, db_default=0)
    remember_error = models.CharField(max_length=200, blank=True, default="", db_default="")
    archived_at = models.DateTimeField(null=True, blank=True)

    last_position = models.IntegerField(default=0, db_default=0)
    inbound_sequence = models.IntegerField(default=0, db_default=0)
    history_from = models.IntegerField(
        null=True, blank=True, help_text="What was said up to this position is not shown to assistants any more."
    )

    # The reply that is due: facts that a poll reads, not wake-ups. `reply_attempts` counts the turns since the last
    # reply, before they begin; `reply_crashes` counts those that died with their process; `replies_failed` counts
    # replies given up in a row. `burst_began_at` is the time of the first unanswered message, from which the longest
    # wait is measured. After a takeover it is staff who owe the reply.
    reply_owed = models.BooleanField(default=False, db_default=False)
    reply_due_at = models.DateTimeField(null=True, blank=True)
    burst_began_at = models.DateTimeField(null=True, blank=True)
    reply_attempts = models.SmallIntegerField(default=0, db_default=0)
    reply_crashes = models.SmallIntegerField(default=0, db_default=0)
    replies_failed = models.SmallIntegerField(default=0, db_default=0)
    drafts_overtaken = models.SmallIntegerField(default=0, db_default=0)
    # The phone number to which the call is to be put through: see transitions/transfers.py.
    transfer_to = models.CharField(max_length=16, blank=True, default="", db_default="", editable=False)
    # The id of the chunk in which the assistant said last that it is a machine: see delivery/disclosure.py.
    disclosed_in = models.BigIntegerField(null=True, blank=True, editable=False)
    fallback_sent = models.BooleanField(default=False, db_default=False)

    # The takeover by staff. A takeover without a user waits for staff, and the assistant is silent already.
    # `taken_over_name` also names people who are no users of ours. The conversation goes back to the assistant at
    # `taken_over_until`, unless the one who took it over acts.
    taken_over_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    taken_over_name = models.CharField(max_length=200, blank=True, default="", db_default="")
    taken_over_at = models.DateTimeField(null=True, blank=True)
    taken_over_until = models.DateTimeField(null=True, blank=True)
    handed_back_at = models.DateTimeField(null=True, blank=True)
    needs_staff_since = models.DateTimeField(null=True, blank=True)
    needs_staff_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    # A legal hold: the reason why nothing of this conversation may be deleted. Empty: no hold.
    hold_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    # The user whose session with the copilot it is. Rows below that the user may see have the same (OfSession).
    login_id = models.IntegerField(null=True, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        db_table = "conversations"
        constraints = [
            # Used by every webhook, and by the sweep, which reads open conversations only.
            models.UniqueConstraint(
                name="one_open_conversation",
                fields=["client", "contact", "channel", "thread"],
                condition=models.Q(status__in=["active", "stale"]),
            ),
            models.CheckConstraint(name="conversation_status_known", condition=one_of("status", Status)),
            models.CheckConstraint(name="conversation_channel_known", condition=one_of("channel", Channel)),
            models.CheckConstraint(name="conversation_ended_by_known", condition=one_of("ended_by", ["", *EndedBy])),
            models.CheckConstraint(
                name="conversation_counts_from_zero",
                condition=none_negative("last_position", "inbound_sequence", "history_from"),
            ),
            models.CheckConstraint(
                name="conversation_tries_from_zero",
                condition=none_negative(
                    *("remember_attempts", "reply_attempts", "reply_crashes", "replies_failed", "drafts_overtaken")
                ),
            ),
            models.CheckConstraint(
                name="conversation_ended_when_not_open",
                condition=Rule(
                    "({0} IS NULL) = ({1} = ANY ('{{active,stale}}'::text[])) AND ({0} IS NULL) = ({2} = '')",
                    *("ended_at", "status", "ended_by"),
                ),
            ),
            models.CheckConstraint(
                name="conversation_owes_replies_only_while_open",
                condition=Rule("NOT {0} OR {1} IS NOT NULL AND {2} IS NULL", "reply_owed", "reply_due_at", "ended_at"),
            ),
            models.CheckConstraint(
                name="conversation_taken_over_for_a_time",
                condition=Rule(
                    "{0} IS NOT NULL OR num_nonnulls({1}, {2}) = 0 AND {3} = ''",
                    *("taken_over_at", "taken_over_until", "taken_over_by", "taken_over_name"),
                ),
            ),
            # On text channels a thread is the id of an account: see core/threads.py.
            models.CheckConstraint(
                name="conversation_thread_known",
                condition=Rule(
                    "{0} = '' OR {1} = ANY ('{{voice,web}}'::text[]) OR length({0}) = 36", "thread", "channel"
                ),
            ),
        ]
        indexes = [
            # Used by the dispatcher's poll: the clients that are owed replies, and then each client's. Its condition is
            # a boolean and its key never changes, so that an append stays a heap-only update.
            models.Index(name="reply_owed", fields=["client"], condition=models.Q(reply_owed=True)),
            # Used by an opening, which reads the contact's newest summaries, and where a contact goes or is merged. Its
            # keys are longer than those of `one_open_conversation`: where most contacts have one conversation, a
            # smaller index would seem quicker to a look for the open one.
            models.Index(name="conversations_of_contact", fields=["client", "contact", "-started_at", "id"]),
            # Used by GET /conversations: newest first, and the open ones without reading closed ones.
            models.Index(name="conversations_of_client", fields=["client", "-started_at", "-id"]),
            models.Index(
                name="open_conversations_of_client",
                fields=["client", "-started_at", "-id"],
                condition=models.Q(status__in=["active", "stale"]),
            ),
            # Used by the inbox: the ended ones, the last ended first. An append changes no ended conversation.
            models.Index(
                name="ended_conversations_of_client",
                fields=["client", "-ended_at", "-id"],
                condition=models.Q(ended_at__isnull=False),
            ),
            # Used by the back office's list: newest first, of all clients, by status and by channel.
            models.Index(name="conversations_newest", fields=["-started_at", "-id"]),
            models.Index(name="conversations_by_status", fields=["status", "-started_at", "-id"]),
            models.Index(name="conversations_by_channel", fields=["channel", "-started_at", "-id"]),
            # Used by the purge.
            models.Index(
                name="expired_guests", fields=["ended_at"], condition=models.Q(status="expired", is_guest=True)
            ),
            # Used by remembering, and by archiving after it: client by client, oldest first.
            models.Index(
                name="to_be_remembered",
                fields=["client", "remember_due_at"],
                condition=models.Q(remember_due_at__isnull=False),
            ),
            models.Index(
                name="to_be_archived",
                fields=["client", "ended_at"],
                condition=models.Q(remembered_at__isnull=False, archived_at__isnull=True),
            ),
            # Used by the sweep: active conversations that age, and takeovers that are over.
            models.Index(
                name="active_that_age",
                fields=["started_at"],
                condition=models.Q(status="active") & ~models.Q(channel=Channel.WEB),
            ),
            models.Index(
                name="taken_over", fields=["taken_over_until"], condition=models.Q(taken_over_until__isnull=False)
            ),
            # Used by the copilot: a user's sessions.
            models.Index(
                name="sessions_of_user", fields=["client", "login_id"], condition=models.Q(login_id__isnull=False)
            ),
            # Used by staff: the conversations that wait for staff, longest first.
            models.Index(
                name="needs_staff",
                fields=["client", "needs_staff_since"],
                condition=models.Q(needs_staff_since__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def rolling(self) -> Any:
        """Return the RollingSummary; None if the conversation has none."""
        return getattr(self, "rolling_summary", None)

    @rolling.setter
    def rolling(self, state: Any) -> None:
        """Set the RollingSummary that was read together with the conversation."""
        relation: Any = self._meta.get_field("rolling_summary")
        relation.set_cached_value(self, state)

    @property
    def is_open(self) -> bool:
        """Return whether the conversation is open, so that it takes messages."""
        return self.status in OPEN

    @property
    def is_private(self) -> bool:
        """Return whether the conversation is a session of the copilot, whoever signed in (see `_PRIVATE`)."""
        return self.channel == Channel.WEB and bool(self.thread)

    @property
    def in_copilot(self) -> bool:
        """Return whether the conversation is a signed-in user's own session with the copilot."""
        return self.login_id is not None

    @property
    def waits_for_staff_since(self) -> datetime | None:
        """Return since when the conversation waits for staff (requested, or owed a reply after a takeover); or None."""
        if self.needs_staff_since or not (self.is_open and self.taken_over_at and self.reply_owed):
            return self.needs_staff_since
        return self.burst_began_at or self.reply_due_at


class Role(Choices):
    """The source of a chunk's text."""

    SYSTEM = "system"
    USER = "user"
    AI = "ai"
    MEMORY = "memory"
    VOICE = "voice"


COLLEAGUE = "colleague"  # in a chunk's metadata: the program outside Convo in which a colleague wrote it
SAID = (Role.USER, Role.AI, Role.VOICE)


def is_by_staff(role: str, author_id: int | None, elsewhere: object) -> bool:
    """Return whether a colleague wrote a chunk: in Convo, or elsewhere. A program's metadata may have any keys."""
    return author_id is not None or (role == Role.AI and elsewhere is not None)


class Chunk(OfSession):
    """One entry of a conversation, at its own position: 1, 2, 3… without gaps.

    `dedupe_key` is set for messages that a provider may deliver again: 128 bits of a hash of the message's source and
    its `message_id`, unique over all chunks.
    """

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="chunks", db_constraint=False, db_index=False
    )  # cascades in the database
    position = models.IntegerField()
    role = models.CharField(max_length=10, choices=Role)
    content = models.TextField()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    message_id = models.TextField(blank=True, default="", db_default="")
    dedupe_key = models.UUIDField(null=True, blank=True, editable=False)
    metadata = models.JSONField(blank=True, default=dict, db_default={})
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_chunks"
        ordering = ["position"]
        constraints = [
            # Used by every read of a transcript, newest first or from a position on.
            models.UniqueConstraint(name="one_position_once", fields=["client", "conversation", "position"]),
            # Used by every webhook: a message delivered again is found, not stored.
            models.UniqueConstraint(
                name="one_message_once", fields=["client", "dedupe_key"], condition=models.Q(dedupe_key__isnull=False)
            ),
            models.CheckConstraint(name="chunk_role_known", condition=one_of("role", Role)),
            models.CheckConstraint(name="chunk_position_from_one", condition=models.Q(position__gte=1)),
        ]
        indexes = [
            # Used by the dashboard: recent messages. Rows come in the order of time: writes touch its right end only.
            models.Index(
                name="said_of_late", fields=["created_at"], condition=models.Q(role__in=["user", "voice", "ai"])
            )
        ]

    def __str__(self) -> str:
        return f"{self.role} #{self.position}"

    @property
    def by_staff(self) -> bool:
        """Return whether a colleague wrote it: in Convo, or elsewhere."""
        return is_by_staff(self.role, self.author_id, self.metadata.get(COLLEAGUE))


class Step(OfClient):
    """A step of a conversation: a small goal.

    pending ──► complete
       └──────► cancelled

    Steps are ordered by `rank`, and within a rank by their creation.
    """

    class Status(Choices):
        """The states of a step; complete and cancelled are final."""

        PENDING = "pending"
        COMPLETE = "complete"
        CANCELLED = "cancelled"

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="steps", db_constraint=False, db_index=False
    )  # cascades in the database
    description = models.TextField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING, db_default=Status.PENDING)
    rank = models.PositiveIntegerField(default=0, db_default=0)
    # The model may have taken the words from a person's message: they never reach the system role of a prompt.
    by_assistant = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_steps"
        ordering = ["rank", "id"]
        constraints = [
            models.CheckConstraint(
                name="step_status_known", condition=models.Q(status__in=["pending", "complete", "cancelled"])
            )
        ]
        indexes = [models.Index(name="steps_of_conversation", fields=["client", "conversation"])]

    def __str__(self) -> str:
        return self.description[:80]
