"""Bodies and query parameters of the API, and what they may hold."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from channels_out.choices import LONGEST_LABEL, read_choices
from channels_out.given_files import LONGEST_NAME as LONGEST_FILE_NAME
from channels_out.given_files import LONGEST_URL, MOST_FILES, NOT_AN_ADDRESS, WEB_ADDRESS, name_of
from channels_out.kinds import Channel
from conversations.api.fields import (
    LONGEST_TEXT,
    Choice,
    ChoicesField,
    Flag,
    IdField,
    TemplateField,
    Text,
    exact_numbers,
)
from conversations.engines.agent_answers import MOST_MESSAGES
from conversations.models import Status
from conversations.services.staff_actions.outreach import CHANNELS
from conversations.services.transitions.steps import FINAL

MOST_NAMES, LONGEST_NAME = 20, 100  # of unknown fields that an error names


class NewStepSerializer(serializers.Serializer[Any]):
    """A new step."""

    description = Text(max_length=2_000)


class StepChangeSerializer(serializers.Serializer[Any]):
    """The new status of a step."""

    status = Choice(choices=[str(status) for status in FINAL])


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
