"""What the API takes and gives, in the tables' words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from channels_out.kinds import Channel
from conversations.models import Chunk, Conversation, EndedBy, Message, Status, Step
from conversations.services.staff_actions.outreach import CHANNELS
from conversations.services.transitions.steps import FINAL

LONGEST_TEXT = 100_000
NOT_BLANK = r"[^\s\x1c-\x1f\x85]"  # what Python calls blank, also for readers whose \s is narrower


class Text(serializers.CharField):
    """A string, and not a blank one: a number or a boolean is not taken for one, nor is what cannot be stored."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.allow_blank:
            self.validators.append(RegexValidator(NOT_BLANK, self.error_messages["blank"]))

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Raises ValidationError for what is no string, before anybody turns it into one."""
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class Choice(serializers.ChoiceField):
    """One of a few words; who gives another is told which there are."""

    default_error_messages = {"invalid_choice": "Must be one of {choices}."}

    def to_internal_value(self, data: Any) -> str:
        """Raises ValidationError for anything else, which is not repeated."""
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(self.choices))
        return data


class Flag(serializers.BooleanField):
    """true or false; no number and no word is taken for one."""

    def to_internal_value(self, data: Any) -> bool:
        """Raises ValidationError for anything else."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StepSerializer(serializers.ModelSerializer[Step]):
    """A mini-goal."""

    class Meta:
        model = Step
        fields = ["id", "description", "status", "created_at", "updated_at"]
        read_only_fields = fields


class NewStepSerializer(serializers.Serializer[Any]):
    """A step to add."""

    description = Text(max_length=2_000)


class StepStatusSerializer(serializers.Serializer[Any]):
    """What a step becomes."""

    status = Choice(choices=[str(status) for status in FINAL])


class ChunkSerializer(serializers.ModelSerializer[Chunk]):
    """One entry of a transcript."""

    by_staff = serializers.SerializerMethodField(help_text="Whether a person wrote it in the assistant's place.")

    class Meta:
        model = Chunk
        fields = ["id", "position", "role", "content", "by_staff", "message_id", "metadata", "created_at"]
        read_only_fields = fields

    def get_by_staff(self, chunk: Chunk) -> bool:
        """Whether it has an author."""
        return chunk.author_id is not None


class MessageSerializer(serializers.ModelSerializer[Message]):
    """One outbound send."""

    class Meta:
        model = Message
        fields = ["id", "part", "parts", "status", "code", "reason", "created_at"]
        read_only_fields = fields


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A session, as lists show it."""

    user_id = serializers.CharField(source="contact.user_id", read_only=True)
    ended_by = serializers.ChoiceField(["", *EndedBy.values], read_only=True, help_text="Empty while it is open.")
    reply_due_at = serializers.SerializerMethodField(
        help_text="When the burst of messages is answered; null: no reply is owed."
    )
    taken_over_by = serializers.CharField(
        source="taken_over_name",
        read_only=True,
        help_text="Who has it in the assistant's place. Empty while `taken_over_at` is set: it waits for somebody.",
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
        """Only where one is owed."""
        return conversation.reply_due_at if conversation.reply_owed else None


class ConversationDetailSerializer(ConversationSerializer):
    """A session with its steps and newest chunks; describes what services/session/reading.py builds."""

    device = serializers.CharField(
        allow_null=True, read_only=True, help_text="The address of the contact that replies go to."
    )
    assistant = serializers.CharField(allow_null=True, read_only=True, help_text="The assistant's key.")
    steps = StepSerializer(many=True, read_only=True)
    chunks = ChunkSerializer(many=True, read_only=True)

    class Meta(ConversationSerializer.Meta):
        fields = [*ConversationSerializer.Meta.fields, "device", "assistant", "steps", "chunks"]
        read_only_fields = fields


class OpenSerializer(serializers.Serializer[Any]):
    """Whom to write to first, and what about."""

    channel = Choice(choices=[str(channel) for channel in CHANNELS])
    phone = Text(required=False, max_length=40, help_text="With the country code; what WhatsApp and SMS need.")
    user_id = Text(required=False, max_length=200, help_text="Your own id of the person.")
    name = Text(required=False, max_length=200)
    goal = Text(required=False, max_length=2_000, help_text="Default: the client's.")
    variables = serializers.DictField(
        child=serializers.JSONField(),
        default=dict,
        help_text="What the assistant is to know, such as customer_name: text, numbers or booleans, kept as text.",
    )
    metadata = serializers.DictField(child=serializers.JSONField(allow_null=True), default=dict)
    assistant = Text(required=False, max_length=63, help_text="The key of the one who writes. Default: the usual one.")
    greet = Flag(default=True, help_text="Whether the assistant speaks first.")


class SendSerializer(serializers.Serializer[Any]):
    """What to say in the assistant's place."""

    role = Choice(choices=["ai"], default="ai")
    content = Text(max_length=LONGEST_TEXT, trim_whitespace=False)


class SentSerializer(serializers.Serializer[Any]):
    """The new chunk and the messages that carry it, one for each part."""

    chunk = ChunkSerializer(read_only=True)
    messages = MessageSerializer(many=True, read_only=True)


class CloseSerializer(serializers.Serializer[Any]):
    """Why a session is closed, and by whom it counts as ended."""

    reason = Text(max_length=200, default="", allow_blank=True)
    ended_by = Choice(choices=["system", "staff", "user"], default="system")


class TakeoverSerializer(serializers.Serializer[Any]):
    """Who takes a session over, and whether the person is told."""

    name = Text(
        max_length=200,
        default="",
        allow_blank=True,
        help_text="Who has it then, as staff know them; the key's name if empty.",
    )
    tell = Flag(default=False, help_text="Whether the person is told, in the assistant's sentence for that.")
    from_colleague = Flag(default=False, help_text="Whether to take it from whoever has it; otherwise that is a 409.")


class HandbackSerializer(serializers.Serializer[Any]):
    """Why a session is handed back."""

    reason = Text(max_length=200, default="", allow_blank=True)


class PageSerializer(serializers.Serializer[Any]):
    """What part of a list to give: at most `limit` items, from where the page before ended (its `next`)."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    cursor = serializers.CharField(required=False, max_length=200, help_text="The `next` of the page before.")


class ConversationFilterSerializer(PageSerializer):
    """Which sessions to list. `open` stands for active and stale; times are ISO 8601."""

    status = Choice(choices=["open", *(s.value for s in Status)], required=False)
    channel = Choice(choices=[c.value for c in Channel], required=False)
    user_id = serializers.CharField(required=False, max_length=200)
    started_after = serializers.DateTimeField(required=False)
    started_before = serializers.DateTimeField(required=False)


class ChunksShownSerializer(serializers.Serializer[Any]):
    """How many of the newest chunks to show with a session."""

    chunks = serializers.IntegerField(default=10, min_value=0, max_value=100)
