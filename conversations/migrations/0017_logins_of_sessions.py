"""A user's sessions with the copilot name the user in every row, and row-level security compares columns alone."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import migrations, models

ROLE = settings.COPILOT_ROLE
LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"
CLIENTS = "ANY (string_to_array(current_setting('convo.clients', true), ',')::uuid[])"
OWN = f"login_id = {LOGINS} AND client_id = {CLIENTS}"
# A transaction writes below the session alone that it has locked.
IN_SESSION = f"{OWN} AND conversation_id::text = current_setting('convo.session', true)"
# By table: the rows that the copilot's role sees, and those that it may write.
SEEN = {
    "memberships": (f"user_id = {LOGINS}", "false"),
    "clients": (f"id = {CLIENTS}", "false"),
    "assistants": (f"client_id = {CLIENTS}", "false"),
    "contacts": (OWN, OWN),
    "conversations": (OWN, OWN),
    "conversation_chunks": (OWN, IN_SESSION),
    "conversation_turns": (OWN, IN_SESSION),
    "chunk_corrections": (OWN, "false"),
    "copilot_feedback": (OWN, IN_SESSION),
    "copilot_deltas": (OWN, "false"),
}
# What it did not need: the ledger, and columns that say whose a row is.
RIGHTS = [
    f'REVOKE ALL ON conversation_events FROM "{ROLE}"',
    f'REVOKE INSERT, UPDATE ON conversations FROM "{ROLE}"',
    f'GRANT UPDATE (topic, last_message_at, last_position, inbound_sequence) ON conversations TO "{ROLE}"',
    f'REVOKE UPDATE ON copilot_feedback FROM "{ROLE}"',
    f'GRANT UPDATE (rating, note, given_at) ON copilot_feedback TO "{ROLE}"',
    "DROP POLICY everybody ON conversation_events",
    "DROP POLICY copilot ON conversation_events",
    "ALTER TABLE conversation_events DISABLE ROW LEVEL SECURITY",
]
# In a cluster there were others.
FUNCTIONS = (
    "copilot_sees_chunk(uuid, bigint)",
    "copilot_sees(uuid, uuid)",
    "copilot_owns(uuid, uuid)",
    "copilot_contacts()",
    "copilot_clients()",
    "shard_of(text, text)",
)
FILL = (
    """
    UPDATE conversations s SET login_id = p.login_id FROM contacts p
    WHERE s.client_id = %s AND p.client_id = s.client_id AND p.id = s.contact_id AND p.login_id IS NOT NULL
      AND s.channel = 'web' AND s.thread <> ''""",
    *(
        f"""
        UPDATE {table} x SET login_id = s.login_id FROM conversations s
        WHERE x.client_id = %s AND s.client_id = x.client_id AND s.id = x.conversation_id
          AND s.login_id IS NOT NULL"""
        for table in ("conversation_chunks", "conversation_turns", "copilot_feedback")
    ),
    """
    UPDATE chunk_corrections x SET login_id = k.login_id FROM conversation_chunks k
    WHERE x.client_id = %s AND k.client_id = x.client_id AND k.id = x.chunk_id AND k.login_id IS NOT NULL""",
)


def fill(apps: Any, schema_editor: Any) -> None:
    """Name the user in the rows of sessions that are there."""
    for client_id in apps.get_model("conversations", "Client").objects.values_list("pk", flat=True):
        with schema_editor.connection.cursor() as cursor:
            for statement in FILL:
                cursor.execute(statement, [client_id])


def login_of(model: str) -> migrations.AddField:
    """Return the operation that adds the column to the model's table."""
    return migrations.AddField(model, "login_id", models.IntegerField(editable=False, null=True))


def show(table: str, seen: str, written: str) -> migrations.RunSQL:
    """Return the operation that confines the copilot's role to these rows of the table, and no other role."""
    return migrations.RunSQL(
        [
            f"DROP POLICY everybody ON {table}",
            f"DROP POLICY copilot ON {table}",
            f"CREATE POLICY everybody ON {table} USING (current_user <> '{ROLE}')",
            f'CREATE POLICY copilot ON {table} TO "{ROLE}" USING ({seen}) WITH CHECK ({written})',
        ]
    )


class Migration(migrations.Migration):
    """Logins."""

    dependencies = [("conversations", "0016_mentions_of_a_conversation")]

    operations = [
        *map(login_of, ("conversation", "chunk", "turn", "correction", "feedback")),
        migrations.AlterField("delta", "login_id", models.IntegerField(editable=False, null=True)),
        migrations.RunPython(fill),
        migrations.AddIndex(
            model_name="conversation",
            index=models.Index(
                condition=models.Q(("login_id__isnull", False)),
                fields=["client", "login_id"],
                name="sessions_of_user",
            ),
        ),
        *(show(table, *rows) for table, rows in SEEN.items()),
        *map(migrations.RunSQL, RIGHTS),
        *(migrations.RunSQL(f"DROP FUNCTION IF EXISTS {function}") for function in FUNCTIONS),
    ]
