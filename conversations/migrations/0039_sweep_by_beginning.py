"""The sweep looks for active sessions by their beginning, and no more by client. Where 0037 has made the index so already,
it is made once more: it holds what is active alone."""

import channels_out.kinds
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0038_note_moved_addresses")]

    operations = [
        migrations.RemoveIndex(model_name="conversation", name="active_that_age"),
        migrations.AddIndex(
            model_name="conversation",
            index=models.Index(
                name="active_that_age",
                fields=["started_at"],
                condition=models.Q(status="active") & ~models.Q(channel=channels_out.kinds.Channel.WEB),
            ),
        ),
    ]
