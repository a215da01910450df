"""Row-level security under the copilot: its role sees the rows of the signed-in user, whatever a query forgets.

The policies bind this one role. They are restrictive, beside a policy that lets everybody else through, so that the
tables' owner (who is not asked anyway) and any other role, say one for reports, go on as before.
"""

from __future__ import annotations

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, migrations, transaction

ROLE = settings.COPILOT_ROLE

# Who is signed in: ids of users, in a setting that lasts as long as the transaction. Nobody where it is not set.
LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"
OF_A_SESSION_SEEN = "EXISTS (SELECT FROM conversations s WHERE s.id = conversation_id)"

# table: what the role sees of it, and what it may do there. Each policy stands on those before it: a sub-select sees
# only what the role sees.
CONFINED = {
    "memberships": (f"user_id = {LOGINS}", "SELECT"),
    "clients": ("is_active AND EXISTS (SELECT FROM memberships m WHERE m.client_id = clients.id)", "SELECT"),
    "assistants": ("EXISTS (SELECT FROM clients c WHERE c.id = client_id)", "SELECT"),
    "contacts": (
        f"login_id = {LOGINS} AND EXISTS (SELECT FROM clients c WHERE c.id = client_id)",
        "SELECT, INSERT",
    ),
    "conversations": (
        "channel = 'web' AND EXISTS (SELECT FROM contacts p WHERE p.id = contact_id)",
        "SELECT, INSERT, UPDATE, DELETE",
    ),
    "conversation_chunks": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE (metadata)"),
    "conversation_turns": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE (stop_asked_at)"),
    "conversation_events": (OF_A_SESSION_SEEN, "SELECT, INSERT"),
    "chunk_corrections": ("EXISTS (SELECT FROM conversation_chunks k WHERE k.id = chunk_id)", "SELECT"),
    "copilot_feedback": (OF_A_SESSION_SEEN, "SELECT, INSERT, UPDATE, DELETE"),
    "copilot_deltas": (f"login_id = {LOGINS}", "SELECT"),
}

WHAT_TO_RUN = """
The copilot needs the database role "{role}", which row-level security confines to the signed-in user's rows,
and the role "{own}" may not {what}. Have a superuser run this once, then migrate again:

    CREATE ROLE "{role}" NOLOGIN;
    GRANT "{role}" TO "{own}";

Another name can be set as COPILOT_ROLE."""


def make_role(apps, schema_editor):
    """There is the role, and we may take it on. Raises CommandError with what to run where we may not see to that."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [ROLE])
        [(own, exists)] = cursor.fetchall()
        if not exists and not _allowed(cursor, f'CREATE ROLE "{ROLE}" NOLOGIN'):
            # Or somebody else made it at this very moment, for another database of the same server.
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if not cursor.fetchall():
                raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="create it"))
        if not _can_take_on(cursor) and not (
            _allowed(cursor, f'GRANT "{ROLE}" TO CURRENT_USER') and _can_take_on(cursor)
        ):
            raise CommandError(WHAT_TO_RUN.format(role=ROLE, own=own, what="take it on"))


def _can_take_on(cursor):
    return _allowed(cursor, f'SET LOCAL ROLE "{ROLE}"') and _allowed(cursor, "SET LOCAL ROLE NONE")


def _allowed(cursor, statement):
    try:
        with transaction.atomic(using=cursor.db.alias):
            cursor.execute(statement)
    except DatabaseError:
        return False
    return True


def confine(table, seen, deeds):
    return migrations.RunSQL(
        [
            f"CREATE POLICY everybody ON {table} USING (true)",
            f'CREATE POLICY copilot ON {table} AS RESTRICTIVE TO "{ROLE}" USING ({seen})',
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f'GRANT {deeds} ON {table} TO "{ROLE}"',
        ],
        [
            f'REVOKE ALL ON {table} FROM "{ROLE}"',
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY copilot ON {table}",
            f"DROP POLICY everybody ON {table}",
        ],
    )


class Migration(migrations.Migration):
    dependencies = [("conversations", "0014_keep_the_copilot_s_sessions")]

    operations = [
        migrations.RunPython(make_role, migrations.RunPython.noop),
        *(confine(table, *how) for table, how in CONFINED.items()),
    ]
