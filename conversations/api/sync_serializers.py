"""What the sync protocol takes and gives, in its own camelCase; unknown fields are passed over, null says: absent."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conversations.api.serializers import LONGEST_TEXT, Choice, Text
from conversations.models.agent_state import Intent
from conversations.services.agent_sync.state import phone_of

LONGEST_ID = 200
LONGEST_EXTENSION = 30 * 24  # hours
FURTHEST = 1_000_000


@extend_schema_field({"type": "object", "additionalProperties": {}})
class Object(serializers.Field[dict[str, Any], dict[str, Any], Any, Any]):
    """A JSON object of any keys."""

    default_error_messages = {"invalid": "Must be an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Raises ValidationError for anything else."""
        if not isinstance(data, dict):
            self.fail("invalid")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return value


class Number(serializers.IntegerField):
    """A whole number, also where it comes as a string."""

    def to_internal_value(self, data: Any) -> int:
        """Raises ValidationError for anything else."""
        if isinstance(data, bool | float):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field({"type": "boolean"})
class YesOrNo(serializers.Field[bool, Any, Any, Any]):
    """true or false, also where it comes as a string."""

    default_error_messages = {"invalid": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        """Raises ValidationError for anything else."""
        if isinstance(data, str) and data.lower() in ("true", "false"):
            return data.lower() == "true"
        if not isinstance(data, bool):
            self.fail("invalid")
        return data

    def to_representation(self, value: bool) -> bool:
        """As it is."""
        return value


@extend_schema_field({"type": "string", "format": "phone", "maxLength": 50})
class Phone(Text):
    """A phone number, kept as E.164."""

    def to_internal_value(self, data: Any) -> str:
        """Raises ValidationError for what is none."""
        phone = phone_of(super().to_internal_value(data))
        if phone is None:
            raise serializers.ValidationError(
                "Must be a phone number with its country code, such as +51999999999.", code="invalid"
            )
        return phone


def _id(help_text: str, **more: Any) -> Text:
    return Text(max_length=LONGEST_ID, required=False, allow_null=True, help_text=help_text, **more)


class WhoseSerializer(serializers.Serializer[Any]):
    """For whom the agent speaks."""

    subDomain = Text(max_length=63, required=False, allow_null=True, help_text="Must be that of the key's client.")  # noqa: N815
    localId = _id("A branch of the client.")  # noqa: N815


class PlainSerializer(WhoseSerializer):
    """A body that may be empty."""


class FindSerializer(WhoseSerializer):
    """Which open session of a person is meant."""

    botId = _id("The bot it is with.")  # noqa: N815


class ListSerializer(FindSerializer):
    """Which open sessions to list."""

    intent = Choice(choices=Intent.values, required=False, allow_null=True)
    limit = Number(default=50, min_value=1, max_value=100)
    offset = Number(default=0, min_value=0, max_value=FURTHEST)


class LookupSerializer(serializers.Serializer[Any]):
    """Which open session of a person is meant."""

    botId = _id("The bot it is with.")  # noqa: N815


class StartSerializer(FindSerializer):
    """A session to open, or to find where one is open."""

    userId = Phone(max_length=50)  # noqa: N815
    metadata = Object(
        required=False, allow_null=True, help_text="`platform` names the channel (whatsapp where it names none)."
    )


class IntentSerializer(WhoseSerializer):
    """What the person is about, and how far."""

    intent = Choice(choices=Intent.values)
    step = _id("The step of the flow.")


class ContextSerializer(WhoseSerializer):
    """What to remember."""

    context = Object(help_text="Objects are merged deeply, everything else takes the place of what was there.")  # type: ignore[assignment]
    merge = YesOrNo(required=False, allow_null=True, help_text="false: it takes the place of the whole context.")


class NewMessageSerializer(WhoseSerializer):
    """What was said."""

    role = Choice(choices=["user", "bot"])
    content = Text(max_length=LONGEST_TEXT, trim_whitespace=False)
    messageId = _id("Unique in its session: the same again changes nothing.")  # noqa: N815


class ResetSerializer(WhoseSerializer):
    """A new beginning."""

    keepHistory = YesOrNo(required=False, allow_null=True)  # noqa: N815


class ExtendSerializer(WhoseSerializer):
    """How long the session is to live on."""

    hours = Number(required=False, allow_null=True, min_value=1, max_value=LONGEST_EXTENSION)


class NewOrderSerializer(WhoseSerializer):
    """An order that came of the session."""

    orderId = Text(max_length=LONGEST_ID)  # noqa: N815


class SyncSerializer(serializers.Serializer[Any]):
    """Everything at once."""

    intent = Choice(choices=Intent.values, required=False, allow_null=True)
    step = _id("The step of the flow.")
    context = Object(required=False, allow_null=True)  # type: ignore[assignment]
    metadata = Object(required=False, allow_null=True)
    isActive = YesOrNo(required=False, allow_null=True, help_text="false ends the session.")  # noqa: N815


# --- what is given; services/agents/sync_state.py builds it ----------------------------------------------------------
class StateSerializer(serializers.Serializer[Any]):
    """The state object."""

    sessionId = serializers.UUIDField()  # noqa: N815
    userId = serializers.CharField(help_text="The phone (E.164), where it is known.")  # noqa: N815
    botId = serializers.CharField(allow_null=True)  # noqa: N815
    subDomain = serializers.CharField()  # noqa: N815
    localId = serializers.CharField(allow_null=True)  # noqa: N815
    currentIntent = serializers.ChoiceField(Intent.values)  # noqa: N815
    currentStep = serializers.CharField()  # noqa: N815
    previousIntent = serializers.ChoiceField(Intent.values, allow_null=True)  # noqa: N815
    previousStep = serializers.CharField(allow_null=True)  # noqa: N815
    context = Object(  # type: ignore[assignment]
        help_text="What agents keep, with the newest `previousMessages` and the `lastUserMessage` as said, and"
        " `currentOrderId` and `orderHistory` as linked."
    )
    metadata = Object()
    isActive = serializers.BooleanField()  # noqa: N815
    lastActivity = serializers.DateTimeField()  # noqa: N815
    createdAt = serializers.DateTimeField()  # noqa: N815
    updatedAt = serializers.DateTimeField()  # noqa: N815
    expiresAt = serializers.DateTimeField()  # noqa: N815
    currentOrderId = serializers.CharField(allow_null=True)  # noqa: N815
    orderHistory = serializers.ListField(child=serializers.CharField())  # noqa: N815
    version = serializers.IntegerField(help_text="For `If-Match`: it counts the changes of the state.")


class StatesSerializer(serializers.Serializer[Any]):
    """A page of open sessions, and how many there are in all."""

    conversations = StateSerializer(many=True)
    count = serializers.IntegerField()


class OrdersSerializer(serializers.Serializer[Any]):
    """A session's orders."""

    currentOrderId = serializers.CharField(allow_null=True)  # noqa: N815
    orderHistory = serializers.ListField(child=serializers.CharField())  # noqa: N815


class TenantSerializer(serializers.Serializer[Any]):
    """Whom a phone talks to."""

    subDomain = serializers.CharField()  # noqa: N815
    botId = serializers.CharField(allow_null=True)  # noqa: N815
    sessionId = serializers.UUIDField()  # noqa: N815
    isActive = serializers.BooleanField()  # noqa: N815
