"""Bodies and answers of the question about satisfaction, in the API and the copilot."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.api.fields import Text
from conversations.api.serializers import RatingSerializer
from conversations.services.transitions.ratings import ShownRating

LONGEST_COMMENT = 2_000


class RatingChoiceSerializer(serializers.Serializer[Any]):
    """An answer to choose."""

    score = serializers.IntegerField(min_value=1, max_value=5)
    title = serializers.CharField(help_text="What a button says, such as `4 ★★★★` or 👍.")


class ShownRatingSerializer(RatingSerializer):
    """The question with its choices, for a page that shows it, and the answer."""

    question = serializers.CharField(allow_blank=True)
    choices = RatingChoiceSerializer(many=True)
    why = serializers.CharField(allow_blank=True, help_text="What was asked after a low rating. Empty: nothing was.")
    takes_answer = serializers.BooleanField(help_text="Whether a score can be given now.")
    takes_comment = serializers.BooleanField(help_text="Whether the answer to `why` can be given now.")


class GivenRatingSerializer(serializers.Serializer[Any]):
    """A person's answer to the question about satisfaction."""

    score = serializers.IntegerField(min_value=1, max_value=5, help_text="1 to 5; a thumb up is 5, a thumb down 1.")
    comment = Text(
        required=False,
        allow_blank=True,
        default="",
        max_length=LONGEST_COMMENT,
        help_text="Why, in the person's words; with the score, or later with the same score.",
    )


def rating_shown(found: ShownRating) -> dict[str, Any]:
    """Return the rating with its question and choices."""
    rating = found.rating
    return {
        "score": rating.score,
        "scale": rating.scale,
        "asked_at": rating.asked_at,
        "rated_at": rating.rated_at,
        "comment": rating.comment,
        "question": found.question,
        "choices": [{"score": score, "title": title} for score, title in found.choices],
        "why": found.why,
        "takes_answer": found.takes_answer,
        "takes_comment": found.takes_comment,
    }
