"""The index of turns that wait for their agent, made while replies go on: conversation_turns may be large.

It can be repeated when it is cut off: an index that is built while others write may be left invalid.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('conversations', '0044_tools'),
    ]

    operations = [
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS turns_waiting", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name='turn',
            index=models.Index(condition=models.Q(('status', 'running'), ('waiting_until__isnull', False)), fields=['waiting_until'], name='turns_waiting'),
        ),
    ]
