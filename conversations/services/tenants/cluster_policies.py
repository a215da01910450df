"""The copilot's policies in a cluster: the same rows are shown as on one server, by functions that read shards.

A policy is applied on the worker that has the row, and nothing that runs there may ask for rows of placed tables. So
the functions read the shards beside the row by their own names; a client's shards are together.

Citus makes every policy of a shard permissive, also where it says RESTRICTIVE. So that of all others excludes the
copilot's role here, which is left with its own alone.

The role connects to the workers itself, so that its confinement does not hang on a setting. Whose rows it sees is a
setting (`convo.logins`, core/row_level_security.py). Where that is lost, nothing is shown.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from conversations.services.core.errors import ConflictError

_LOGINS = "ANY (string_to_array(current_setting('convo.logins', true), ',')::int[])"
_SHARD = "$1 || '_' || get_shard_id_for_distribution_column($1::regclass, $2)"

# By signature: what is returned, and the query over shards; %s stands for each of them in turn.
_FUNCTIONS = {
    "copilot_clients()": (
        "uuid[]",
        f"""SELECT ARRAY(SELECT c.id FROM %s m JOIN %s c ON c.id = m.client_id
            WHERE m.user_id = {_LOGINS} AND c.is_active)""",
        ("memberships", "clients"),
        "''",
    ),
    "copilot_owns(client uuid, contact uuid)": (
        "boolean",
        f"""SELECT EXISTS (
            SELECT FROM %s p JOIN %s m ON m.user_id = p.login_id AND m.client_id = p.client_id
            JOIN %s c ON c.id = p.client_id AND c.is_active
            WHERE p.client_id = $1 AND p.id = $2 AND p.login_id = {_LOGINS})""",
        ("contacts", "memberships", "clients"),
        "client::text",
    ),
    "copilot_sees(client uuid, session uuid)": (
        "boolean",
        f"""SELECT EXISTS (
            SELECT FROM %s s JOIN %s p ON p.client_id = s.client_id AND p.id = s.contact_id
            JOIN %s m ON m.user_id = p.login_id AND m.client_id = p.client_id
            JOIN %s c ON c.id = p.client_id AND c.is_active
            WHERE s.client_id = $1 AND s.id = $2 AND s.channel = 'web' AND p.login_id = {_LOGINS})""",
        ("conversations", "contacts", "memberships", "clients"),
        "client::text",
    ),
    "copilot_sees_chunk(client uuid, chunk bigint)": (
        "boolean",
        """SELECT EXISTS (
            SELECT FROM %s k WHERE k.client_id = $1 AND k.id = $2 AND copilot_sees(k.client_id, k.conversation_id))""",
        ("conversation_chunks",),
        "client::text",
    ),
}
_MINE = "ANY (copilot_clients())"
# By table, where the policy of one server has a sub-select, which Citus does not take.
POLICIES = {
    "clients": f"id = {_MINE}",
    "assistants": f"client_id = {_MINE}",
    "contacts": f"login_id = {_LOGINS} AND client_id = {_MINE}",
    "conversations": "channel = 'web' AND copilot_owns(client_id, contact_id)",
    "chunk_corrections": "copilot_sees_chunk(client_id, chunk_id)",
}


def replace_policies(cursor: Any) -> None:
    """Put the cluster's functions and policies in the place of those of one server, where they are not yet there.

    Raises ConflictError where the copilot's role may not connect to the workers, and we may not let it.
    """
    _let_role_connect()
    cursor.execute(
        "CREATE OR REPLACE FUNCTION shard_of(name text, client text) RETURNS text LANGUAGE sql STABLE"
        f" AS $$ SELECT {_SHARD} $$"
    )
    cursor.execute(f'GRANT EXECUTE ON FUNCTION shard_of(text, text) TO "{settings.COPILOT_ROLE}"')
    for signature, definition in _FUNCTIONS.items():
        cursor.execute(_function(signature, *definition))
        cursor.execute(
            f"DO $do$ BEGIN EXECUTE format('ALTER FUNCTION {signature} SET search_path = %I, pg_temp',"
            " current_schema()); END $do$"
        )
        cursor.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        cursor.execute(f'GRANT EXECUTE ON FUNCTION {signature} TO "{settings.COPILOT_ROLE}"')
    cursor.execute("SELECT tablename, qual FROM pg_policies WHERE policyname = 'copilot'")
    for table, condition in {**dict(cursor.fetchall()), **POLICIES}.items():
        for name, to, shown in (
            ("everybody", "PUBLIC", f"current_user <> '{settings.COPILOT_ROLE}'"),
            ("copilot", f'"{settings.COPILOT_ROLE}"', condition),
        ):
            cursor.execute(f"DROP POLICY {name} ON {table}")
            cursor.execute(f"CREATE POLICY {name} ON {table} TO {to} USING ({shown})")


def _function(signature: str, kind: str, query: str, tables: tuple[str, ...], client: str) -> str:
    names = [part.split()[0] for part in signature.partition("(")[2].rstrip(")").split(", ") if part]
    shards = ", ".join(f"shard_of('{table}', {client})" for table in tables)
    given = f" USING {', '.join(names)}" if names else ""
    quoted = query.replace("'", "''")
    return f"""
        CREATE OR REPLACE FUNCTION {signature} RETURNS {kind} LANGUAGE plpgsql STABLE SECURITY DEFINER AS $body$
        DECLARE found_rows {kind};
        BEGIN
            EXECUTE format('{quoted}', {shards}) INTO found_rows{given};
            RETURN found_rows;
        END $body$"""


def _let_role_connect() -> None:
    role = settings.COPILOT_ROLE
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role])
        if cursor.fetchall() == [(True,)]:
            return
        try:
            with transaction.atomic():
                cursor.execute(f'ALTER ROLE "{role}" LOGIN')
        except DatabaseError:
            raise ConflictError(
                f"The copilot's role connects to the workers. Have a superuser run on the coordinator: "
                f'ALTER ROLE "{role}" LOGIN;'
            ) from None
