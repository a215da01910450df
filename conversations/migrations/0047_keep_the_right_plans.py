"""Prepared statements find a person and their open conversation by the index made for that.

The index of user ids over all clients is no longer open to them. The index of all conversations of a contact gets the
order in which an opening reads them; so it is never smaller, and never seems quicker, than the index of the open ones.
The migration can be repeated when it is cut off.
"""

import django.db.models.deletion
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('conversations', '0046_transcription'),
    ]

    operations = [
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS contact_by_user_id", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name='contact',
            index=models.Index(condition=models.Q(('user_id', ''), _negated=True), fields=['user_id'], name='contact_by_user_id'),
        ),
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS contact_by_start_of_user_id",
            "CREATE INDEX IF NOT EXISTS contact_by_start_of_user_id ON contacts (user_id varchar_pattern_ops)",
            state_operations=[migrations.RemoveIndex(model_name='contact', name='contact_by_start_of_user_id')],
        ),
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS conversations_of_contact", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name='conversation',
            index=models.Index(fields=['contact', '-started_at', 'id'], name='conversations_of_contact'),
        ),
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS conversations_contact_id_b6d8cd38",
            "CREATE INDEX IF NOT EXISTS conversations_contact_id_b6d8cd38 ON conversations (contact_id)",
            state_operations=[
                migrations.AlterField(
                    model_name='conversation',
                    name='contact',
                    field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.RESTRICT, related_name='conversations', to='conversations.contact'),
                ),
            ],
        ),
    ]
