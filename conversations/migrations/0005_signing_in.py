"""A client may require a second factor, and a membership names the identity provider whose groups gave it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0004_files_of_tools")]

    operations = [
        migrations.AddField(
            model_name="client",
            name="requires_second_factor",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Whether members, and superusers, need a second factor to sign in.",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="provider",
            field=models.CharField(blank=True, db_default="", default="", editable=False, max_length=40),
        ),
    ]
