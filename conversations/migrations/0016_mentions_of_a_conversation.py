"""The index of mentions by conversation, which merging and exports of a person use."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Mentions."""

    dependencies = [("conversations", "0015_keys_of_chunks")]

    operations = [
        migrations.AddIndex(
            model_name="mention",
            index=models.Index(fields=["client", "conversation"], name="mentions_in_conversation"),
        ),
    ]
