"""The question about satisfaction that ends a conversation, and its answers."""

from __future__ import annotations

from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from channels_out.kinds import Channel
from conversations.models.checks import Rule, one_of
from conversations.models.choices import CHANNELS
from conversations.models.client import Client
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey

LONGEST_QUESTION = 900  # characters; WhatsApp takes 1,024 above choices
BEST, WORST = 5, 1
LOW = 2  # a rating of so many or less


class Scale(models.TextChoices):
    """The scales on which people rate. A thumb up is a 5, a thumb down a 1."""

    FIVE = "five", _("1 to 5")
    THUMBS = "thumbs", _("Thumbs up or down")


# A call is over when its conversation is.
SURVEYED = tuple(channel.value for channel in Channel if channel != Channel.VOICE)


class Survey(models.Model):
    """A client's question about satisfaction on a channel, asked where a conversation has ended."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="surveys", db_index=False)
    channel = models.CharField(max_length=10, choices=[each for each in CHANNELS if each[0] in SURVEYED])
    is_active = models.BooleanField(_("active"), default=True, db_default=True)
    text = models.TextField(
        _("question"),
        validators=[MaxLengthValidator(LONGEST_QUESTION)],
        help_text=_(
            "Write what the answers mean, such as: How satisfied are you? Answer with a number from 1 (not at all)"
            " to 5 (very). Where the channel has buttons or lists, the answers are offered as such."
        ),
    )
    scale = models.CharField(max_length=10, choices=Scale, default=Scale.FIVE, db_default=Scale.FIVE)
    days_between = models.PositiveSmallIntegerField(
        _("days between two questions"),
        default=30,
        db_default=30,
        validators=[MinValueValidator(0), MaxValueValidator(3650)],
        help_text=_("A person who was asked is not asked again for so many days, on any channel. 0: each time."),
    )

    # Both or neither: what is asked after a low rating, and the answer to what the person then says.
    why = models.TextField(
        _("question after a low rating"),
        blank=True,
        default="",
        db_default="",
        validators=[MaxLengthValidator(LONGEST_QUESTION)],
        help_text=_(
            "Asked after an answer of 1 or 2 or a thumb down, such as: We are sorry. What went wrong? The person's"
            " next message within half an hour is kept with the rating and opens no conversation. Empty: not asked."
        ),
    )
    thanks = models.TextField(
        _("thanks"),
        blank=True,
        default="",
        db_default="",
        validators=[MaxLengthValidator(LONGEST_QUESTION)],
        help_text=_("The answer to it, such as: Thank you. We read every comment."),
    )

    class Meta:
        db_table = "surveys"
        ordering = ["channel"]
        verbose_name = _("satisfaction question")
        constraints = [
            # Used by every end of a conversation.
            models.UniqueConstraint(name="one_survey_of_a_channel", fields=["client", "channel"]),
            models.CheckConstraint(name="survey_channel_known", condition=one_of("channel", SURVEYED)),
            models.CheckConstraint(name="survey_scale_known", condition=one_of("scale", ("five", "thumbs"))),
            models.CheckConstraint(name="survey_days_between_known", condition=models.Q(days_between__lte=3650)),
            models.CheckConstraint(
                name="survey_thanks_for_why",
                condition=Rule("({0} = '') = ({1} = '')", "why", "thanks"),
                violation_error_message=_("Write both the question after a low rating and the thanks, or neither."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel}: {self.text[:60]}"


class Rating(OfClient):
    """The question of one conversation, and the person's answer. A conversation without a row was not asked.

    asked ──(a choice, or a number)──► rated ──(low, and the client asks why)──► why asked ──(a message)──► commented

    `comment` is how the message `comment_id` reads; it outlives the messages, which the archive deletes.
    """

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="ratings", db_constraint=False, db_index=False
    )  # cascades in the database
    scale = models.CharField(max_length=10, choices=Scale)
    asked_at = models.DateTimeField()
    score = models.SmallIntegerField(null=True, help_text="1 to 5.")
    rated_at = models.DateTimeField(null=True)
    why_asked_at = models.DateTimeField(null=True)
    comment = models.TextField(blank=True, default="", db_default="")
    comment_id = models.BigIntegerField(null=True)

    class Meta:
        db_table = "ratings"
        constraints = [
            models.UniqueConstraint(name="one_rating_of_a_conversation", fields=["client", "conversation"]),
            models.CheckConstraint(name="rating_scale_known", condition=one_of("scale", ("five", "thumbs"))),
            models.CheckConstraint(
                name="rating_is_answered_or_not",
                condition=models.Q(score__isnull=True, rated_at__isnull=True)
                | models.Q(score__gte=WORST, score__lte=BEST, rated_at__isnull=False),
            ),
            models.CheckConstraint(
                name="rating_comment_after_score",
                condition=models.Q(comment_id__isnull=True, comment="") | models.Q(score__isnull=False),
            ),
        ]
        indexes = [
            # Used by the figures of a quarter of an hour.
            models.Index(name="ratings_asked", fields=["client", "asked_at"]),
            models.Index(
                name="ratings_given", fields=["client", "rated_at"], condition=models.Q(rated_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.score} of {BEST}" if self.score else "not rated"
