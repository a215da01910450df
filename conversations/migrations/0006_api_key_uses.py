"""The last uses of API keys in a cluster."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """The table, whose key begins with the client."""

    dependencies = [("conversations", "0005_signing_in")]

    operations = [
        migrations.CreateModel(
            name="ApiKeyUse",
            fields=[
                ("key_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("last_used_at", models.DateTimeField()),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="conversations.client",
                    ),
                ),
            ],
            options={"db_table": "api_key_uses"},
        ),
        migrations.RunSQL(
            "ALTER TABLE api_key_uses DROP CONSTRAINT api_key_uses_pkey,"
            " ADD CONSTRAINT api_key_uses_pkey PRIMARY KEY (client_id, key_id)"
        ),
    ]
