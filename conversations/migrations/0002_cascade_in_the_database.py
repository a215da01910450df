"""Foreign keys whose cascade is the database's own, so that a purge is one statement."""

from django.db import migrations

CASCADES = [
    # table, column, referenced table
    ("contact_identities", "contact_id", "contacts"),
    ("contact_identities", "client_id", "clients"),
    ("conversation_chunks", "conversation_id", "conversations"),
    ("conversation_steps", "conversation_id", "conversations"),
    ("conversation_events", "conversation_id", "conversations"),
    ("conversation_messages", "conversation_id", "conversations"),
    ("conversation_messages", "chunk_id", "conversation_chunks"),
    ("conversation_turns", "conversation_id", "conversations"),
    ("conversation_turns", "chunk_id", "conversation_chunks"),
]


def cascade(table: str, column: str, referenced: str) -> migrations.RunSQL:
    name = f"{table}_{column}_cascades"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {referenced} (id) "
        "ON DELETE CASCADE",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [("conversations", "0001_initial")]

    operations = [
        *(cascade(*row) for row in CASCADES),
        # Room on each page, so that appending to a session stays a heap-only update.
        migrations.RunSQL(
            "ALTER TABLE conversations SET (fillfactor = 80)", "ALTER TABLE conversations RESET (fillfactor)"
        ),
    ]
