"""The tools of a client that its assistants' models may call, the MCP servers some of them live at, and each call."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator, URLValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from conversations.models.checks import none_negative, one_of
from conversations.models.choices import Choices
from conversations.models.client import Client
from conversations.models.conversation import Conversation
from conversations.models.fields import EncryptedJSONField
from conversations.models.of_client import OfClient, SameClientKey

LONGEST_NAME = 64  # as models accept
NAME = RegexValidator(r"^[a-zA-Z0-9_-]{1,64}\Z", _("Write up to 64 letters, digits, - and _, without spaces."))
URL = URLValidator(schemes=["http", "https"])
SECONDS = (MinValueValidator(1), MaxValueValidator(60))


class McpServer(models.Model):
    """A server of the Model Context Protocol (streamable HTTP), which has tools of its own.

    Its headers are encrypted at rest and never shown. `name` comes before the names of its tools where they collide.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="mcp_servers", db_index=False)
    name = models.CharField(
        max_length=20,
        validators=[RegexValidator(r"^[a-zA-Z0-9_-]{1,20}\Z", _("Write up to 20 letters, digits, - and _."))],
        help_text="Comes before the names of its tools where another tool has the same name.",
    )
    url = models.CharField("URL", max_length=500, validators=[URL])
    headers = EncryptedJSONField(default=dict, blank=True, editable=False)  # by name
    timeout_seconds = models.FloatField(default=20, db_default=20, validators=SECONDS)
    is_active = models.BooleanField(
        default=True, db_default=True, help_text="Off: none of its tools is offered to models."
    )
    listed_at = models.DateTimeField(null=True, editable=False, help_text="When its tools were listed last.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "mcp_servers"
        ordering = ["name"]
        verbose_name = "MCP server"
        constraints = [models.UniqueConstraint(name="one_mcp_server_of_a_name", fields=["client", "name"])]

    def __str__(self) -> str:
        return self.name


class Tool(models.Model):
    """A tool that models may call: at a URL of the client's own, or at an MCP server.

    The secret that signs our requests is encrypted at rest and shown once. `may_repeat` decides what happens when the
    outcome of a call is not known: it is made again with the same idempotency key, or staff find out what happened.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="tools", db_index=False)
    server = models.ForeignKey(
        McpServer, on_delete=models.CASCADE, null=True, blank=True, related_name="tools", verbose_name="MCP server"
    )
    remote_name = models.CharField(
        "name at the server", max_length=200, blank=True, default="", db_default="", editable=False
    )
    name = models.CharField(max_length=LONGEST_NAME, validators=[NAME], help_text="The model calls it by this name.")
    description = models.TextField(
        blank=True, default="", help_text="For the model: what the tool does, when to call it, and what it answers."
    )
    parameters = models.JSONField("arguments", default=dict, help_text="A JSON Schema of an object.")
    url = models.CharField(
        "URL",
        max_length=500,
        blank=True,
        default="",
        db_default="",
        validators=[URL],
        help_text="Calls are posted here.",
    )
    credentials = EncryptedJSONField(default=dict, blank=True, editable=False)  # {"secret"}
    timeout_seconds = models.FloatField(default=20, db_default=20, validators=SECONDS)
    changes_something = models.BooleanField(
        default=True, db_default=True, help_text="Off for a tool that only looks something up."
    )
    needs_approval = models.BooleanField(
        default=False, db_default=False, help_text="A colleague must approve each call before it is made."
    )
    may_repeat = models.BooleanField(
        default=False,
        db_default=False,
        help_text="On for a tool that does the same Idempotency-Key once, or that only looks something up: a call of"
        " unknown outcome is made again. Off: staff are asked to find out what happened.",
    )
    sends_files = models.BooleanField(
        default=True,
        db_default=True,
        help_text="Files that its answer names are sent to the person with the reply. Off: they are not.",
    )
    assistant_ids = ArrayField(
        models.UUIDField(),
        verbose_name="assistants",
        default=list,
        blank=True,
        db_default=[],
        help_text="The assistants that may call it. None chosen: all of the client's.",
    )
    is_active = models.BooleanField(default=True, db_default=True, help_text="Off: it is not offered to models.")
    problem = models.CharField(
        max_length=300, blank=True, default="", db_default="", editable=False, help_text="Why it cannot be offered."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "tools"
        ordering = ["name"]
        constraints = [
            # Used by every reply: the client's tools.
            models.UniqueConstraint(name="one_tool_of_a_name", fields=["client", "name"]),
            models.UniqueConstraint(
                name="one_tool_of_a_server",
                fields=["server", "remote_name"],
                condition=models.Q(server__isnull=False),
            ),
            models.CheckConstraint(
                name="tool_has_one_place",
                condition=models.Q(server__isnull=True) & ~models.Q(url="")
                | models.Q(server__isnull=False) & models.Q(url=""),
                violation_error_message=_("A tool needs a URL."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ToolCall(OfClient):
    """One call of a tool, written before it is made, so that it is made once.

                 ┌──► refused                    by a colleague
    waiting ─────┼──► expired                    the conversation ended first
       (approval)└──► approved ──┐               it expires too where the assistant no longer owes a reply
                                 ▼        ┌──► answered    the tool has answered; the answer is kept and used again
    requested ────────────────► calling ──┼──► failed      it was not done: the tool said so, or could not be asked
       ▲                          │   ▲   └──► unknown     the time or the connection ran out, or our process died
       └── the request never left ┘   └── may_repeat ──┘

    `key` is the idempotency key: of the conversation, the messages that are not answered yet, the tool and the
    arguments in canonical form. So the same call of a later try, or of the draft after a dropped one, finds this row.
    `round` names the messages by the reply before them (the committed turn; null before the first). A call stays
    `is_open` until a reply that was given its outcome is committed; until then each draft is given it.

    `turn_id` and `attempt` name who makes the call. An outcome that arrives after the call was given up as unknown
    still counts. The built-in tools (steps, topic, goal, person, end) are rows too: `tool` is null, and the row is
    written as `answered` in the transaction that commits the reply.
    """

    class Status(Choices):
        """The states of the diagram above."""

        WAITING = "waiting"
        APPROVED = "approved"
        REFUSED = "refused"
        EXPIRED = "expired"
        REQUESTED = "requested"
        CALLING = "calling"
        ANSWERED = "answered"
        FAILED = "failed"
        UNKNOWN = "unknown"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="tool_calls", db_constraint=False, db_index=False
    )  # cascades in the database
    tool = models.ForeignKey(Tool, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False)
    name = models.CharField(max_length=LONGEST_NAME)
    arguments = models.JSONField(default=dict)
    key = models.CharField(max_length=64, null=True, help_text="Idempotency key. Null: a built-in tool.")  # noqa: DJ001
    round = models.UUIDField(null=True)
    status = models.CharField(max_length=10, choices=Status)
    is_open = models.BooleanField(default=True, db_default=True)
    turn_id = models.UUIDField(null=True)
    attempt = models.PositiveSmallIntegerField(default=0, db_default=0)
    given_to = models.UUIDField(null=True, help_text="The turn that was given the outcome last.")
    tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    changes_something = models.BooleanField(default=True, db_default=True, help_text="As the tool was then.")
    may_repeat = models.BooleanField(default=False, db_default=False, help_text="As the tool was then.")
    lease_until = models.DateTimeField(null=True)
    answer = models.TextField(blank=True, default="", db_default="")
    code = models.CharField(max_length=40, blank=True, default="", db_default="")
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    decided_by_name = models.CharField(max_length=200, blank=True, default="", db_default="")
    decided_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "tool_calls"
        ordering = ["created_at"]
        constraints = [
            # Used by every call, and by the list of a conversation's calls.
            models.UniqueConstraint(name="one_tool_call_of_a_key", fields=["client", "conversation", "key"]),
            models.CheckConstraint(
                name="tool_call_status_known",
                condition=one_of(
                    "status",
                    [
                        *("waiting", "approved", "refused", "expired"),
                        *("requested", "calling", "answered", "failed", "unknown"),
                    ],
                ),
            ),
            models.CheckConstraint(name="tool_call_tries_from_zero", condition=none_negative("tries", "attempt")),
        ]
        indexes = [
            # Used by every reply: the calls whose outcome no committed reply was given.
            models.Index(name="tool_calls_open", fields=["client", "conversation"], condition=models.Q(is_open=True)),
            # Used by the recovery of dead processes' calls, and by the dashboard.
            models.Index(
                name="tool_calls_unsettled",
                fields=["status", "lease_until"],
                condition=models.Q(status__in=["waiting", "approved", "calling", "unknown"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.status}"
