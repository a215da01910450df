"""Bodies and answers of the API, with the names of the tables' columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError, ValidationError

from channels_out.choices import (
    LONGEST_DESCRIPTION,
    LONGEST_ID,
    LONGEST_LABEL,
    LONGEST_TITLE,
    MOST_CHOICES,
    InvalidChoicesError,
    read_choices,
)
from channels_out.given_files import LONGEST_NAME as LONGEST_FILE_NAME
from channels_out.given_files import LONGEST_URL, MOST_FILES, NOT_AN_ADDRESS, WEB_ADDRESS, name_of
from channels_out.kinds import Channel, MediaKind
from channels_out.templates import needs_of
from conversations.engines.agent_answers import MOST_MESSAGES
from conversations.http.envelope import LARGE_NUMBER, has_large_number
from conversations.models import (
    Activity,
    Attachment,
    Chunk,
    Conversation,
    EndedBy,
    Message,
    MessageTemplate,
    Status,
    Step,
    ToolCall,
)
from conversations.services.core.errors import InvalidError
from conversations.services.delivery.templates import read_wanted
from conversations.services.media.shown import ShownFile, as_json, with_links
from conversations.services.staff_actions.outreach import CHANNELS
from conversations.services.transitions.steps import FINAL

LONGEST_TEXT = 100_000
OFFERED = (
    "Choices below the text: strings, or objects with title, id and description. Buttons or a list on WhatsApp, quick"
    " replies on Messenger, numbered lines elsewhere. The answer's chunk has the `id` as `metadata.payload`."
)
VALUE = {"oneOf": [{"type": "string", "maxLength": 4_000}, {"type": "number"}]}
TEMPLATE = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 512},
        "language": {"type": "string", "maxLength": 20, "description": "May be left out where there is only one."},
        "variables": {
            "description": "The body's variables: a list in order, or an object by name.",
            "oneOf": [
                {"type": "array", "maxItems": 50, "items": VALUE},
                {"type": "object", "additionalProperties": VALUE},
            ],
        },
        "header": {
            "description": "The text of the header's variable, or the https link of its picture, video or document.",
            "oneOf": [
                {"type": "string", "maxLength": 4_000},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"link": {"type": "string"}, "filename": {"type": "string"}},
                },
            ],
        },
        "buttons": {
            "description": "By position: the end of a URL, a code, or the payload of a quick reply; null for none.",
            "type": "array",
            "items": {"type": "string", "nullable": True},
        },
    },
}
CHOICE = {
    "oneOf": [
        {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE, "pattern": r"\S"},
        {
            "type": "object",
            "required": ["title"],
            "additionalProperties": False,
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE, "pattern": r"\S"},
                "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": r"\S"},
                "description": {"type": "string", "maxLength": LONGEST_DESCRIPTION},
            },
        },
    ]
}
MOST_NAMES, LONGEST_NAME = 20, 100  # of unknown fields that an error names
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


def exact_numbers(value: Any) -> None:
    """Raise ValidationError for an object with numbers that would be changed."""
    if has_large_number(value):
        raise serializers.ValidationError(f"{LARGE_NUMBER[0].upper()}{LARGE_NUMBER[1:]}.")


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


class StepChangeSerializer(serializers.Serializer[Any]):
    """The new status of a step."""

    status = Choice(choices=[str(status) for status in FINAL])


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


@extend_schema_field(CHOICE)
class ChoiceField(serializers.JSONField):
    """One choice: its title, or an object with title, id and description."""


class ChoicesField(serializers.ListField):
    """The choices below a text, as they were given, once they are known to be valid."""

    child = ChoiceField()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=1, max_length=MOST_CHOICES, help_text=OFFERED, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        """Return the list. Raises ValidationError with the sentence of what is wrong."""
        found: list[Any] = super().to_internal_value(data)
        try:
            read_choices(found)
        except InvalidChoicesError as error:
            raise ValidationError(str(error)) from None
        return found


@extend_schema_field(TEMPLATE)
class TemplateField(serializers.JSONField):
    """A template with its values."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the template. Raises ValidationError with the sentence of what is wrong."""
        try:
            return read_wanted(data)
        except InvalidError as error:
            raise ValidationError(str(error)) from None


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
        validators=[exact_numbers],
        help_text="Facts for the assistant, such as customer_name: text, numbers or booleans, stored as text.",
    )
    metadata = serializers.DictField(
        child=serializers.JSONField(allow_null=True), default=dict, validators=[exact_numbers]
    )
    assistant = Text(
        required=False, max_length=63, help_text="The assistant's key. Default: the assistant of the account or client."
    )
    greet = Flag(default=True, help_text="True if the assistant sends the first message.")
    template = TemplateField(
        required=False, help_text="The template with which the conversation begins, in place of the assistant's words."
    )


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


class NewAttachmentSerializer(serializers.Serializer[Any]):
    """A file to send."""

    url = serializers.RegexField(
        WEB_ADDRESS,
        max_length=LONGEST_URL,
        help_text="Where Convo fetches it, once: http or https, at a public address.",
        error_messages={"invalid": NOT_AN_ADDRESS},
    )
    name = Text(max_length=LONGEST_FILE_NAME, required=False, help_text="Default: the last part of the URL's path.")

    def to_internal_value(self, data: Any) -> Any:
        """Return the fields. Raises ValidationError, which names each field that is not known."""
        if isinstance(data, dict) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            raise ValidationError({unknown[0][:LONGEST_NAME]: ["This field is not supported."]})
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields with a name."""
        return {**attrs, "name": name_of(attrs.get("name", ""), attrs["url"])}


class SendSerializer(serializers.Serializer[Any]):
    """A message to send in the assistant's place. Other fields are refused: what they ask for would not be sent."""

    role = Choice(choices=["ai"], default="ai")
    content = Text(
        max_length=LONGEST_TEXT,
        trim_whitespace=False,
        required=False,
        help_text="Needed where there are neither a template nor attachments.",
    )
    template = TemplateField(required=False, help_text="In place of `content`: an approved template, at any time.")
    choices = ChoicesField(required=False)
    choices_label = Text(
        max_length=LONGEST_LABEL, required=False, help_text="The word on the button that opens a list, on WhatsApp."
    )
    attachments = serializers.ListField(
        child=NewAttachmentSerializer(),
        max_length=MOST_FILES,
        default=list,
        help_text="Files to send after the text, each as a message of its own.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields. Raises ValidationError, which names each field that is not known."""
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            raise ValidationError(
                {name[:LONGEST_NAME]: ["This field is not supported."] for name in unknown[:MOST_NAMES]}
            )
        if "template" in attrs:
            self._check_alone(attrs)
        elif "content" not in attrs and not attrs["attachments"]:
            raise ValidationError({"content": ["This field is required."]})
        if "choices" in attrs:
            if "content" not in attrs:
                raise ValidationError({"choices": ["Choices are offered below a text."]})
            attrs["choices"] = read_choices(attrs["choices"], attrs.get("choices_label", ""))
        return attrs

    def _check_alone(self, attrs: dict[str, Any]) -> None:
        if "content" in attrs:
            raise ValidationError({"content": ["Give either content or template."]})
        if "choices" in attrs:
            raise ValidationError({"choices": ["A template has its own buttons."]})
        if attrs["attachments"]:
            raise ValidationError({"attachments": ["A template has its own header. Send files on their own."]})


class SentSerializer(serializers.Serializer[Any]):
    """The new chunk and the messages that carry it, one for each part of a long text."""

    chunk = ChunkWithFilesSerializer(read_only=True)
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
    choices = ChoicesField(required=False, allow_null=True)
    choices_label = Text(max_length=LONGEST_LABEL, required=False, allow_null=True, allow_blank=True)
    attachments = serializers.ListField(
        child=NewAttachmentSerializer(),
        max_length=MOST_FILES,
        required=False,
        allow_null=True,
        help_text="Files to send after the texts, each as a message of its own.",
    )
    opt_out = HandOverSerializer(
        required=False, allow_null=True, help_text="Present if the person wants no more messages: these are the last."
    )
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
