"""Answers of the API, with the names of the tables' columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from channels_out.kinds import MediaKind
from channels_out.templates import needs_of
from conversations.models import (
    Activity,
    Attachment,
    Chunk,
    Conversation,
    EndedBy,
    Message,
    MessageTemplate,
    Step,
    ToolCall,
)
from conversations.services.media.shown import ShownFile, as_json, with_links


class StepSerializer(serializers.ModelSerializer[Step]):
    """A step of a conversation's goal."""

    class Meta:
        model = Step
        fields = ["id", "description", "status", "created_at", "updated_at"]
        read_only_fields = fields


class ActivitySerializer(serializers.ModelSerializer[Activity]):
    """Something that the person did with a message, or after it, that is no message."""

    class Meta:
        model = Activity
        fields = ["kind", "text", "metadata", "occurred_at"]
        read_only_fields = fields


class AttachmentSerializer(serializers.Serializer[ShownFile]):
    """A picture, recording or document of a message."""

    id = serializers.UUIDField(source="row.pk", read_only=True)
    type = serializers.ChoiceField([*MediaKind], source="row.kind", read_only=True)
    state = serializers.ChoiceField(
        [*Attachment.State.values],
        source="row.state",
        read_only=True,
        help_text="`waiting`: it is being fetched. `failed`: `problem` says why.",
    )
    content_type = serializers.CharField(
        source="row.content_type",
        read_only=True,
        help_text="While it waits what the sender says, then what its content shows.",
    )
    name = serializers.CharField(read_only=True)
    size = serializers.IntegerField(source="row.size", read_only=True, allow_null=True, help_text="In bytes.")
    sha256 = serializers.CharField(source="row.sha256", read_only=True, help_text="In hexadecimal digits.")
    link = serializers.CharField(read_only=True, help_text="Works for MEDIA_LINK_SECONDS. Empty until it is ready.")
    thumbnail = serializers.CharField(read_only=True, help_text="A link to a small picture, for pictures.")
    problem = serializers.CharField(read_only=True, help_text="Why it could not be had, as a phrase.")


class ChunkSerializer(serializers.ModelSerializer[Chunk]):
    """One entry of a conversation."""

    by_staff = serializers.SerializerMethodField(
        help_text="True if a member of staff wrote it in the assistant's place."
    )
    activities = ActivitySerializer(many=True, read_only=True)

    class Meta:
        model = Chunk
        fields = ["id", "position", "role", "content", "by_staff", "message_id", "metadata", "created_at", "activities"]
        read_only_fields = fields

    def get_by_staff(self, chunk: Chunk) -> bool:
        """Return whether a colleague wrote it."""
        return chunk.by_staff


class ChunkWithFilesSerializer(ChunkSerializer):
    """One entry of a conversation, with its files."""

    attachments = serializers.SerializerMethodField(help_text="Its pictures, recordings and documents.")

    class Meta(ChunkSerializer.Meta):
        fields = [*ChunkSerializer.Meta.fields, "attachments"]
        read_only_fields = fields

    @extend_schema_field(AttachmentSerializer(many=True))
    def get_attachments(self, chunk: Chunk) -> Any:
        """Return the files, with links that run out. `files` in the context has the rows by chunk."""
        rows = self.context.get("files", {}).get(chunk.pk, ())
        return [as_json(with_links(row)) for row in rows]


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


class RatingSerializer(serializers.Serializer[Any]):
    """The question about satisfaction that was asked, and the answer."""

    score = serializers.IntegerField(
        allow_null=True, min_value=1, max_value=5, help_text="1 to 5; a thumb up is 5, a thumb down 1. Null: no answer."
    )
    scale = serializers.ChoiceField(["five", "thumbs"], help_text="What was asked: 1 to 5, or thumbs up or down.")
    asked_at = serializers.DateTimeField()
    rated_at = serializers.DateTimeField(allow_null=True)
    comment = serializers.CharField(allow_blank=True, help_text="Why the person rated so, in their words.")


# The columns that ConversationSerializer shows: a list reads no others of fifty conversations and their contacts.
LISTED = (
    *({*ConversationSerializer.Meta.fields} & {field.name for field in Conversation._meta.concrete_fields}),
    *("client", "contact", "contact__user_id", "taken_over_name"),
)


class ConversationDetailSerializer(ConversationSerializer):
    """A conversation with its steps and newest chunks. `conversations/services/core/detail_sql.py` builds it."""

    device = serializers.CharField(
        allow_null=True, read_only=True, help_text="The contact's address that replies go to."
    )
    assistant = serializers.CharField(allow_null=True, read_only=True, help_text="The assistant's key.")
    assigned_to = serializers.CharField(
        read_only=True, help_text="The user name of the member of staff who is responsible. Empty: nobody is."
    )
    team = serializers.CharField(read_only=True, help_text="The team that is responsible. Empty: none is.")
    rating = RatingSerializer(
        allow_null=True, read_only=True, help_text="The person's satisfaction; null where it was not asked."
    )
    steps = StepSerializer(many=True, read_only=True)
    chunks = ChunkWithFilesSerializer(many=True, read_only=True)

    class Meta(ConversationSerializer.Meta):
        fields = [
            *ConversationSerializer.Meta.fields,
            *("device", "assistant", "assigned_to", "team", "rating", "steps", "chunks"),
        ]
        read_only_fields = fields


class TemplateSerializer(serializers.ModelSerializer[MessageTemplate]):
    """A template as the account's provider lists it, and what it must be given."""

    channel_account_id = serializers.UUIDField(read_only=True)
    account = serializers.CharField(
        source="channel_account.address", read_only=True, help_text="The account's address."
    )
    components = serializers.ListField(child=serializers.DictField(), read_only=True)
    variables = serializers.SerializerMethodField(help_text="The names of the body's variables, in order.")
    header = serializers.SerializerMethodField(
        help_text="What the header must be given: empty, `text`, or the link of an `image`, `video` or `document`."
    )
    buttons = serializers.SerializerMethodField(help_text="For each button, whether it must be given a value.")

    class Meta:
        model = MessageTemplate
        fields = [
            *("id", "channel_account_id", "account", "name", "language", "status", "category", "quality", "reason"),
            *("components", "variables", "header", "buttons", "seen_at"),
        ]
        read_only_fields = fields

    def get_variables(self, template: MessageTemplate) -> list[str]:
        """Return the names of the body's variables."""
        return list(needs_of(template.components).variables)

    def get_header(self, template: MessageTemplate) -> str:
        """Return what the header must be given."""
        return needs_of(template.components).header

    def get_buttons(self, template: MessageTemplate) -> list[bool]:
        """Return for each button whether it must be given a value."""
        return list(needs_of(template.components).buttons)


class SentSerializer(serializers.Serializer[Any]):
    """The new chunk and the messages that carry it, one for each part of a long text."""

    chunk = ChunkWithFilesSerializer(read_only=True)
    messages = MessageSerializer(many=True, read_only=True)


class AcceptedReplySerializer(serializers.Serializer[Any]):
    """The turn of an accepted reply, and its chunk; null if nothing was said."""

    turn_id = serializers.UUIDField(source="pk", read_only=True)
    status = serializers.CharField(read_only=True, help_text="`committed`.")
    chunk = ChunkSerializer(read_only=True, allow_null=True)


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
