"""A transcript as a document; describes what services/export/transcripts.py writes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.api.serializers import Choice
from conversations.models import Role, Step
from conversations.services.export.transcripts import FORMATS


class TranscriptFormatSerializer(serializers.Serializer[Any]):
    """How to write it down."""

    format = Choice(choices=[*FORMATS], default="json")


class TranscriptContactSerializer(serializers.Serializer[Any]):
    """Whose session it is."""

    user_id = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    phone = serializers.CharField(allow_null=True)


class TranscriptStepSerializer(serializers.Serializer[Any]):
    """A mini-goal."""

    description = serializers.CharField()
    status = serializers.ChoiceField([*Step.Status.values])


class TranscriptChunkSerializer(serializers.Serializer[Any]):
    """One entry, as it should be read."""

    position = serializers.IntegerField()
    role = serializers.ChoiceField([*Role.values])
    content = serializers.CharField()
    by_staff = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    original = serializers.CharField(required=False, help_text="What was said, where that was corrected.")
    delivery = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="What became of its parts, where it was sent."
    )


class TranscriptSerializer(serializers.Serializer[Any]):
    """A session with all that was said in it, also where it is archived."""

    id = serializers.UUIDField()
    client = serializers.CharField(help_text="Its sub-domain.")
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
