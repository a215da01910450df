"""What goes with a conversation goes by one key. A second, by way of its chunk, was asked for each chunk deleted."""

from django.db import migrations

SECOND_KEYS = {
    "attachments_chunk_id_follows": "attachments",
    "conversation_activities_chunk_id_cascades": "conversation_activities",
    "conversation_messages_chunk_id_cascades": "conversation_messages",
    "conversation_turns_chunk_id_cascades": "conversation_turns",
    "copilot_feedback_chunk_id_cascades": "copilot_feedback",
    "desk_mentions_conversation_id_cascades": "desk_mentions",
}


class Migration(migrations.Migration):
    """Keys."""

    dependencies = [("conversations", "0014_web_ratings_comments_and_away")]

    operations = [
        # The tables that the keys lead to, in the order of those that write.
        migrations.RunSQL("LOCK TABLE conversations, conversation_chunks IN ACCESS EXCLUSIVE MODE"),
        *(
            migrations.RunSQL(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
            for name, table in SECOND_KEYS.items()
        ),
        # In a cluster a trigger stood for the first of them.
        migrations.RunSQL("DROP TRIGGER IF EXISTS chunks_leave_attachments ON conversation_chunks"),
        migrations.RunSQL("DROP FUNCTION IF EXISTS forget_chunk_of_attachments()"),
        migrations.RemoveIndex(model_name="mention", name="mentions_in_conversation"),
    ]
