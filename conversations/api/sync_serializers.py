"""Bodies and answers of the sync protocol, in camelCase. Unknown fields are ignored; null means absent."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conversations.api.fields import LONGEST_TEXT, Choice, Text, exact_numbers
from conversations.models.agent_state import Intent
from conversations.services.agent_sync.state import person_of

LONGEST_ID = 200
LONGEST_EXTENSION = 30 * 24  # hours
FURTHEST = 1_000_000


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Object(serializers.Field[dict[str, Any], dict[str, Any], Any, Any]):
    """A JSON object with any keys."""

    default_error_messages = {"invalid": "Must be an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the value. Raises ValidationError for anything else."""
        if not isinstance(data, dict):
            self.fail("invalid")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the value unchanged."""
        return value


class Number(serializers.IntegerField):
    """A whole number, or a string that holds one."""

    def to_internal_value(self, data: Any) -> int:
        """Return the value. Raises ValidationError for anything else."""
        if isinstance(data, float) and data.is_integer():
            data = int(data)  # JSON does not tell 48 from 48.0
        if isinstance(data, bool | float):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field({"type": "boolean"})
class YesOrNo(serializers.Field[bool, Any, Any, Any]):
    """`true` or `false`, also as a string."""

    default_error_messages = {"invalid": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        """Return the value. Raises ValidationError for anything else."""
        if isinstance(data, str) and data.lower() in ("true", "false"):
            return data.lower() == "true"
        if not isinstance(data, bool):
            self.fail("invalid")
        return data

    def to_representation(self, value: bool) -> bool:
        """Return the value unchanged."""
        return value


@extend_schema_field({"type": "string", "format": "phone", "maxLength": 140})
class Phone(Text):
    """A phone number, stored as E.164, or a business-scoped user id of WhatsApp."""

    def to_internal_value(self, data: Any) -> str:
        """Return the number in E.164, or the id. Raises ValidationError for anything else."""
        phone = person_of(super().to_internal_value(data))
        if phone is None:
            raise serializers.ValidationError(
                "Must be a phone number with its country code, such as +51999999999.", code="invalid"
            )
        return phone


def _id(help_text: str, **more: Any) -> Text:
    return Text(max_length=LONGEST_ID, required=False, allow_null=True, help_text=help_text, **more)


class WhoseSerializer(serializers.Serializer[Any]):
    """The client and branch for which the agent speaks."""

    subDomain = Text(max_length=63, required=False, allow_null=True, help_text="The sub-domain of the key's client.")  # noqa: N815
    localId = _id("A branch of the client.")  # noqa: N815


class PlainSerializer(WhoseSerializer):
    """A body that may be empty."""


class FindSerializer(WhoseSerializer):
    """A filter of a person's open sessions."""

    botId = _id("The bot of the session.")  # noqa: N815


class ListSerializer(FindSerializer):
    """A filter of open sessions, with a page."""

    intent = Choice(choices=Intent.values, required=False, allow_null=True)
    limit = Number(default=50, min_value=1, max_value=100)
    offset = Number(default=0, min_value=0, max_value=FURTHEST)


class LookupSerializer(serializers.Serializer[Any]):
    """A filter of a person's open sessions."""

    botId = _id("The bot of the session.")  # noqa: N815


class StartSerializer(FindSerializer):
    """A session to open. If the person has an open one, that one is returned."""

    userId = Phone(max_length=140)  # noqa: N815
    metadata = Object(
        required=False,
        allow_null=True,
        help_text="`platform` names the channel; without it, whatsapp.",
        validators=[exact_numbers],
    )


class IntentSerializer(WhoseSerializer):
    """The person's intent and the step of the flow."""

    intent = Choice(choices=Intent.values)
    step = _id("The step of the flow.")


class ContextSerializer(WhoseSerializer):
    """A change of the context."""

    context = Object(help_text="Objects are merged deeply; every other value replaces the old one.")  # type: ignore[assignment]
    merge = YesOrNo(required=False, allow_null=True, help_text="false replaces the whole context.")


class NewMessageSerializer(WhoseSerializer):
    """A message to record."""

    role = Choice(choices=["user", "bot"])
    content = Text(max_length=LONGEST_TEXT, trim_whitespace=False)
    messageId = _id("Unique in its session. The same id again changes nothing.")  # noqa: N815


class ResetSerializer(WhoseSerializer):
    """A reset."""

    keepHistory = YesOrNo(required=False, allow_null=True)  # noqa: N815


class ExtendSerializer(WhoseSerializer):
    """An extension, in hours from now."""

    hours = Number(required=False, allow_null=True, min_value=1, max_value=LONGEST_EXTENSION)


class NewOrderSerializer(WhoseSerializer):
    """An order to link."""

    orderId = Text(max_length=LONGEST_ID)  # noqa: N815


class SyncSerializer(serializers.Serializer[Any]):
    """An agent's whole state."""

    intent = Choice(choices=Intent.values, required=False, allow_null=True)
    step = _id("The step of the flow.")
    context = Object(required=False, allow_null=True)  # type: ignore[assignment]
    metadata = Object(required=False, allow_null=True, validators=[exact_numbers])
    isActive = YesOrNo(required=False, allow_null=True, help_text="false ends the conversation.")  # noqa: N815


# --- answers; services/agent_sync/state.py builds them ----------------------------------------------------------
class StateSerializer(serializers.Serializer[Any]):
    """The state of a session."""

    sessionId = serializers.UUIDField()  # noqa: N815
    userId = serializers.CharField(help_text="The phone number (E.164) if it is known.")  # noqa: N815
    botId = serializers.CharField(allow_null=True)  # noqa: N815
    subDomain = serializers.CharField()  # noqa: N815
    localId = serializers.CharField(allow_null=True)  # noqa: N815
    currentIntent = serializers.ChoiceField(Intent.values)  # noqa: N815
    currentStep = serializers.CharField()  # noqa: N815
    previousIntent = serializers.ChoiceField(Intent.values, allow_null=True)  # noqa: N815
    previousStep = serializers.CharField(allow_null=True)  # noqa: N815
    context = Object(  # type: ignore[assignment]
        help_text="What agents store. Convo adds the newest `previousMessages` and the `lastUserMessage` from the"
        " recorded messages, and `currentOrderId` and `orderHistory` from the linked orders."
    )
    metadata = Object(validators=[exact_numbers])
    isActive = serializers.BooleanField()  # noqa: N815
    lastActivity = serializers.DateTimeField()  # noqa: N815
    createdAt = serializers.DateTimeField()  # noqa: N815
    updatedAt = serializers.DateTimeField()  # noqa: N815
    expiresAt = serializers.DateTimeField()  # noqa: N815
    currentOrderId = serializers.CharField(allow_null=True)  # noqa: N815
    orderHistory = serializers.ListField(child=serializers.CharField())  # noqa: N815
    version = serializers.IntegerField(
        help_text="The number of changes of the state. Give it as `If-Match` to refuse a change of a newer state."
    )


class StatesSerializer(serializers.Serializer[Any]):
    """A page of open sessions, and their number in all."""

    conversations = StateSerializer(many=True)
    count = serializers.IntegerField()


class OrdersSerializer(serializers.Serializer[Any]):
    """A session's orders."""

    currentOrderId = serializers.CharField(allow_null=True)  # noqa: N815
    orderHistory = serializers.ListField(child=serializers.CharField())  # noqa: N815


class TenantSerializer(serializers.Serializer[Any]):
    """The tenant and session of a phone number."""

    subDomain = serializers.CharField()  # noqa: N815
    botId = serializers.CharField(allow_null=True)  # noqa: N815
    sessionId = serializers.UUIDField()  # noqa: N815
    isActive = serializers.BooleanField()  # noqa: N815
