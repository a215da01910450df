"""The same rows as before for the copilot's role, by functions instead of nested sub-selects: planning these took ten times
what the queries themselves do."""

from django.conf import settings
from django.db import migrations

ROLE = settings.COPILOT_ROLE
LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"

# They run as the tables' owner, who is not asked by the policies, and look at nothing but what is asked for.
FUNCTIONS = {
    "copilot_clients()": (
        "uuid[]",
        f"""ARRAY(SELECT c.id FROM memberships m JOIN clients c ON c.id = m.client_id
                  WHERE m.user_id = {LOGINS} AND c.is_active)""",
    ),
    "copilot_contacts()": (
        "uuid[]",
        f"ARRAY(SELECT p.id FROM contacts p WHERE p.login_id = {LOGINS} AND p.client_id = ANY (copilot_clients()))",
    ),
    "copilot_sees(session uuid)": (
        "boolean",
        f"""EXISTS (
            SELECT FROM conversations s JOIN contacts p ON p.id = s.contact_id
            JOIN memberships m ON m.user_id = p.login_id AND m.client_id = p.client_id
            JOIN clients c ON c.id = p.client_id AND c.is_active
            WHERE s.id = session AND s.channel = 'web' AND p.login_id = {LOGINS})""",
    ),
}
MINE = "ANY ((SELECT copilot_clients())::uuid[])"  # a sub-select, so that it is asked once for a query
CONFINED = {
    "clients": f"id = {MINE}",
    "assistants": f"client_id = {MINE}",
    "contacts": f"login_id = {LOGINS} AND client_id = {MINE}",
    "conversations": "channel = 'web' AND contact_id = ANY ((SELECT copilot_contacts())::uuid[])",
    "conversation_chunks": "copilot_sees(conversation_id)",
    "conversation_turns": "copilot_sees(conversation_id)",
    "conversation_events": "copilot_sees(conversation_id)",
    "copilot_feedback": "copilot_sees(conversation_id)",
}


def function(name: str, kind: str, query: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        [
            f"CREATE FUNCTION {name} RETURNS {kind} LANGUAGE plpgsql STABLE SECURITY DEFINER "
            f"AS $$ BEGIN RETURN {query}; END $$",
            # Our tables and no others: whoever calls could have temporary ones of the same names.
            f"DO $$ BEGIN EXECUTE format('ALTER FUNCTION {name} SET search_path = %I, pg_temp', current_schema()); END $$",
            f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
            f'GRANT EXECUTE ON FUNCTION {name} TO "{ROLE}"',
        ],
        f"DROP FUNCTION {name}",
    )


def confine(table: str, seen: str) -> migrations.RunSQL:
    return migrations.RunSQL(f"ALTER POLICY copilot ON {table} USING ({seen})", migrations.RunSQL.noop)


class Migration(migrations.Migration):
    dependencies = [("conversations", "0024_erase_people")]

    operations = [
        *(function(name, *how) for name, how in FUNCTIONS.items()),
        *(confine(table, seen) for table, seen in CONFINED.items()),
    ]
