"""A person's language and time zone, and the real names of channels."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

CHANNELS = [
    ("messenger", "Messenger"),
    ("whatsapp", "WhatsApp"),
    ("sms", "SMS"),
    ("orb", "Orb"),
    ("voice", "Phone"),
    ("web", "Web"),
]


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("conversations", "0011_person_and_proposals"),
    ]

    operations = [
        migrations.CreateModel(
            name="Preferences",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("language", models.CharField(blank=True, db_default="", default="", max_length=20)),
                ("time_zone", models.CharField(blank=True, db_default="", default="", max_length=50)),
            ],
            options={"db_table": "user_preferences"},
        ),
        *(
            migrations.AlterField(
                model_name=model, name="channel", field=models.CharField(choices=CHANNELS, max_length=10, **more)
            )
            for model, more in (
                ("channelaccount", {}),
                ("contactidentity", {}),
                ("conversation", {}),
                ("retentionpolicy", {"blank": True, "default": ""}),
            )
        ),
        migrations.AlterField(
            model_name="survey",
            name="channel",
            field=models.CharField(choices=CHANNELS[:4], max_length=10),
        ),
    ]
