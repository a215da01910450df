"""Bodies and answers of the API, with the names of the tables' columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.exceptions import ParseError

from channels_out.kinds import Channel
from conversations.engines.agent_answers import MOST_MESSAGES
from conversations.models import Chunk, Conversation, EndedBy, Message, Status, Step, ToolCall
from conversations.services.staff_actions.outreach import CHANNELS
from conversations.services.transitions.steps import FINAL

LONGEST_TEXT = 100_000
NOT_BLANK = r"[^\s\x1c-\x1f\x85]"  # what Python calls blank, also for readers whose \s is narrower


def read(kind: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """Return the valid values of a body or query string. Raises ParseError or ValidationError, which name the field."""
    if not isinstance(data, dict):
        raise ParseError("The body must be a JSON object.")
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class IdField(serializers.UUIDField):
    """An id as text. A number, which DRF would take for an id as well, is refused."""

    def to_internal_value(self, data: Any) -> UUID:
        """Return the id. Raises ValidationError."""
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        found: UUID = super().to_internal_value(data)
        return found


class Text(serializers.CharField):
    """A string that is not blank. Numbers, booleans and characters that cannot be stored are refused."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.allow_blank:
            self.validators.append(RegexValidator(NOT_BLANK, self.error_messages["blank"]))

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Return the string. Raises ValidationError for every other type, before it is converted."""
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class Choice(serializers.ChoiceField):
    """One of several words. The error lists them."""

    default_error_messages = {"invalid_choice": "Must be one of {choices}."}

    def to_internal_value(self, data: Any) -> str:
        """Return the word. Raises ValidationError for anything else, which the error does not repeat."""
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(self.choices))
        return data


class Flag(serializers.BooleanField):
    """`true` or `false`. Numbers and words are refused."""

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean. Raises ValidationError for anything else."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StepSerializer(serializers.ModelSerializer[Step]):
    """A step of a conversation's goal."""

    class Meta:
        model = Step
        fields = ["id", "description", "status", "created_at", "updated_at"]
        read_only_fields = fields


class NewStepSerializer(serializers.Serializer[Any]):
    """A new step."""

    description = Text(max_length=2_000)


class StepStatusSerializer(serializers.Serializer[Any]):
    """The new status of a step."""

    status = Choice(choices=[str(status) for status in FINAL])


class ChunkSerializer(serializers.ModelSerializer[Chunk]):
    """One entry of a conversation."""

    by_staff = serializers.SerializerMethodField(
        help_text="True if a member of staff wrote it in the assistant's place."
    )

    class Meta:
        model = Chunk
        fields = ["id", "position", "role", "content", "by_staff", "message_id", "metadata", "created_at"]
        read_only_fields = fields

    def get_by_staff(self, chunk: Chunk) -> bool:
        """Return whether the chunk has an author."""
        return chunk.author_id is not None


class MessageSerializer(serializers.ModelSerializer[Message]):
    """One outbound message: a part of a text, and what became of it."""

    class Meta:
        model = Message
        fields = ["id", "part", "parts", "status", "code", "reason", "created_at"]
        read_only_fields = fields


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A conversation as lists show it."""

    user_id = serializers.CharField(source="contact.user_id", read_only=True)
    ended_by = serializers.ChoiceField(
        ["", *EndedBy.values], read_only=True, help_text="Empty while the conversation is open."
    )
    reply_due_at = serializers.SerializerMethodField(help_text="When the reply is due; null if no reply is owed.")
    taken_over_by = serializers.CharField(
        source="taken_over_name",
        read_only=True,
        help_text="Who has the conversation in the assistant's place. Empty while `taken_over_at` is set: it waits for"
        " a person.",
    )

    class Meta:
        model = Conversation
        fields = [
            *("id", "client_id", "contact_id", "user_id", "channel", "thread", "status", "is_guest"),
            *("goal", "summary", "topic", "current_goal", "metadata", "variables", "chat_id"),
            *("started_at", "last_message_at", "ended_at", "ended_by", "end_reason"),
            *("reply_owed", "reply_due_at", "taken_over_at", "taken_over_by", "taken_over_until"),
            *("needs_staff_since", "needs_staff_reason"),
        ]
        read_only_fields = fields

    def get_reply_due_at(self, conversation: Conversation) -> datetime | None:
        """Return the time only if a reply is owed."""
        return conversation.reply_due_at if conversation.reply_owed else None


class ConversationDetailSerializer(ConversationSerializer):
    """A conversation with its steps and newest chunks. `conversations/services/core/detail_sql.py` builds it."""

    device = serializers.CharField(
        allow_null=True, read_only=True, help_text="The contact's address that replies go to."
    )
    assistant = serializers.CharField(allow_null=True, read_only=True, help_text="The assistant's key.")
    steps = StepSerializer(many=True, read_only=True)
    chunks = ChunkSerializer(many=True, read_only=True)

    class Meta(ConversationSerializer.Meta):
        fields = [*ConversationSerializer.Meta.fields, "device", "assistant", "steps", "chunks"]
        read_only_fields = fields


class OpenSerializer(serializers.Serializer[Any]):
    """A conversation to open from our side."""

    client_id = IdField(required=False, help_text="The key's own client, which is the default.")
    channel = Choice(choices=[str(channel) for channel in CHANNELS])
    phone = Text(required=False, max_length=40, help_text="Phone number with country code. WhatsApp and SMS need it.")
    user_id = Text(required=False, max_length=200, help_text="Your own id for the person.")
    name = Text(required=False, max_length=200)
    goal = Text(required=False, max_length=2_000, help_text="Default: the client's goal.")
    variables = serializers.DictField(
        child=serializers.JSONField(),
        default=dict,
        help_text="Facts for the assistant, such as customer_name: text, numbers or booleans, stored as text.",
    )
    metadata = serializers.DictField(child=serializers.JSONField(allow_null=True), default=dict)
    assistant = Text(
        required=False, max_length=63, help_text="The assistant's key. Default: the assistant of the account or client."
    )
    greet = Flag(default=True, help_text="True if the assistant sends the first message.")


class SendSerializer(serializers.Serializer[Any]):
    """A message to send in the assistant's place."""

    role = Choice(choices=["ai"], default="ai")
    content = Text(max_length=LONGEST_TEXT, trim_whitespace=False)


class SentSerializer(serializers.Serializer[Any]):
    """The new chunk and the messages that carry it, one for each part of a long text."""

    chunk = ChunkSerializer(read_only=True)
    messages = MessageSerializer(many=True, read_only=True)


class AgentStepsSerializer(serializers.Serializer[Any]):
    """The steps that an agent adds, and those that it completes or cancels, by their ids."""

    add = serializers.ListField(child=Text(max_length=2_000), required=False, allow_null=True)
    complete = serializers.ListField(child=serializers.IntegerField(), required=False, allow_null=True)
    cancel = serializers.ListField(child=serializers.IntegerField(), required=False, allow_null=True)


class HandOverSerializer(serializers.Serializer[Any]):
    """The reason why a person should answer."""

    reason = Text(max_length=200, required=False, allow_blank=True, allow_null=True)


class AgentReplySerializer(serializers.Serializer[Any]):
    """An agent's reply to a request that it answered with `later`."""

    turn_token = Text(max_length=200, help_text="The `turn_token` of the request.")
    messages = serializers.ListField(
        child=Text(max_length=LONGEST_TEXT, allow_blank=True),
        max_length=MOST_MESSAGES,
        required=False,
        allow_null=True,
        help_text="The texts to say, as paragraphs of one message. Empty: nothing is said.",
    )
    steps = AgentStepsSerializer(required=False, allow_null=True)
    topic = Text(max_length=200, required=False, allow_null=True)
    current_goal = Text(max_length=2_000, required=False, allow_null=True)
    hand_over = HandOverSerializer(
        required=False, allow_null=True, help_text="Present if a person should take the conversation over."
    )
    end = Flag(required=False, allow_null=True, help_text="True if the conversation ends after this reply.")


class AcceptedReplySerializer(serializers.Serializer[Any]):
    """The turn of an accepted reply, and its chunk; null if nothing was said."""

    turn_id = serializers.UUIDField(source="pk", read_only=True)
    status = serializers.CharField(read_only=True, help_text="`committed`.")
    chunk = ChunkSerializer(read_only=True, allow_null=True)


class CloseSerializer(serializers.Serializer[Any]):
    """The reason for closing, and who counts as having ended the conversation."""

    reason = Text(max_length=200, default="", allow_blank=True)
    ended_by = Choice(choices=["system", "staff", "user"], default="system")


class TakeoverSerializer(serializers.Serializer[Any]):
    """A takeover."""

    name = Text(
        max_length=200,
        default="",
        allow_blank=True,
        help_text="Name of the person who takes over, as staff know them. Default: the key's name.",
    )
    tell = Flag(default=False, help_text="True to tell the customer, in the assistant's sentence for a takeover.")
    from_colleague = Flag(
        default=False, help_text="True to take the conversation from a colleague who has it. False answers 409."
    )


class HandbackSerializer(serializers.Serializer[Any]):
    """The reason for the hand-back."""

    reason = Text(max_length=200, default="", allow_blank=True)


class ToolCallSerializer(serializers.ModelSerializer[ToolCall]):
    """One call of a tool, and what became of it."""

    tool = serializers.CharField(source="name", read_only=True, help_text="The tool's name.")
    arguments = serializers.DictField(child=serializers.JSONField(allow_null=True), read_only=True)
    idempotency_key = serializers.CharField(
        source="key", read_only=True, allow_null=True, help_text="Null: a built-in tool."
    )

    class Meta:
        model = ToolCall
        fields = [
            *("id", "tool", "arguments", "status", "answer", "code", "idempotency_key", "tries"),
            *("created_at", "ended_at", "decided_at", "decided_by_name", "reason"),
        ]
        read_only_fields = fields


class DecisionSerializer(serializers.Serializer[Any]):
    """The reason for approving or refusing a call. The assistant is told why it was refused."""

    reason = Text(max_length=200, default="", allow_blank=True)


class PageSerializer(serializers.Serializer[Any]):
    """A page: at most `limit` items, from the `next` of the page before."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    cursor = serializers.CharField(required=False, max_length=200, help_text="The `next` of the previous page.")


class ConversationFilterSerializer(PageSerializer):
    """A filter of conversations. `open` stands for active and stale; times are ISO 8601."""

    status = Choice(choices=["open", *(s.value for s in Status)], required=False)
    channel = Choice(choices=[c.value for c in Channel], required=False)
    user_id = serializers.CharField(required=False, max_length=200)
    started_after = serializers.DateTimeField(required=False)
    started_before = serializers.DateTimeField(required=False)


class ChunksShownSerializer(serializers.Serializer[Any]):
    """The number of newest chunks to return with a conversation."""

    chunks = serializers.IntegerField(default=10, min_value=0, max_value=100)
