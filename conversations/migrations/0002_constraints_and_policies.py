"""The rules that models cannot state: keys that begin with the client, and row-level security under the copilot."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, migrations, transaction

# The primary keys of clients' rows, and the foreign keys between them. Django goes on by the second column alone.
PRIMARY_KEYS = {
    "attachments": "id",
    "chunk_corrections": "id",
    "client_days": "id",
    "contact_identities": "id",
    "contact_matches": "id",
    "contacts": "id",
    "conversation_activities": "id",
    "conversation_call_answers": "id",
    "conversation_chunks": "id",
    "conversation_events": "id",
    "conversation_messages": "id",
    "conversation_orders": "id",
    "conversation_states": "conversation_id",
    "conversation_steps": "id",
    "conversation_summaries": "conversation_id",
    "conversation_turns": "id",
    "conversations": "id",
    "copilot_deltas": "turn_id, attempt, start",
    "copilot_feedback": "chunk_id",
    "desk_conversation_labels": "id",
    "desk_drafts": "id",
    "desk_mentions": "id",
    "desk_notes": "id",
    "desk_presences": "id",
    "desk_seen": "id",
    "desk_states": "id",
    "engine_chat_removals": "chat_id",
    "engine_chats": "chat_id",
    "erasures": "id",
    "event_deliveries": "id",
    "event_notes": "id",
    "events": "id",
    "idempotency_keys": "id",
    "media_removals": "id",
    "message_tombstones": "dedupe_key",
    "send_circuits": "channel_account_id",
    "send_pauses": "id",
    "simulated_exchanges": "id",
    "simulated_faults": "id",
    "tool_calls": "id",
}
GO_WITH = {
    ("attachments", "conversation_id"): "conversations",
    ("chunk_corrections", "chunk_id"): "conversation_chunks",
    ("contact_identities", "contact_id"): "contacts",
    ("contact_matches", "first_id"): "contacts",
    ("contact_matches", "second_id"): "contacts",
    ("contacts", "merged_into_id"): "contacts",
    ("conversation_activities", "chunk_id"): "conversation_chunks",
    ("conversation_activities", "conversation_id"): "conversations",
    ("conversation_call_answers", "conversation_id"): "conversations",
    ("conversation_chunks", "conversation_id"): "conversations",
    ("conversation_events", "conversation_id"): "conversations",
    ("conversation_messages", "chunk_id"): "conversation_chunks",
    ("conversation_messages", "conversation_id"): "conversations",
    ("conversation_orders", "conversation_id"): "conversations",
    ("conversation_states", "conversation_id"): "conversations",
    ("conversation_steps", "conversation_id"): "conversations",
    ("conversation_summaries", "conversation_id"): "conversations",
    ("conversation_turns", "chunk_id"): "conversation_chunks",
    ("conversation_turns", "conversation_id"): "conversations",
    ("copilot_deltas", "turn_id"): "conversation_turns",
    ("copilot_feedback", "chunk_id"): "conversation_chunks",
    ("copilot_feedback", "conversation_id"): "conversations",
    ("desk_conversation_labels", "conversation_id"): "conversations",
    ("desk_drafts", "conversation_id"): "conversations",
    ("desk_mentions", "conversation_id"): "conversations",
    ("desk_mentions", "note_id"): "desk_notes",
    ("desk_notes", "conversation_id"): "conversations",
    ("desk_presences", "conversation_id"): "conversations",
    ("desk_seen", "conversation_id"): "conversations",
    ("desk_states", "conversation_id"): "conversations",
    ("engine_chat_removals", "erasure_id"): "erasures",
    ("engine_chats", "conversation_id"): "conversations",
    ("idempotency_keys", "conversation_id"): "conversations",
    ("tool_calls", "conversation_id"): "conversations",
}

ROLE = settings.COPILOT_ROLE

# The users who are signed in, as ids in a setting that lasts as long as the transaction. Without it: nobody.
LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"
# They run as the owner of the tables, whom no policy binds, and read no more than is asked for: nested sub-selects in
# the policies would take ten times as long to plan as the queries themselves.
FUNCTIONS = {
    "copilot_clients()": (
        "uuid[]",
        f"""ARRAY(SELECT c.id FROM memberships m JOIN clients c ON c.id = m.client_id
                  WHERE m.user_id = {LOGINS} AND c.is_active)""",
    ),
    "copilot_contacts()": (
        "uuid[]",
        f"ARRAY(SELECT p.id FROM contacts p WHERE p.client_id = ANY (copilot_clients()) AND p.login_id = {LOGINS})",
    ),
    "copilot_sees(client uuid, session uuid)": (
        "boolean",
        f"""EXISTS (
            SELECT FROM conversations s JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
            JOIN memberships m ON m.user_id = p.login_id AND m.client_id = p.client_id
            JOIN clients c ON c.id = p.client_id AND c.is_active
            WHERE s.client_id = client AND s.id = session AND s.channel = 'web' AND p.login_id = {LOGINS})""",
    ),
}
MINE = "ANY ((SELECT copilot_clients())::uuid[])"  # a sub-select, so that a query asks once
SEEN = "copilot_sees(client_id, conversation_id)"
# By table: the rows that the role sees, and what it may do with them.
CONFINED = {
    "memberships": (f"user_id = {LOGINS}", "SELECT"),
    "clients": (f"id = {MINE}", "SELECT"),
    "assistants": (f"client_id = {MINE}", "SELECT"),
    "contacts": (f"login_id = {LOGINS} AND client_id = {MINE}", "SELECT, INSERT"),
    "conversations": (
        f"channel = 'web' AND client_id = {MINE} AND contact_id = ANY ((SELECT copilot_contacts())::uuid[])",
        "SELECT, INSERT, UPDATE, DELETE",
    ),
    "conversation_chunks": (SEEN, "SELECT, INSERT, UPDATE (metadata)"),
    "conversation_turns": (SEEN, "SELECT, INSERT, UPDATE (stop_asked_at)"),
    "conversation_events": (SEEN, "SELECT, INSERT"),
    "chunk_corrections": (
        "EXISTS (SELECT FROM conversation_chunks k"
        " WHERE k.client_id = chunk_corrections.client_id AND k.id = chunk_corrections.chunk_id)",
        "SELECT",
    ),
    "copilot_feedback": (SEEN, "SELECT, INSERT, UPDATE, DELETE"),
    "copilot_deltas": (f"login_id = {LOGINS}", "SELECT"),
}

WHAT_TO_RUN = """
The copilot needs the database role "{role}", which row-level security confines to the signed-in user's rows,
and the role "{own}" may not {what}. Have a superuser run this once, then migrate again:

    CREATE ROLE "{role}" NOLOGIN;
    GRANT "{role}" TO "{own}";

Another name can be set as COPILOT_ROLE."""


def key(table: str, columns: str) -> migrations.RunSQL:
    """Return the operation that makes the client the beginning of the table's primary key."""
    return migrations.RunSQL(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey,"
        f" ADD CONSTRAINT {table}_pkey PRIMARY KEY (client_id, {columns})"
    )


def go_with(table: str, column: str, other: str) -> migrations.RunSQL:
    """Return the operation after which the rows of the table are deleted with the rows that the column names."""
    name = f"{table}_{column}_cascades"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (client_id, {column}) REFERENCES {other}"
        f" (client_id, {PRIMARY_KEYS[other]}) ON DELETE CASCADE"
    )


# Rows go in many ways, most of them by a cascade: this is the one place that none of them passes by.
REMOVE_FILES = """
CREATE FUNCTION note_media_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO media_removals (client_id, attachment, conversation, due_at)
    VALUES (OLD.client_id, OLD.id, OLD.conversation_id,
            GREATEST(now(), CASE WHEN OLD.claim IS NOT NULL THEN OLD.due_at END))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER attachments_leave_no_files AFTER DELETE ON attachments
    FOR EACH ROW EXECUTE FUNCTION note_media_removal();
"""


def make_role(apps: Any, schema_editor: Any) -> None:
    """Create the copilot's role, if it is missing, and let our own role take it on.

    Raises CommandError with the statements for a superuser where we are not allowed to.
    """
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [ROLE])
        [(own, exists)] = cursor.fetchall()
        if not exists and not _allowed(cursor, f'CREATE ROLE "{ROLE}" NOLOGIN'):
            # Or it was made at this very moment, for another database of the same server.
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if not cursor.fetchall():
                raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="create it"))
        if not _can_take_on(cursor) and not (
            _allowed(cursor, f'GRANT "{ROLE}" TO CURRENT_USER') and _can_take_on(cursor)
        ):
            raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="take it on"))


def _can_take_on(cursor: Any) -> bool:
    return _allowed(cursor, f'SET LOCAL ROLE "{ROLE}"') and _allowed(cursor, "SET LOCAL ROLE NONE")


def _allowed(cursor: Any, statement: str) -> bool:
    try:
        with transaction.atomic(using=cursor.db.alias):
            cursor.execute(statement)
    except DatabaseError:
        return False
    return True


def function(name: str, kind: str, query: str) -> migrations.RunSQL:
    """Return the operation that creates a function for the policies."""
    return migrations.RunSQL(
        [
            f"CREATE FUNCTION {name} RETURNS {kind} LANGUAGE plpgsql STABLE SECURITY DEFINER "
            f"AS $$ BEGIN RETURN {query}; END $$",
            # Our tables and no others: the caller could have temporary ones of the same names.
            f"DO $$ BEGIN EXECUTE format('ALTER FUNCTION {name} SET search_path = %I, pg_temp', current_schema()); "
            "END $$",
            f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
            f'GRANT EXECUTE ON FUNCTION {name} TO "{ROLE}"',
        ]
    )


def confine(table: str, seen: str, deeds: str) -> migrations.RunSQL:
    """Return the operation that shows the copilot's role the rows of the table for which `seen` holds.

    The policies bind this role alone: they are restrictive, beside one that lets all others through.
    """
    return migrations.RunSQL(
        [
            f"CREATE POLICY everybody ON {table} USING (true)",
            f'CREATE POLICY copilot ON {table} AS RESTRICTIVE TO "{ROLE}" USING ({seen})',
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f'GRANT {deeds} ON {table} TO "{ROLE}"',
        ]
    )


class Migration(migrations.Migration):
    """Keys, constraints and policies."""

    dependencies = [("conversations", "0001_initial")]

    operations = [
        *(key(table, columns) for table, columns in PRIMARY_KEYS.items()),
        *(go_with(table, column, other) for (table, column), other in GO_WITH.items()),
        migrations.RunSQL(
            "ALTER TABLE conversations ADD CONSTRAINT conversations_contact_id_stays"
            " FOREIGN KEY (client_id, contact_id) REFERENCES contacts (client_id, id) DEFERRABLE INITIALLY DEFERRED"
        ),
        # The file stays when its chunk is archived.
        migrations.RunSQL(
            "ALTER TABLE attachments ADD CONSTRAINT attachments_chunk_id_follows FOREIGN KEY (client_id, chunk_id)"
            " REFERENCES conversation_chunks (client_id, id) ON DELETE SET NULL (chunk_id)"
        ),
        migrations.RunSQL(REMOVE_FILES),
        # Room for the new version of a row in its page, so that an append writes no index.
        migrations.RunSQL("ALTER TABLE conversations SET (fillfactor = 80)"),
        migrations.RunPython(make_role),
        *(function(name, *how) for name, how in FUNCTIONS.items()),
        *(confine(table, *how) for table, how in CONFINED.items()),
    ]
