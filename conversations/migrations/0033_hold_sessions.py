"""A legal hold on a session."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", "0032_list_feedback")]

    operations = [
        migrations.AddField(
            model_name='conversation',
            name='hold_reason',
            field=models.CharField(blank=True, db_default='', default='', max_length=200),
        ),
    ]
