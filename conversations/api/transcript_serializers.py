"""A transcript as a document. `conversations/services/export/transcripts.py` writes it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.api.serializers import Choice
from conversations.models import Role, Step
from conversations.services.export.transcripts import FORMATS


class TranscriptFormatSerializer(serializers.Serializer[Any]):
    """The format of a transcript."""

    format = Choice(choices=[*FORMATS], default="json")


class TranscriptContactSerializer(serializers.Serializer[Any]):
    """The contact of the conversation."""

    user_id = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    phone = serializers.CharField(allow_null=True)


class TranscriptStepSerializer(serializers.Serializer[Any]):
    """A step of the conversation's goal."""

    description = serializers.CharField()
    status = serializers.ChoiceField([*Step.Status.values])


class TranscriptChunkSerializer(serializers.Serializer[Any]):
    """One entry, with its correction applied."""

    position = serializers.IntegerField()
    role = serializers.ChoiceField([*Role.values])
    content = serializers.CharField()
    by_staff = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    original = serializers.CharField(required=False, help_text="The original text, if the entry was corrected.")
    delivery = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="The status of each sent part."
    )


class TranscriptSerializer(serializers.Serializer[Any]):
    """A conversation with all of its entries, archived or not."""

    id = serializers.UUIDField()
    client = serializers.CharField(help_text="The client's sub-domain.")
    channel = serializers.CharField()
    status = serializers.CharField()
    contact = TranscriptContactSerializer()
    assistant = serializers.CharField(allow_null=True, help_text="The assistant's key.")
    goal = serializers.CharField()
    topic = serializers.CharField(allow_blank=True)
    summary = serializers.CharField(allow_blank=True)
    started_at = serializers.DateTimeField()
    last_message_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    ended_by = serializers.CharField(allow_blank=True)
    end_reason = serializers.CharField(allow_blank=True)
    steps = TranscriptStepSerializer(many=True)
    chunks = TranscriptChunkSerializer(many=True)
