"""The words stay in their row: a search that ranks, or looks for words in a row, reads them of everything it finds. What
was written before stays beside its row until it is written anew (`rebuild_memory database`)."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("memory", "0003_rebuild_stores")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE memories ALTER COLUMN document SET STORAGE MAIN",
            "ALTER TABLE memories ALTER COLUMN document SET STORAGE EXTENDED",
        ),
    ]
