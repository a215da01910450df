"""The question about satisfaction on the web, the reason for a low rating, and what becomes of a colleague's
conversations who goes away."""

from __future__ import annotations

import django.core.validators
from django.db import migrations, models

import conversations.models.checks

CHANNELS = [
    ("messenger", "Messenger"),
    ("whatsapp", "WhatsApp"),
    ("sms", "SMS"),
    ("orb", "Orb"),
    ("web", "Web"),
]
CHANNEL_KNOWN = '{0} = ANY (\'{{"messenger","whatsapp","sms","orb","web"}}\'::text[])'


class Migration(migrations.Migration):
    dependencies = [
        ("conversations", "0013_sums_by_day"),
    ]

    operations = [
        migrations.AddField(
            model_name="client",
            name="when_away",
            field=models.CharField(
                choices=[
                    ("keep", "They stay with the colleague"),
                    ("ask", "The colleague is asked"),
                    ("give_back", "They go back to their team, or to unassigned"),
                ],
                db_default="ask",
                default="ask",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="client",
            constraint=models.CheckConstraint(
                condition=conversations.models.checks.Rule(
                    '{0} = ANY (\'{{"keep","ask","give_back"}}\'::text[])', "when_away"
                ),
                name="client_when_away_known",
            ),
        ),
        migrations.AddField(
            model_name="contact",
            name="comment_until",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="rating",
            name="why_asked_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="rating",
            name="comment",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AddField(
            model_name="rating",
            name="comment_id",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("comment", ""), ("comment_id__isnull", True)),
                    ("score__isnull", False),
                    _connector="OR",
                ),
                name="rating_comment_after_score",
            ),
        ),
        migrations.AddField(
            model_name="survey",
            name="why",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="Asked after an answer of 1 or 2 or a thumb down, such as: We are sorry. What went wrong?"
                " The person's next message within half an hour is kept with the rating and opens no conversation."
                " Empty: not asked.",
                validators=[django.core.validators.MaxLengthValidator(900)],
                verbose_name="question after a low rating",
            ),
        ),
        migrations.AddField(
            model_name="survey",
            name="thanks",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="The answer to it, such as: Thank you. We read every comment.",
                validators=[django.core.validators.MaxLengthValidator(900)],
                verbose_name="thanks",
            ),
        ),
        migrations.AddConstraint(
            model_name="survey",
            constraint=models.CheckConstraint(
                condition=conversations.models.checks.Rule("({0} = '') = ({1} = '')", "why", "thanks"),
                name="survey_thanks_for_why",
                violation_error_message="Write both the question after a low rating and the thanks, or neither.",
            ),
        ),
        migrations.RemoveConstraint(
            model_name="survey",
            name="survey_channel_known",
        ),
        migrations.AlterField(
            model_name="survey",
            name="channel",
            field=models.CharField(choices=CHANNELS, max_length=10),
        ),
        migrations.AddConstraint(
            model_name="survey",
            constraint=models.CheckConstraint(
                condition=conversations.models.checks.Rule(CHANNEL_KNOWN, "channel"),
                name="survey_channel_known",
            ),
        ),
    ]
