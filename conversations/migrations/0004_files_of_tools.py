"""Note which tool call gave a file, and whether a tool may send any: tools that exist already send none."""

from __future__ import annotations

from django.db import migrations, models

HELP = "Files that its answer names are sent to the person with the reply. Off: they are not."


class Migration(migrations.Migration):
    """The two columns."""

    dependencies = [("conversations", "0003_find_people")]

    operations = [
        migrations.AddField("attachment", "call", models.UUIDField(null=True)),
        migrations.AddField("tool", "sends_files", models.BooleanField(default=False, db_default=False, help_text=HELP)),
        migrations.AlterField("tool", "sends_files", models.BooleanField(default=True, db_default=True, help_text=HELP)),
    ]
