"""A transcript as a document. `conversations/services/export/transcripts.py` writes it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from channels_out.kinds import MediaKind
from conversations.api.fields import Choice
from conversations.api.serializers import RatingSerializer
from conversations.models import Attachment, Role, Step
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


class TranscriptFileSerializer(serializers.Serializer[Any]):
    """A picture, recording or document of an entry. `GET /conversations/{id}/chunks` has links to them."""

    id = serializers.UUIDField()
    type = serializers.ChoiceField([*MediaKind])
    state = serializers.ChoiceField([*Attachment.State.values])
    name = serializers.CharField()
    content_type = serializers.CharField(allow_blank=True)
    size = serializers.IntegerField(allow_null=True, help_text="In bytes.")
    sha256 = serializers.CharField(allow_blank=True)


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
    attachments = TranscriptFileSerializer(many=True, required=False)
    beside = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="What it quotes or is about, and what the person did with it or after it, as phrases.",
    )


class TranscriptDisclosureSerializer(serializers.Serializer[Any]):
    """A time at which the assistant said that it is a machine."""

    at = serializers.DateTimeField()
    position = serializers.IntegerField(allow_null=True, help_text="Of the entry that begins with it.")
    sentence = serializers.CharField()


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
    disclosed = TranscriptDisclosureSerializer(many=True)
    rating = RatingSerializer(allow_null=True, help_text="The person's satisfaction; null where it was not asked.")
    steps = TranscriptStepSerializer(many=True)
    chunks = TranscriptChunkSerializer(many=True)
