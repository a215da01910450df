"""What is long is kept beside the row, so that a search which meets many sessions reads few pages."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("memory", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE memories SET (toast_tuple_target = 128)", "ALTER TABLE memories RESET (toast_tuple_target)"
        ),
    ]
